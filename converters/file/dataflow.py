"""A subgraph of a file as its computing ops: which op produces a tensor, which ops consume it."""

from __future__ import annotations

from .model import Inspection, Node, Tensor


class Dataflow:
    """The ops of a subgraph, without the ops that only unpack stored weights.

    Attributes:
        nodes: The ops in the order of execution. The methods call an op by its index in here.
        outputs: The outputs of the subgraph, as indices into `Inspection.tensors`.
    """

    def __init__(self, found: Inspection, subgraph: int):
        self._tensors = found.tensors
        self._packed: dict[int, int] = {}
        self.nodes: list[Node] = []
        self.outputs = found.subgraphs[subgraph].outputs
        for node in found.nodes:
            if node.subgraph != subgraph:
                continue
            if node.op in ("DENSIFY", "DEQUANTIZE") and self.constant(node.inputs[0]) is not None:
                self._packed[node.outputs[0]] = node.inputs[0]
            else:
                self.nodes.append(node)
        self._producers = {place: i for i, node in enumerate(self.nodes) for place in node.outputs}
        self._consumers: dict[int, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for place in dict.fromkeys(node.inputs):
                self._consumers.setdefault(place, []).append(i)

    def constant(self, place: int) -> Tensor | None:
        """Return the stored tensor that a tensor is, or is unpacked from; None if computed."""
        while place in self._packed:
            place = self._packed[place]
        tensor = self._tensors[place]
        return tensor if tensor.constant else None

    def computed(self, node: Node) -> list[int]:
        """Return the inputs of an op that are not stored."""
        return [place for place in node.inputs if self.constant(place) is None]

    def producer(self, place: int) -> int | None:
        """Return the op that computes a tensor; None for constants and inputs of the subgraph."""
        return self._producers.get(place)

    def consumers(self, i: int) -> list[int]:
        """Return the ops that read an output of an op."""
        return [
            consumer
            for place in self.nodes[i].outputs
            for consumer in self._consumers.get(place, ())
        ]

    def shape(self, place: int) -> tuple[int | None, ...]:
        """Return the shape of a tensor; None stands for a free dimension."""
        return self._tensors[place].shape

    def is_image(self, place: int) -> bool:
        """Return whether a tensor has height, width and channels."""
        return len(self.shape(place)) == 4

    def is_float(self, node: Node) -> bool:
        """Return whether an op computes in float32, whatever type its weights are stored in."""
        tensors = [self._tensors[place] for place in (*node.inputs, *node.outputs)]
        return all(
            t.dtype == "float32" or (t.constant and t.dtype in ("int32", "int64")) for t in tensors
        )
