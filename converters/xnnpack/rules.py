"""What XNNPACK's sparse kernels require of each op of a float graph.

The rules are those of `xnn_check_nchw_compatibility` in
https://github.com/google/XNNPACK/blob/master/src/subgraph.c, narrowed to what gave right results on
an emulated aarch64.
"""

from __future__ import annotations

from typing import NamedTuple

from tfcompress.converters.file.dataflow import Dataflow
from tfcompress.converters.file.model import Node

Padding = tuple[int, int, int, int]

STEM = (
    "Begin with ZeroPadding2D(1) and Conv2D(filters, 3, strides=2, padding='valid') on a 3-channel "
    "image of even height and width"
)
KNOWN = (
    "Use 1x1 and depthwise convolutions, BatchNormalization, activations, Add, Multiply, "
    "bilinear UpSampling2D and GlobalAveragePooling2D"
)
_NONE = (0, 0, 0, 0)
_FUSED = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
_UNARY = frozenset({"ABS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "RELU",
                    "RELU6", "SQUARE", "TANH"})  # fmt: skip


class Obstacle(NamedTuple):
    """Why an op cannot be in a region of sparse kernels.

    Attributes:
        rule: The rule that the op breaks.
        change: What to change in the Keras model.
    """

    rule: str
    change: str


def is_stem(flow: Dataflow, node: Node) -> bool:
    """Return whether a region of sparse kernels can begin with an op.

    Args:
        flow: The subgraph of the op.
        node: The op.

    Returns:
        True for a float 3x3 convolution with stride 2 on 3 channels, padded by 1 on every side.
    """
    return (
        node.op == "CONV_2D"
        and flow.is_float(node)
        and flow.shape(node.inputs[1])[1:] == (3, 3, 3)
        and _stride(node) == (2, 2)
        and _dilation(node) == (1, 1)
        and padding(flow, node) == (1, 1, 1, 1)
    )


