"""`convert` runs what it wrote, and says which output or channel is lost, and why."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters
from tfcompress.converters import ConversionError
from tfcompress.converters.judgement import _fault, _pooled
from tfcompress.converters.output_error import compare
from tfcompress.converters.outputs import keras_outputs
from tfcompress.model.signature import signature

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")


def head(scales):
    """A dense layer whose outputs have these sizes."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    y = layers.Dense(len(scales), name="head")(x)
    y = layers.Rescaling(np.array(scales, "float32"), name="sizes")(y)
    return keras.Model(x, y, name="detector")


def test_convert_warns_of_a_channel_that_shares_a_range_and_strict_refuses_it(tmp_path):
    model, int8 = head([400.0, 400.0, 1.0]), converters.Int8(calibration=X)
    with pytest.warns(UserWarning, match=r"bad\.tflite: output 'sizes', channel 2 of 3 ") as said:
        file = converters.convert(model, tmp_path / "bad.tflite", int8)
    (ours,) = [warning for warning in said if warning.category is UserWarning]
    assert "share the range" in str(ours.message)
    assert ours.filename == __file__
    (output,) = file.outputs
    assert (output.worst_channel, output.worst_r2 < 0.5) == (2, True)
    assert output.channel_r2[0] > 0.99 and output.cosine > 0.999
    found = converters.verify(model, file, X)
    assert "(channel 2)" in str(found)
    assert found.to_dict()["outputs"][0]["channel_r2"][2] < 0.5
    with pytest.raises(converters.VerificationError, match="'sizes', channel 2: worst_r2 is"):
        found.raise_if_above(r2_below=0.9)
    with pytest.raises(ConversionError, match=r"strict\.tflite would be far.*channel 2"):
        converters.convert(model, tmp_path / "strict.tflite", int8, strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tflite"]


def test_convert_judges_any_precision_by_samples_and_says_nothing_of_a_sound_file(tmp_path):
    model = head([2.0, 2.0, 1.0])
    wanted = {
        tmp_path / "a.tflite": converters.Float32(),
        tmp_path / "b.tflite": converters.Int8(calibration=X, io="int8"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        files = converters.convert_all(model, wanted, samples=X, batch_size=3)
    # Float32 sums in another order; int8 rounds twice, to 1/255 of a range of six deviations.
    for file, r2 in zip(files, (1 - 1e-9, 0.99), strict=True):
        assert file.outputs[0].worst_r2 > r2


def test_judgement_names_the_input_whose_step_is_too_coarse(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[1.0], [1e-4]])
    x = np.stack([RNG.uniform(0, 1, 64), RNG.uniform(0, 1e4, 64)], 1).astype("float32")
    with pytest.warns(
        UserWarning, match="One step of input 'x' is 38.9, .*feature 0 varies by 0.3"
    ):
        # With a float input, the layer would stay in float.
        precision = converters.Int8(calibration=x, io="int8")
        converters.convert(model, tmp_path / "m.tflite", precision)


class Inside:
    """An inspection of a file with one op, as far as a judgement reads it."""

    def __init__(self, op):
        self.nodes = [type("Node", (), {"op": op, "inputs": (0,), "outputs": (1,)})]
        self.signatures = [type("Signature", (), {"inputs": {}, "outputs": {"y": 1}})]
        self.tensors = ()


@pytest.mark.parametrize(
    ("op", "expected", "actual", "fault"),
    [
        # A rare class is never seen in steps of 1/256; the distribution is right.
        ("SOFTMAX", [[0.9, 0.001], [0.1, 0.002]] * 8, [[0.9, 0.0], [0.1, 0.0]] * 8, ""),
        ("SOFTMAX", [[0.9, 0.1], [0.1, 0.9]] * 8, [[0.5, 0.5]] * 16, "keeps 0%"),
        # Classes of an untrained net differ by less than a step.
        ("SOFTMAX", [[0.098, 0.101], [0.101, 0.099]] * 8, [[0.1016, 0.1016]] * 16, ""),
        ("ADD", [[0.9, 0.001], [0.1, 0.002]] * 8, [[0.9, 0.0], [0.1, 0.0]] * 8, "channel 1 of 2"),
        ("ADD", [[1.0, 5.0], [2.0, 5.0]] * 8, [[1.0, 4.0], [2.0, 4.0]] * 8, ""),
        ("ADD", [[1.0]] * 16, [[np.nan]] * 16, "16 NaN"),
        # Two samples say nothing of how channels vary.
        ("ADD", [[1.0, 0.0, 5.0], [1.0, 1e-3, 9.0]], [[1.0, 0.0, 5.0], [1.0, 0.0, 9.0]], ""),
    ],
)
def test_fault_is_found_where_a_user_would_see_it(op, expected, actual, fault):
    a, b = np.array(expected, "float32"), np.array(actual, "float32")
    step = 1 / 256 if op == "SOFTMAX" else None
    text = _fault(Inside(op), {}, compare("y", a, b, step), a, b)
    assert fault in text
    assert bool(text) == bool(fault)


def test_pooled_r2_of_a_constant_output_is_unknown():
    assert _pooled(np.ones((16, 2)), np.zeros((16, 2))) is None


def test_keras_outputs_leave_the_state_of_a_model_alone():
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 3, 4)), layers.GRU(2, stateful=True, name="memory")]
    )
    x = RNG.normal(size=(5, 3, 4)).astype("float32")
    call = signature(model)
    assert keras_outputs(call, {call.inputs[0].name: x})["memory"].shape == (5, 2)
    np.testing.assert_array_equal(model.layers[0].states[0], np.zeros((2, 2)))
