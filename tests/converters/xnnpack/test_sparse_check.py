"""Which graphs are safe to store sparse. That the classes are true is seen in test_on_arm.py."""

import pytest

from tests.zoo.sparse_nets import KINDS, check, converted, read
from tfcompress import converters, prune_weights, separable_net
from tfcompress.converters import check_sparse_kernels


@pytest.mark.parametrize(
    ("name", "op", "layer", "rule", "change"),
    [
        ("same stem", "CONV_2D", "stem", "stem", "ZeroPadding2D(1)"),
        ("max pooling", "MAX_POOL_2D", "odd", "do not support it", "depthwise"),
        ("3x3", "CONV_2D", "odd", "must be 1x1", "DepthwiseConv2D"),
        ("same stride 2", "DEPTHWISE_CONV_2D", "odd", "padded by 1", "ZeroPadding2D(1)"),
        ("7x7", "DEPTHWISE_CONV_2D", "odd", "3x3 or 5x5", "one of these"),
        ("multiplied channels", "DEPTHWISE_CONV_2D", "odd", "number of channels", "multiplier"),
        ("1x1 stride 2", "CONV_2D", "odd", "1x1 with stride 2", "Conv2D(filters, 1)"),
        ("norm behind relu", "MUL", "odd/batchnorm", "no constants", "BatchNormalization right"),
        ("squeeze and excite", "MUL", "odd", "same size", "squeeze-and-excite"),
        ("two outputs", "CONV_2D", "first", "output of the model", "GlobalAveragePooling2D"),
        ("two inputs", "CONCATENATION", "join", "do not support it", "Add"),
        ("convolution of a mean", "SHAPE", "flat", "do not support it", "Pooling"),
        ("flat", "", None, "must end in a mean", "GlobalAveragePooling2D"),
    ],
)
def test_a_violation_names_op_and_layer_and_says_what_to_change(name, op, layer, rule, change):
    found = check(converted(name))
    assert found.kind == KINDS[name]
    [told, *_] = [f for f in found.violations if (f.op, f.layer) == (op, layer)]
    assert rule in told.rule
    assert change in told.change
    assert f"{op} of layer '{layer}'" in str(found) or layer is None


def test_what_engages_has_no_violations():
    found = check(converted("residual"))
    assert (found.kind, found.violations) == ("sparse kernels", ())


@pytest.mark.parametrize("name", ["plain", "max pooling"])
def test_with_two_thirds_of_zeros_or_fewer_dense_kernels_run(name):
    found = check(converted(name, zeros=0.65))
    assert found.kind == "safe"
    assert "more than 2/3" in found.violations[-1].rule


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"constant": False}])
def test_weights_that_xnnpack_would_misread_are_unsafe(change):
    """It counts the zeros of every kernel of a graph with a mean, whatever they are stored in."""
    description = read(converted("no stem"))
    assert (
        check_sparse_kernels(converters.Inspection.from_description("x", description)).kind
        == "safe"
    )
    [scores] = [node for node in description["nodes"] if node["op"] == "FULLY_CONNECTED"]
    description["tensors"][scores["inputs"][1]].update(change)
    found = check_sparse_kernels(converters.Inspection.from_description("x", description))
    assert found.kind == "unsafe"
    assert found.violations[0].layer == "scores"


@pytest.mark.slow("converts a deep net")
def test_separable_net_runs_sparse_kernels_in_float_only(tmp_path, images):
    model = separable_net((32, 32, 3), 10, stem=16, blocks=((32, 1), (48, 2)))
    prune_weights(model, 0.75)
    calibration = images.repeat(3, axis=1).repeat(3, axis=2)[:, :32, :32]
    float32, int8 = converters.convert_all(
        model,
        {
            tmp_path / "float32.tflite": converters.Float32(),
            tmp_path / "int8.tflite": converters.Int8(calibration=calibration),
        },
    )
    found = check_sparse_kernels(float32)
    assert found.kind == "sparse kernels", found
    found = check_sparse_kernels(int8)
    assert found.kind == "safe"
    assert "convolutions in float" in found.violations[0].rule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (32, 32, 1)}, "3 channels"),
        ({"input_shape": (36, 36, 3)}, "multiples of 8"),
        ({"blocks": ((16, 3),)}, "stride 1 or 2"),
        ({"kernel_size": 7}, "kernel_size=7"),
    ],
)
def test_separable_net_refuses_what_could_not_engage(options, message):
    with pytest.raises(ValueError, match=message):
        separable_net(**{"input_shape": (32, 32, 3), "classes": 10, **options})
