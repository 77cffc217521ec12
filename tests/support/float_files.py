"""Small float .tflite files of chosen ops, made in this process."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import unpack
from tfcompress.converters.passes.graph import Graph, graphs


def float_file(function: Callable[..., Any], **shapes: Sequence[int | None]) -> bytes:
    """Convert a function of float32 tensors: the name of each argument -> its shape."""
    specs = {name: tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()}
    traced = tf.function(lambda **given: function(**given)).get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
    content: bytes = converter.convert()
    return content


def main_graph(content: bytes) -> Graph:
    """Return the graph of a file with one."""
    [graph] = graphs(unpack(content))
    return graph


def ops_of(graph: Graph) -> list[str]:
    """Return the names of the ops of a graph, in order."""
    return [graph.op(node) for node in graph.tables.operators]


def made_by(graph: Graph, op: str) -> list[int]:
    """Return the tensors that the ops of one kind compute."""
    nodes = [node for node in graph.tables.operators if graph.op(node) == op]
    return [int(out) for node in nodes for out in node.outputs]


def run_file(content: bytes, samples: Samples, *, xnnpack: bool = True) -> list[np.ndarray]:
    """Run a file on all samples at once, on one kernel or the other."""
    kind = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kind)
    found = interpreter.get_signature_runner()(**samples.arrays)
    return [found[name] for name in sorted(found)]
