from tfcompress.edge.engines.base import Placement
from tfcompress.edge.engines.partitions import placement_of


def node(name, inputs, outputs):
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


# Tensors 10 to 12 are weights. 0 -> CONV -> 1 -> ARG_MAX -> 2 -> CONV -> 3 -> ADD (1, 3) -> 4
PLAIN = [
    node("CONV_2D", [0, 10], [1]),
    node("ARG_MAX", [1], [2]),
    node("CONV_2D", [2, 11], [3]),
    node("ADD", [1, 3], [4]),
]


def test_placement_of_counts_what_lies_between_the_borders_of_each_partition():
    ops = [*PLAIN, node("DELEGATE", [0, 10], [1]), node("DELEGATE", [1, 2, 11], [4])]
    assert placement_of("xnnpack", ops, PLAIN) == Placement("xnnpack", 4, 3, 2, {"ARG_MAX": 1})


def test_placement_of_a_graph_without_partitions_leaves_every_op():
    expected = Placement("reference", 4, 0, 0, {"CONV_2D": 2, "ARG_MAX": 1, "ADD": 1})
    assert placement_of("reference", PLAIN, PLAIN) == expected
