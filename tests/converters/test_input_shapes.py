"""A file fixes sizes that the model leaves free."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfcompress import converters, edge
from tfcompress.converters.input_shapes import with_shapes
from tfcompress.model.samples import InputSpec

INPUTS = (InputSpec("tokens", (None, None), "int32"), InputSpec("mask", (None, None), "int32"))


class ByLength(layers.Layer):
    def call(self, x):
        return x * ops.sqrt(ops.cast(ops.shape(x)[1], "float32"))


def test_given_sizes_replace_free_ones_and_none_keeps_them():
    found = with_shapes(INPUTS, {"tokens": (None, 5), "mask": [None, None]})
    assert [spec.shape for spec in found] == [(None, 5), (None, None)]
    image = [InputSpec("image", (2, None, 8, 3), "float32")]
    assert with_shapes(image, {"image": (None, np.int64(6), 8, 3)})[0].shape == (2, 6, 8, 3)
    assert with_shapes(INPUTS, None) == INPUTS


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ((1, 5), TypeError, r"dict of input names \('tokens', 'mask'\) .*Received: input_shapes="),
        ({}, ValueError, "`input_shapes` must be a dict"),
        ({"token": (1, 5)}, ValueError, "'tokens', 'mask'"),
        ({"tokens": 5}, TypeError, r"`input_shapes\['tokens'\]` must be a tuple of 2 sizes"),
        ({"tokens": (1, 5, 1)}, ValueError, r"agrees with the model's \(None, None\)"),
        ({"tokens": (1, 0)}, ValueError, "an integer from 1"),
        ({"tokens": (1, 2.5)}, TypeError, "an integer from 1"),
        ({"tokens": (1, 5)}, ValueError, "'tokens' 1, 'mask' None"),
    ],
)
def test_wrong_shapes(shapes, error, message):
    with pytest.raises(error, match=message):
        with_shapes(INPUTS, shapes)


def test_sizes_of_the_model_stay():
    with pytest.raises(ValueError, match=r"agrees with the model's \(None, 8, 3\).*Received"):
        with_shapes([InputSpec("x", (None, 8, 3), "float32")], {"x": (None, 4, 3)})


def test_a_fixed_length_folds_what_is_computed_from_it(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Dense(3)(ByLength()(layers.Embedding(9, 4)(tokens))))
    data = np.random.default_rng(0).integers(0, 9, (4, 6)).astype("int32")
    free, fixed = converters.convert_all(
        model, {tmp_path / "a.tflite": converters.Float32()}, batch_size=1
    ) + converters.convert_all(
        model, {tmp_path / "b.tflite": converters.Float32()}, input_shapes={"tokens": (1, 6)}
    )
    assert edge.Runner(fixed).inputs[0].shape == (1, 6)
    assert {"SHAPE", "SQRT"} & converters.inspect(free).ops.keys()
    assert not {"SHAPE", "SQRT"} & converters.inspect(fixed).ops.keys()
    converters.verify(model, fixed, data).raise_if_above(max_error=1e-5)


def test_int8_is_calibrated_and_equalized_at_that_length(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.Conv1D(3, 3)(layers.Conv1D(8, 3, activation="relu")(x)))
    data = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    path = tmp_path / "int8.tflite"
    for equalize in (False, True):
        precision = converters.Int8(calibration=data, equalize=equalize)
        file = converters.convert(
            model, path, precision, input_shapes={"x": (1, 6, 4)}, strict=True
        )
        converters.verify(model, file, data).raise_if_above(snr_below=25)
    with pytest.raises(ValueError, match="'x'"):
        precision = converters.Int8(calibration=data[:, :5])
        converters.convert(model, path, precision, input_shapes={"x": (1, 6, 4)})
