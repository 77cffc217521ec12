"""What is repaired between calibration and quantization: masks, raw features, indices, one-hots."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfcompress import converters

RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(24, 8, 16)).astype("float32")
SEEN = np.arange(8) < RNG.integers(2, 8, (24, 1))
RAW = RNG.uniform([0, 0, -5], [1, 5e4, 5], (64, 3)).astype("float32")
KINDS = RNG.integers(0, 5, (64, 1)).astype("int32")


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def snr(model, samples, folder, **options):
    """Convert after training, strictly, and compare; a warning would be an error here."""
    precision = converters.Int8(calibration=samples)
    file = converters.convert(model, folder / "m.tflite", precision, strict=True, **options)
    return file, converters.verify(model, file, samples).outputs[0].snr_db


def test_raw_features_and_indices_stay_exact(tmp_path):
    raw = keras.Input((3,), name="raw")
    norm = layers.Normalization(name="norm")
    norm.adapt(RAW)
    kind = keras.Input((1,), dtype="int32", name="kind")
    one_hot = layers.CategoryEncoding(5, output_mode="one_hot", name="category")(kind)
    y = layers.Dense(16, activation="relu")(layers.Concatenate()([norm(raw), one_hot]))
    model = keras.Model([raw, kind], layers.Dense(1)(y))
    file, found = snr(model, {"raw": RAW, "kind": KINDS}, tmp_path)
    # Before: 4 dB. Eight bits and three layers leave 35 and more.
    assert found > 35
    assert set(file.kept_float) >= {"norm"}


def attention(mask):
    """Two layers of attention, whose scores get a mask: bias, shared by both."""
    x, seen = keras.Input((8, 16), name="x"), keras.Input((8,), name="seen")
    y = x
    for _ in range(2):
        query, key, value = (layers.Dense(16)(y) for _ in range(3))
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / 4
        y = y + ops.matmul(ops.softmax(mask(scores, ops.expand_dims(seen, 1))), value)
    return keras.Model([x, seen], y)


def test_a_mask_that_is_added_to_scores_does_not_set_their_range(tmp_path):
    model = attention(lambda scores, seen: scores + (1.0 - seen) * -1e9)
    samples = {"x": SEQUENCES, "seen": SEEN.astype("float32")}
    # Before: 6 dB; without a mask: 30.
    assert snr(model, samples, tmp_path, batch_size=1)[1] > 27


@pytest.mark.slow("converts a model")
def test_large_scores_are_no_masks(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, use_bias=False), layers.Softmax()])
    model.layers[0].kernel.assign(np.eye(3) * 4e3 - 2e3)
    x = RNG.random((64, 3)).astype("float32")
    file, _ = snr(model, x, tmp_path)
    assert converters.verify(model, file, x).outputs[0].top1 > 0.95


def masked_layer(layer, **arguments):
    x = keras.Input((8, 16))
    return keras.Model(x, layer(x, x, **arguments)), SEQUENCES


def padded():
    ids = keras.Input((8,), dtype="int32")
    x = layers.Embedding(20, 16, mask_zero=True, embeddings_initializer="normal")(ids)
    layer = layers.MultiHeadAttention(2, 8, kernel_initializer="normal")
    return keras.Model(ids, layer(x * 40, x * 40)), np.where(SEEN, KINDS[:24] + 1, 0)


def keras_attention():
    x, seen = keras.Input((8, 16), name="x"), keras.Input((8,), dtype="bool", name="seen")
    y = layers.Attention()([layers.Dense(16)(x), layers.Dense(16)(x)], mask=[seen, seen])
    return keras.Model([x, seen], y), {"x": SEQUENCES, "seen": SEEN}


def chosen():
    model = attention(lambda scores, seen: ops.where(seen > 0.5, scores, -3e4))
    return model, {"x": SEQUENCES, "seen": SEEN.astype("float32")}


def normalized_by_batches():
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), norm, layers.Dense(8, "relu"), layers.Dense(1)])
    norm.set_weights([np.full(3, 1.5), np.full(3, 0.1), RAW.mean(0), RAW.var(0)])
    return model, RAW


def buckets():
    encode = layers.Discretization([1e4, 2e4, 4e4], output_mode="one_hot")
    model = keras.Sequential([keras.Input((1,)), encode, layers.Dense(8, "relu"), layers.Dense(1)])
    return model, RAW[:, 1:2]


@pytest.mark.slow("converts seven models")
@pytest.mark.parametrize(
    ("make", "decibels"),
    [
        (lambda: masked_layer(layers.MultiHeadAttention(2, 8), use_causal_mask=True), 27),
        (lambda: masked_layer(layers.GroupQueryAttention(8, 2, 1), use_causal_mask=True), 25),
        (padded, 27),
        (keras_attention, 25),
        (chosen, 25),
        (normalized_by_batches, 35),
        (buckets, 35),
    ],
    ids=["causal", "group query", "padding", "Attention", "where", "batch norm", "buckets"],
)
def test_repairs_reach_every_form_of_the_fault(make, decibels, tmp_path):
    model, samples = make()
    assert snr(model, samples, tmp_path, batch_size=1)[1] > decibels


@pytest.mark.slow("converts a model twice")
def test_even_features_and_integer_inputs_stay_int8(tmp_path):
    norm = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.04, 0.06])
    model = keras.Sequential([keras.Input((3,)), norm, layers.Dense(4)])
    x = RNG.random((32, 3)).astype("float32")
    file, _ = snr(model, x, tmp_path)
    assert (file.kept_float, file.float_casts) == ((), ())
    integer = converters.Int8(calibration=x, io="int8")
    file = converters.convert(model, tmp_path / "io.tflite", integer, strict=True)
    assert converters.inspect(file).ops.keys() <= {"SUB", "MUL", "FULLY_CONNECTED", "ADD"}
