"""Each op of the table with one scale for inputs and output has it in its file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.converters.file.read import inspect
from tfcompress.converters.file_outputs import output_scales
from tfcompress.quantization.layer_table import _RULES, Rule, is_relu, rule_of

RNG = np.random.default_rng(0)

# What the table has, on tensors (8, 4), (8, 8, 4) and (4, 4, 4, 4).
ROW, IMAGE, VOLUME = "row", "image", "volume"
EXAMPLES = {
    layers.ActivityRegularization: (IMAGE, layers.ActivityRegularization()),
    layers.AdaptiveAveragePooling1D: (ROW, layers.AdaptiveAveragePooling1D(4)),
    layers.AdaptiveAveragePooling2D: (IMAGE, layers.AdaptiveAveragePooling2D(4)),
    layers.AdaptiveMaxPooling1D: (ROW, layers.AdaptiveMaxPooling1D(4)),
    layers.AdaptiveMaxPooling2D: (IMAGE, layers.AdaptiveMaxPooling2D(4)),
    layers.AlphaDropout: (IMAGE, layers.AlphaDropout(0.5)),
    layers.AveragePooling1D: (ROW, layers.AveragePooling1D(2)),
    layers.AveragePooling2D: (IMAGE, layers.AveragePooling2D(2)),
    layers.CenterCrop: (IMAGE, layers.CenterCrop(4, 4)),
    layers.Cropping1D: (ROW, layers.Cropping1D(1)),
    layers.Cropping2D: (IMAGE, layers.Cropping2D(1)),
    layers.Cropping3D: (VOLUME, layers.Cropping3D(1)),
    layers.Dropout: (IMAGE, layers.Dropout(0.5)),
    layers.Flatten: (IMAGE, layers.Flatten()),
    layers.GaussianDropout: (IMAGE, layers.GaussianDropout(0.5)),
    layers.GaussianNoise: (IMAGE, layers.GaussianNoise(0.5)),
    layers.GlobalMaxPooling1D: (ROW, layers.GlobalMaxPooling1D()),
    layers.GlobalMaxPooling2D: (IMAGE, layers.GlobalMaxPooling2D()),
    layers.Identity: (IMAGE, layers.Identity()),
    layers.MaxPooling1D: (ROW, layers.MaxPooling1D(2)),
    layers.MaxPooling2D: (IMAGE, layers.MaxPooling2D(2)),
    layers.Permute: (IMAGE, layers.Permute((2, 1, 3))),
    layers.RepeatVector: (ROW, lambda x: layers.RepeatVector(3)(ops.max(x, axis=1))),
    layers.Reshape: (IMAGE, layers.Reshape((16, 16))),
    layers.SpatialDropout1D: (ROW, layers.SpatialDropout1D(0.5)),
    layers.SpatialDropout2D: (IMAGE, layers.SpatialDropout2D(0.5)),
    layers.SpatialDropout3D: (VOLUME, layers.SpatialDropout3D(0.5)),
    layers.UpSampling1D: (ROW, layers.UpSampling1D(2)),
    layers.ZeroPadding1D: (ROW, layers.ZeroPadding1D(1)),
    layers.ZeroPadding2D: (IMAGE, layers.ZeroPadding2D(1)),
    layers.ZeroPadding3D: (VOLUME, layers.ZeroPadding3D(1)),
    "AdaptiveAveragePool": (IMAGE, lambda x: ops.adaptive_average_pool(x, (4, 4))),
    "AdaptiveMaxPool": (IMAGE, lambda x: ops.adaptive_max_pool(x, (4, 4))),
    "Amax": (IMAGE, lambda x: ops.amax(x, axis=1)),
    "Amin": (IMAGE, lambda x: ops.amin(x, axis=1)),
    "ArraySplit": (IMAGE, lambda x: ops.array_split(x, 2, axis=1)[1]),
    "AveragePool": (IMAGE, lambda x: ops.average_pool(x, 2)),
    "Clip": (IMAGE, lambda x: ops.clip(x, -0.2, 0.3)),
    "CropImages": (IMAGE, lambda x: ops.image.crop_images(x, 1, 1, None, None, 4, 4)),
    "DepthToSpace": (IMAGE, lambda x: ops.depth_to_space(x, 2)),
    "ExpandDims": (IMAGE, lambda x: ops.expand_dims(x, 1)),
    "GetItem": (IMAGE, lambda x: x[:, 1:5, ::2]),
    "Max": (IMAGE, lambda x: ops.max(x, axis=(1, 2))),
    "MaxPool": (IMAGE, lambda x: ops.max_pool(x, 2)),
    "Min": (IMAGE, lambda x: ops.min(x, axis=(1, 2))),
    "Moveaxis": (IMAGE, lambda x: ops.moveaxis(x, 1, 2)),
    "Pad": (IMAGE, lambda x: ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=0.1)),
    "PadImages": (IMAGE, lambda x: ops.image.pad_images(x, 1, 1, None, None, 12, 12)),
    "Repeat": (IMAGE, lambda x: ops.repeat(x, 2, axis=1)),
    "Reshape": (IMAGE, lambda x: ops.reshape(x, (-1, 16, 16))),
    "Roll": (IMAGE, lambda x: ops.roll(x, 1, axis=1)),
    "SpaceToDepth": (IMAGE, lambda x: ops.space_to_depth(x, 2)),
    "Squeeze": (IMAGE, lambda x: ops.squeeze(x[:, :1], 1)),
    "StopGradient": (IMAGE, lambda x: ops.stop_gradient(x)),
    "Swapaxes": (IMAGE, lambda x: ops.swapaxes(x, 1, 2)),
    "Take": (IMAGE, lambda x: ops.take(x, [0, 2], axis=1)),
    "TakeAlongAxis": (
        IMAGE,
        lambda x: ops.take_along_axis(x, np.zeros((1, 1, 8, 4), "int32"), axis=1),
    ),
    "Tile": (IMAGE, lambda x: ops.tile(x, (1, 2, 1, 1))),
    "TopK": (IMAGE, lambda x: ops.top_k(x, 2)[0]),
    "Transpose": (IMAGE, lambda x: ops.transpose(x, (0, 2, 1, 3))),
    "Unstack": (IMAGE, lambda x: ops.unstack(x, axis=1)[1]),
    # With a constant, the only tensor sets the range.
    "Maximum": (IMAGE, lambda x: ops.maximum(x, -0.1)),
    "Minimum": (IMAGE, lambda x: ops.minimum(x, 0.1)),
    # Not in the table by their class: it depends on the interpolation.
    "Resizing": (IMAGE, layers.Resizing(5, 4)),
    "nearest": (IMAGE, layers.Resizing(4, 4, interpolation="nearest")),
    "Resize": (IMAGE, lambda x: ops.image.resize(x, (5, 4))),
    "UpSampling2D": (IMAGE, layers.UpSampling2D(interpolation="bilinear")),
}
# They do nothing at inference, or join several tensors, which test_placement.py does.
ELSEWHERE = {key for key in _RULES if not isinstance(key, str) and "Random" in key.__name__}
ELSEWHERE |= {key for key, rule in _RULES.items() if rule is Rule.JOINED}
# These act on the batch, or are others by another name.
ELSEWHERE |= {"BroadcastTo", "Ravel", "Slice", "Vsplit", layers.Masking, "Identity"}
# The file computes these in float.
ELSEWHERE |= {"Dsplit", "Flip", "Fliplr", "Flipud", "Hsplit", "Rot90", "Split"}


def test_every_entry_of_the_table_has_an_example():
    assert set(_RULES) <= set(EXAMPLES) | ELSEWHERE


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Name of each example -> its error in steps of what all of them read, and its own scale."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4), batch_size=1, name="x")
    image = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    forms = {
        IMAGE: image,
        ROW: layers.Reshape((64, 4))(image),
        VOLUME: layers.Reshape((4, 4, 4, 4))(image),
    }
    results = {name_of(key): call(forms[form]) for key, (form, call) in EXAMPLES.items()}
    model = keras.Model(x, {"all": image, **results})
    data = RNG.uniform(-1.0, 1.0, (16, 8, 8, 4)).astype("float32")
    qat = tfc.calibrate(tfc.quantize_aware(model), data)
    path = tmp_path_factory.mktemp("table") / "table.tflite"
    file = converters.convert(qat, path, converters.Int8())
    report = converters.verify(qat, file, data)
    scales = output_scales(inspect(file))
    step = scales["all"]
    return {o.name: (o.max_error / step, scales.get(o.name)) for o in report.outputs}


def name_of(key):
    return key if isinstance(key, str) else f"layer_{key.__name__}"


@pytest.mark.slow("one file with an output for each op of the table")
@pytest.mark.parametrize("name", list(map(name_of, EXAMPLES)))
def test_output_has_the_scale_of_the_input_and_the_values_of_the_model(outputs, name):
    error, scale = outputs[name]
    # The file may turn integers into floats before an op at its end that only moves them about.
    assert scale in (None, outputs["all"][1])
    # Averages and interpolations often lie midway between two steps.
    assert error <= 1.01


@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        (layers.Resizing(4, 4), Rule.SHARED),
        (layers.Resizing(4, 4, interpolation="nearest"), Rule.SAME),
        (layers.UpSampling2D(), Rule.SAME),
        (layers.GlobalAveragePooling2D(), Rule.OWN),
        (layers.Softmax(), Rule.FIXED),
        (layers.TimeDistributed(layers.AveragePooling2D(2)), Rule.SHARED),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rule_of(operation, rule):
    assert rule_of(operation) is rule


def test_is_relu_knows_the_clip_that_is_a_relu6():
    clips = [(0.0, 6.0), (0, 6), (0.0, 1.0), (np.zeros(4), 6.0)]
    found = [ops.clip(keras.Input((4,)), *bounds)._keras_history.operation for bounds in clips]
    assert [is_relu(operation) for operation in found] == [True, True, False, False]
    assert is_relu(ops.relu(keras.Input((4,)))._keras_history.operation)
