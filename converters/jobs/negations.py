"""NEG ops -> MUL ops by -1, which the quantizer makes int8. Runs in child processes.

Keras' LayerNormalization negates a mean. In float, that takes a DEQUANTIZE and a QUANTIZE op around
it, in the middle of a graph of integers.
"""

from __future__ import annotations

import numpy as np

from ..passes.graph import Graph
from .ranges import is_float


def multiply_negations(graph: Graph) -> None:
    """Replace each NEG of real numbers. Finite results are equal.

    Args:
        graph: A float graph. It is changed.
    """
    for node in graph.tables.operators:
        source = int(node.inputs[0]) if len(node.inputs) else -1
        if graph.op(node) != "NEG" or not is_float(graph, source) or graph.constant(source):
            continue
        factor = graph.add(None, np.array([-1.0], np.float32))
        graph[factor].name = bytes(graph[int(node.outputs[0])].name) + b"/factor"
        graph.as_product(node, [source, factor], 1)
