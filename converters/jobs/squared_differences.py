"""SQUARED_DIFFERENCE ops -> SUB and MUL, which the runtime has in int16. Runs in child processes.

The quantizer gives it activations of 16 bits, and the runtime then fails in each run. It is in each
LayerNormalization.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import Graph
from .ranges import is_float


def multiply_differences(graph: Graph) -> None:
    """Replace each SQUARED_DIFFERENCE of real numbers. Results are equal.

    Args:
        graph: A float graph, whose ranges are not measured yet. It is changed.
    """
    for node in list(graph.tables.operators):
        out = int(node.outputs[0])
        if graph.op(node) != "SQUARED_DIFFERENCE" or not is_float(graph, out):
            continue
        difference = graph.add(out)
        graph[difference].name = bytes(graph[out].name or b"") + b"/difference"
        made = graph.insert(node, "SUB", [int(index) for index in node.inputs], difference, 1)
        made.builtinOptionsType = schema.BuiltinOptions.SubOptions
        made.builtinOptions = schema.SubOptionsT()
        graph.as_product(node, [difference, difference], 1)
