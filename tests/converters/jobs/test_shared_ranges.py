"""After training, an op that joins ranges takes none from the other readers of its inputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfcompress import converters
from tfcompress.edge import Runner

X = np.random.default_rng(0).uniform(-1, 1, (64, 8, 8, 4)).astype("float32")


def conv(x, size=1):
    return layers.Conv2D(4, size, padding="same")(x)


@pytest.fixture(scope="module")
def joining():
    """A tensor from -6 to 5 that others read, beside each op that joins ranges."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), name="x")
    h = layers.Add(name="h")([conv(x), conv(x, 3)])
    outputs = {
        "maximum": conv(ops.maximum(h, ops.relu(conv(x)))),
        "minimum": conv(ops.minimum(h, conv(x) - 1.0)),
        "clip": conv(ops.clip(h, -0.5, 0.5)),
        "where": conv(ops.where(h > 4.0, h, 0.05 * conv(x))),
        "wide": conv(layers.Concatenate()([h, 100 * conv(x)])),
        "other": conv(h, 3),
    }
    return keras.Model(x, outputs)


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
def test_other_readers_keep_their_range(joining, delegate, tmp_path):
    file = converters.convert(
        joining, tmp_path / "m.tflite", converters.Int8(calibration=X), batch_size=1, strict=True
    )
    found = converters.verify(joining, file, X, delegate=delegate).raise_if_above(snr_below=25)
    # It was 3 dB. Eight bits and two layers leave 30 and more.
    assert {output.name: output.snr_db for output in found.outputs}["other"] > 30
    graph = converters.inspect(file)
    assert "LEAKY_RELU" not in graph.ops
    assert file.float_macs == file.float_casts == ()


def test_an_input_of_about_the_same_range_gets_no_op(tmp_path):
    x = keras.Input((8, 8, 4), name="x")
    h = layers.ReLU()(x)
    model = keras.Model(x, conv(layers.Concatenate()([h, layers.AveragePooling2D(1)(h)])))
    file = converters.convert(model, tmp_path / "m.tflite", converters.Int8(calibration=X))
    inner = [node for node in converters.inspect(file).nodes if node.op == "QUANTIZE"]
    assert len(inner) == 1  # that of the float input


@pytest.mark.parametrize(("bias", "scale"), [(-9.0, 1.0), (0.0, 1e-5)], ids=["zero", "tiny"])
def test_a_branch_of_next_to_nothing_can_be_added(bias, scale, tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), name="x")
    start = keras.initializers.Constant(bias)
    branch = scale * layers.Conv2D(4, 1, activation="relu", bias_initializer=start)(x)
    model = keras.Model(x, conv(layers.Add()([conv(x), branch])))
    file = converters.convert(model, tmp_path / "m.tflite", converters.Int8(calibration=X))
    converters.verify(model, file, X).raise_if_above(snr_below=30)
    assert np.isfinite(Runner(file)(X)).all()
