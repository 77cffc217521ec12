"""One file with a signature for each length, whose weights are stored once."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.converters.several_shapes import signature_keys
from tfcompress.model.samples import InputSpec

VOCABULARY, WIDTH = 64, 32
SHAPES = [{"words": (1, length)} for length in (4, 12)]


def encoder():
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(VOCABULARY, WIDTH, name="table")(words)
    x = layers.Conv1D(WIDTH, 3, padding="same", activation="relu")(x)
    return keras.Model(words, layers.Dense(3, name="head")(x), name="encoder")


def words(length):
    return np.random.default_rng(0).integers(0, VOCABULARY, (6, length)).astype("int32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return encoder()


def specs(*shapes):
    return [[InputSpec(n, s, "int32") for n, s in shape.items()] for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "keys"),
    [
        ([{"a": (1, 8)}, {"a": (1, 9)}], ["serving_8", "serving_9"]),
        ([{"a": (1, 8), "b": (1, 8)}, {"a": (1, 9), "b": (1, 9)}], ["serving_8", "serving_9"]),
        ([{"a": (1, 8), "b": (1, 3)}, {"a": (1, 9), "b": (1, 4)}], ["serving_8_3", "serving_9_4"]),
        ([{"a": (1, 8, 8, 3)}, {"a": (1, 9, 6, 3)}], ["serving_8x8", "serving_9x6"]),
        ([{"a": (1, 8)}, {"a": (None, 8)}], ["serving_1", "serving_any"]),
    ],
)
def test_names_say_in_which_sizes_signatures_differ(shapes, keys):
    assert signature_keys(specs(*shapes)) == keys


@pytest.mark.parametrize("shapes", [[], SHAPES[:1], [*SHAPES, SHAPES[0]]])
def test_shapes_that_do_not_differ(model, shapes, tmp_path):
    with pytest.raises(ValueError, match="`input_shapes` must be a list of two or more shapes"):
        converters.convert(model, tmp_path / "m.tflite", input_shapes=shapes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_shapes": "wide"}, TypeError, "or a list of such dicts"),
        ({"input_shapes": [(1, 4), (1, 5)]}, TypeError, "`input_shapes` must be a dict"),
        ({"input_shapes": [{"words": (1, 4)}, {"word": (1, 5)}]}, ValueError, "'words'"),
        ({"precision": converters.Int8(words(4))}, ValueError, "Int8 with samples.*DynamicInt8"),
        ({"samples": words(4)}, ValueError, "signature='serving_4'"),
        ({"sparse": True}, ValueError, "cannot store zeros"),
    ],
)
def test_what_several_shapes_cannot_have(model, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        converters.convert(model, tmp_path / "m.tflite", **{"input_shapes": SHAPES, **options})
    assert not list(tmp_path.iterdir())


def test_each_length_has_a_signature_and_weights_are_stored_once(model, tmp_path):
    both = converters.convert(
        model, tmp_path / "both.tflite", converters.DynamicInt8(), input_shapes=SHAPES
    )
    found = converters.inspect(both)
    assert [s.key for s in found.signatures] == ["serving_4", "serving_12"]
    alike = [t.buffer for t in found.constants if t.bytes == VOCABULARY * WIDTH]
    assert len(alike) == 2 and len(set(alike)) == 1
    assert found.constant_bytes < 1.3 * model.count_params()
    for key, length in (("serving_4", 4), ("serving_12", 12)):
        assert edge.Runner(both, signature=key).inputs[0].shape == (1, length)
        result = converters.verify(model, both, words(length), signature=key)
        result.raise_if_above(snr_below=25)
    with pytest.raises(ValueError, match="by_layer"):
        converters.verify(model, both, words(4), signature="serving_4", by_layer=True)


@pytest.mark.slow("converts twice, with ranges")
def test_a_model_with_ranges_needs_no_samples(tmp_path):
    x = keras.Input((None, 6, 2), name="x")
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    qat = tfc.quantize_aware(keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling2D()(y))))
    shapes = [{"x": (1, 4, 6, 2)}, {"x": (1, 5, 6, 2)}]
    data = np.random.default_rng(0).normal(size=(8, 5, 6, 2)).astype("float32")
    tfc.calibrate(qat, data)
    file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8(), input_shapes=shapes)
    for size in (4, 5):
        x = data[:, :size]
        [output] = converters.verify(qat, file, x, signature=f"serving_{size}").outputs
        assert output.max_lsb <= 2.01
