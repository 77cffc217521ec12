"""Whether the ops of a file have what they need. Imports its siblings only.

Readers of an `Inspection` take these for granted, so a damaged file is refused here, in one place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .bounded import Damaged

Json = dict[str, Any]


class Needs(NamedTuple):
    """What an op cannot do without.

    Attributes:
        inputs: Least number of inputs.
        options: Names of options.
        rank: Number of dimensions of the last of these inputs; 0 for any.
    """

    inputs: int
    options: tuple[str, ...] = ()
    rank: int = 0


_FUSED = ("fused_activation_function",)
_WINDOW = ("padding", "stride_h", "stride_w")
_DILATED = (*_WINDOW, "dilation_h_factor", "dilation_w_factor")
_SIMPLE = ("ABS", "DENSIFY", "DEPTH_TO_SPACE", "DEQUANTIZE", "ELU", "EXP", "GELU", "HARD_SWISH",
          "LEAKY_RELU", "LOGISTIC", "LSTM", "QUANTIZE", "RELU", "RELU6", "RNN", "SQUARE", "SVDF",
          "TANH")  # fmt: skip

# Every op here has at least one output. The last input that convolutions need is their kernel.
NEEDS = {
    **dict.fromkeys(_SIMPLE, Needs(1)),
    "ADD": Needs(2, _FUSED),
    "BATCH_MATMUL": Needs(2),
    "CONV_2D": Needs(2, _DILATED, 4),
    "CONV_3D": Needs(2),
    "CONV_3D_TRANSPOSE": Needs(3),
    "DEPTHWISE_CONV_2D": Needs(2, _DILATED, 4),
    "EMBEDDING_LOOKUP": Needs(2),
    "FULLY_CONNECTED": Needs(2),
    "GATHER": Needs(2),
    "MEAN": Needs(2),
    "MUL": Needs(2, _FUSED),
    "PAD": Needs(2),
    "RESIZE_BILINEAR": Needs(2, ("half_pixel_centers",)),
    "SUM": Needs(2),
    "TRANSPOSE_CONV": Needs(3),
}


def check(found: Json) -> None:
    """Check the graphs of a file.

    Args:
        found: The fields of `Inspection`, in which every index names something.

    Raises:
        Damaged: There is no graph, an op lacks an input, an output or an option, or a tensor has
            its values from two places.
    """
    if not found["subgraphs"]:
        raise Damaged("it holds no graph")
    tensors = found["tensors"]
    custom = set(found["custom_ops"])
    valued = {place for graph in found["subgraphs"] for place in graph["inputs"]}
    for node in found["nodes"]:
        if node["op"] not in custom:
            _check_op(node, tensors)
        for place in node["outputs"]:
            if place in valued or tensors[place]["constant"]:
                raise Damaged(
                    f"{node['op']} computes tensor '{tensors[place]['name']}', which has its "
                    "values from elsewhere"
                )
            valued.add(place)


def _check_op(node: Json, tensors: list[Json]) -> None:
    needs = NEEDS.get(node["op"])
    if needs is None:
        return
    if len(node["inputs"]) < needs.inputs or not node["outputs"]:
        raise Damaged(
            f"{node['op']} takes at least {needs.inputs} input(s) and gives one output. Found: "
            f"{len(node['inputs'])} and {len(node['outputs'])}"
        )
    missing = [name for name in needs.options if name not in node["options"]]
    if missing:
        raise Damaged(f"{node['op']} lacks its options: {', '.join(missing)}")
    last = tensors[node["inputs"][needs.inputs - 1]]
    if needs.rank and len(last["shape"]) != needs.rank:
        raise Damaged(
            f"{node['op']} has a kernel of {needs.rank} dimensions. Found: tensor "
            f"'{last['name']}' of the shape {last['shape']}"
        )
