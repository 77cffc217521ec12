"""Which ops of a graph a delegate took, read from the graph with and without the delegate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Placement

Op = Mapping[str, Any]


def placement_of(delegate: str, ops: Sequence[Op], plain: Sequence[Op]) -> Placement:
    """Compare a graph with a delegate to the graph without one.

    LiteRT's own `is_fully_accelerated()` is not used: it counts XNNPACK as acceleration.

    >>> from tfcompress.edge.engines.partitions import placement_of
    >>> plain = [
    ...     {"op_name": "CONV_2D", "inputs": [0], "outputs": [1]},
    ...     {"op_name": "ARG_MAX", "inputs": [1], "outputs": [2]},
    ... ]
    >>> piece = {"op_name": "DELEGATE", "inputs": [0], "outputs": [1]}
    >>> print(placement_of("xnnpack", [*plain, piece], plain))
    XNNPACK 1/2 ops

    Args:
        delegate: The delegate's name.
        ops: The nodes with the delegate, as LiteRT's Interpreter describes them: the file's own,
            then one DELEGATE node for each partition.
        plain: The nodes without a delegate.

    Returns:
        The placement.
    """
    partitions = [op for op in ops if op["op_name"] == "DELEGATE"]
    taken = set[int]().union(*(_inside(partition, plain) for partition in partitions))
    left = Counter(op["op_name"] for index, op in enumerate(plain) if index not in taken)
    return Placement(delegate, len(plain), len(taken), len(partitions), dict(left))


def _inside(partition: Op, plain: Sequence[Op]) -> set[int]:
    """Return the nodes that a DELEGATE node replaces: from its outputs back to its inputs."""
    producer = {int(out): index for index, op in enumerate(plain) for out in op["outputs"]}
    border = {int(tensor) for tensor in partition["inputs"]}
    inside: set[int] = set()
    pending = [int(tensor) for tensor in partition["outputs"]]
    while pending:
        index = producer.get(pending.pop())
        if index is None or index in inside:
            continue
        inside.add(index)
        pending += [int(t) for t in plain[index]["inputs"] if int(t) not in border]
    return inside