def padding(flow: Dataflow, node: Node) -> Padding | None:
    """Return the zeros above, below, left and right of an image, as XNNPACK counts them.

    A PAD op right before the convolution counts as its padding.

    Args:
        flow: The subgraph of the op.
        node: A convolution, depthwise or not.

    Returns:
        The four numbers. None for SAME padding with a stride other than 1 or an even kernel, which
        XNNPACK does not accept even where the numbers would be right.
    """
    if node.options["padding"] == "SAME":
        height, width = _kernel(flow, node)
        if _stride(node) != (1, 1) or not height % 2 or not width % 2:
            return None
        return (height // 2, height // 2, width // 2, width // 2)
    before = flow.producer(node.inputs[0])
    if before is None or flow.nodes[before].op != "PAD":
        return _NONE
    amounts = flow.constant(flow.nodes[before].inputs[1])
    values = amounts.values if amounts is not None else None
    if values is None or len(values) != 8 or any(values[i] for i in (0, 1, 6, 7)):
        return _NONE
    return (values[2], values[3], values[4], values[5])


def obstacle(flow: Dataflow, i: int) -> Obstacle | None:
    """Return why an op cannot be in a region of sparse kernels, after its stem.

    Args:
        flow: The subgraph of the op.
        i: Index of the op in `flow.nodes`.

    Returns:
        The rule that the op breaks and what to change in Keras; None if it breaks no rule.
    """
    node = flow.nodes[i]
    rule = _RULES.get(node.op)
    if rule is None:
        return Obstacle("the sparse kernels do not support it", KNOWN)
    if not flow.is_float(node):
        return Obstacle("the sparse kernels compute in float", "Convert to Float32 or Float16")
    if node.op != "FULLY_CONNECTED":
        if not flow.is_image(node.inputs[0]):
            return Obstacle("it must take images", "Put it after GlobalAveragePooling2D")
        if None in flow.shape(node.inputs[0])[1:]:
            return Obstacle("its images must have a fixed size", "Give the input height and width")
    return rule(flow, i)


def _conv(flow: Dataflow, i: int) -> Obstacle | None:
    node = flow.nodes[i]
    height, width = _kernel(flow, node)
    stride, pad = _stride(node), padding(flow, node)
    if (
        (height, width) == stride == (1, 1)
        and pad == _NONE
        and flow.constant(node.inputs[1]) is not None
        and flow.shape(node.inputs[1])[3] == flow.shape(node.inputs[0])[3]
    ):
        return None
    found = f"{height}x{width} with stride {stride[0]} and {_words(pad)}"
    return Obstacle(
        f"after the stem, convolutions must be 1x1 with stride 1; this one is {found}",
        "Use DepthwiseConv2D and Conv2D(filters, 1)",
    )


def _depthwise(flow: Dataflow, i: int) -> Obstacle | None:
    node = flow.nodes[i]
    height, width = _kernel(flow, node)
    stride, pad = _stride(node), padding(flow, node)
    if (height, width) not in ((3, 3), (5, 5)) or stride not in ((1, 1), (2, 2)):
        rule = (
            f"3x3 or 5x5 with stride 1 or 2; this one is {height}x{width} with stride {stride[0]}"
        )
        return Obstacle(f"depthwise convolutions must be {rule}", "Use one of these")
    if _dilation(node) != (1, 1):
        return Obstacle("depthwise convolutions must not be dilated", "Leave dilation_rate at 1")
    if flow.shape(node.inputs[1])[3] != flow.shape(node.inputs[0])[3]:
        return Obstacle(
            "depthwise convolutions must keep the number of channels", "Leave depth_multiplier at 1"
        )
    half = height // 2
    if pad != (half,) * 4:
        return Obstacle(
            f"{height}x{height} depthwise convolutions must be padded by {half} on every side; "
            f"this one has {_words(pad)}",
            f"Use ZeroPadding2D({half}) and padding='valid' on images of even height and width"
            if stride == (2, 2)
            else "Use padding='same'",
        )
    return None


def _pad(flow: Dataflow, i: int) -> Obstacle | None:
    convs = ("CONV_2D", "DEPTHWISE_CONV_2D")
    readers = [flow.nodes[reader] for reader in flow.consumers(i)]
    fused = len(readers) == 1 and flow.nodes[i].outputs[0] not in flow.outputs
    if fused and readers[0].op in convs and readers[0].options["padding"] == "VALID":
        return None
    return Obstacle(
        "padding must come right before a convolution with padding='valid' that alone reads it",
        "Move it there, one ZeroPadding2D for each convolution",
    )


def _binary(flow: Dataflow, i: int) -> Obstacle | None:
    node = flow.nodes[i]
    shapes = [flow.shape(place) for place in flow.computed(node)]
    if len(set(flow.computed(node))) != 2:
        return Obstacle(
            "it must join two different computed images, no constants",
            "Put BatchNormalization right after a convolution, before the activation; do other "
            "arithmetic before the stem or after GlobalAveragePooling2D",
        )
    if shapes[0] != shapes[1]:  # broadcasting mixes up the images of a batch
        return Obstacle(
            "it must join images of the same size", "Leave out squeeze-and-excite blocks"
        )
    if node.options["fused_activation_function"] not in _FUSED:
        return Obstacle("its activation must be relu", "Use relu")
    return None


def _mean(flow: Dataflow, i: int) -> Obstacle | None:
    axes = flow.constant(flow.nodes[i].inputs[1])
    if (
        axes is not None
        and axes.values is not None
        and sorted(v % 4 for v in axes.values) == [1, 2]
    ):
        return None
    return Obstacle("means must be over height and width", "Use GlobalAveragePooling2D")


def _resize(flow: Dataflow, i: int) -> Obstacle | None:
    node = flow.nodes[i]
    if node.options["half_pixel_centers"] and 1 not in flow.shape(node.inputs[0])[1:3]:
        return None
    return Obstacle("it must resize an image, by half-pixel centres", "Use UpSampling2D")


def _fully_connected(flow: Dataflow, i: int) -> Obstacle | None:
    node = flow.nodes[i]
    if len(flow.shape(node.inputs[0])) == 2 and flow.constant(node.inputs[1]) is not None:
        return None
    return Obstacle(
        "Dense must come after the global average pooling", "On images use Conv2D(filters, 1)"
    )


def _unary(flow: Dataflow, i: int) -> Obstacle | None:
    return None


_RULES = {
    "ADD": _binary,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _mean,
    "MUL": _binary,
    "PAD": _pad,
    "RESIZE_BILINEAR": _resize,
    **dict.fromkeys(_UNARY, _unary),
}


def _kernel(flow: Dataflow, node: Node) -> tuple[int, int]:
    _, height, width, _ = flow.shape(node.inputs[1])
    return height or 0, width or 0


def _stride(node: Node) -> tuple[int, int]:
    return node.options["stride_h"], node.options["stride_w"]


def _dilation(node: Node) -> tuple[int, int]:
    return node.options["dilation_h_factor"], node.options["dilation_w_factor"]


def _words(pad: Padding | None) -> str:
    if pad is None:
        return "padding='same'"
    return f"padding {', '.join(map(str, pad))} (above, below, left, right)"
