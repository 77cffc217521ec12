"""Files that are joined keep what each computes, loops included."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters, edge
from tfcompress.converters.jobs.join import difference
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.converters.passes.join import join


def model_of(*body):
    return keras.Sequential([keras.Input((5, 4), name="x"), *body])


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A loop, and other ops in another order."""
    folder = tmp_path_factory.mktemp("parts")
    models = [
        model_of(layers.LSTM(3)),
        model_of(layers.Conv1D(3, 2, activation="tanh"), layers.Flatten(), layers.Dense(2)),
        model_of(layers.LSTM(2), layers.Dense(2)),
    ]
    return [
        converters.convert(model, folder / f"{i}.tflite", batch_size=1).path
        for i, model in enumerate(models)
    ]


def test_every_signature_computes_what_its_file_does(parts, tmp_path):
    keys = ["one", "two", "three"]
    joined = tmp_path / "joined.tflite"
    joined.write_bytes(join([part.read_bytes() for part in parts], keys))
    assert difference(parts, keys, joined) == ""
    x = np.random.default_rng(0).normal(size=(1, 5, 4)).astype("float32")
    for part, key in zip(parts, keys, strict=True):
        np.testing.assert_array_equal(edge.Runner(joined, signature=key)(x), edge.Runner(part)(x))
    codes = [
        max(c.builtinCode, c.deprecatedBuiltinCode)
        for c in unpack(joined.read_bytes()).operatorCodes
    ]
    assert len(codes) == len(set(codes))


def test_a_difference_is_found(parts, tmp_path):
    keys = ["one", "two"]
    model = unpack(join([parts[0].read_bytes(), parts[2].read_bytes()], keys))
    kernel = max(model.buffers, key=lambda b: 0 if b.data is None else len(b.data))
    kernel.data = np.asarray(kernel.data)[::-1].copy()
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(pack(model))
    assert "differs" in difference([parts[0], parts[2]], keys, wrong)
