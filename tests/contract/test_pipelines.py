"""From training to the device with inputs in a dictionary and padding, as text has them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters, edge

WORDS, LENGTH, SAMPLES = 30, 8, 256


def messages():
    """Return messages of different lengths, and whether a word of the first ten is in each."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, WORDS, (SAMPLES, LENGTH)).astype("int32")
    mask = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (SAMPLES, 1))).astype("int32")
    labels = ((tokens < 10) & (mask > 0)).sum(1) > mask.sum(1) / 3
    return {"token_ids": tokens, "padding_mask": mask}, labels.astype("float32")[:, None]


def classifier():
    inputs = {
        name: keras.Input((LENGTH,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    mask = inputs["padding_mask"]
    x = layers.Embedding(WORDS, 16, name="table")(inputs["token_ids"])
    seen = ops.cast(ops.expand_dims(mask, 1), "bool")
    y = layers.MultiHeadAttention(2, 8, name="attention")(x, x, attention_mask=seen)
    x = layers.LayerNormalization(name="norm")(x + y)
    x = layers.Dense(32, "relu", name="wide")(x)
    real = ops.cast(ops.expand_dims(mask, -1), "float32")
    x = ops.sum(x * real, axis=1) / ops.sum(real, axis=1)
    return keras.Model(inputs, layers.Dense(1, "sigmoid", name="spam")(x), name="filter")


@pytest.mark.slow("trains and converts")
def test_text_with_padding_is_pruned_trained_in_int8_converted_and_measured(tmp_path):
    x, y = messages()
    model = classifier()

    def train(what, *callbacks):
        what.compile(
            keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"],
            jit_compile=False,
        )  # fmt: skip
        what.fit(x, y, epochs=6, verbose=0, callbacks=list(callbacks))
        return what.evaluate(x, y, verbose=0)[1]

    assert train(model) > 0.9
    schedule = tfc.schedules.Polynomial(0.0, 0.5, begin=0, end=24)
    assert train(model, tfc.Prune(schedule, filters="attention|wide")) > 0.9
    [wide] = [row for row in tfc.summary(model).layers if row.path == "wide"]
    assert wide.zeros >= 16 * 32 // 2

    qat = tfc.calibrate(tfc.quantize_aware(model, float_sums=True), x)
    assert train(qat, tfc.KeepZeros()) > 0.9
    file = converters.convert(qat, tmp_path / "int8.tflite", converters.Int8(), batch_size=1)
    assert not file.float_macs
    converters.verify(qat, file, x).raise_if_above(snr_below=20)
    run = edge.Runner(file.path)
    answers = [
        np.ravel(run({name: array[i : i + 1] for name, array in x.items()}))[0]
        for i in range(SAMPLES)
    ]
    assert np.mean((np.array(answers) > 0.5) == (y[:, 0] > 0.5)) > 0.85
    one = {name: array[:1] for name, array in x.items()}
    [timing] = edge.benchmark([file.path], inputs=one, min_runs=3, min_seconds=0.0)
    assert timing.path == str(file.path)
