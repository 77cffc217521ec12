"""A subgraph of a file as the ops that compute: which makes a tensor, which take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .read import Inspection, Node, Tensor


class Wiring:
    """The ops of a subgraph, without those that only unpack stored weights.

    Attributes:
        nodes: The ops in the order of execution; elsewhere a number stands for its place in here.
        outputs: The subgraph's own, as places in `Inspection.tensors`.
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
        self._makers = {place: i for i, node in enumerate(self.nodes) for place in node.outputs}
        self._takers: dict[int, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for place in dict.fromkeys(node.inputs):
                self._takers.setdefault(place, []).append(i)

    def constant(self, place: int) -> Tensor | None:
        """The stored tensor that a tensor is, or is unpacked from; None if it is computed."""
        while place in self._packed:
            place = self._packed[place]
        tensor = self._tensors[place]
        return tensor if tensor.constant else None

    def computed(self, node: Node) -> list[int]:
        """The inputs of an op that are not stored."""
        return [place for place in node.inputs if self.constant(place) is None]

    def maker(self, place: int) -> int | None:
        """The op that computes a tensor; None for stored ones and the subgraph's inputs."""
        return self._makers.get(place)

    def takers(self, i: int) -> list[int]:
        """The ops that read what an op computes."""
        return [taker for place in self.nodes[i].outputs for taker in self._takers.get(place, ())]

    def shape(self, place: int) -> tuple[int | None, ...]:
        """Of a tensor; None stands for a free dimension."""
        return self._tensors[place].shape

    def is_image(self, place: int) -> bool:
        """Whether a tensor has height, width and channels."""
        return len(self.shape(place)) == 4

    def is_float(self, node: Node) -> bool:
        """Whether an op computes in float32, whatever its weights are stored in."""
        tensors = [self._tensors[place] for place in (*node.inputs, *node.outputs)]
        return all(
            t.dtype == "float32" or (t.constant and t.dtype in ("int32", "int64")) for t in tensors
        )
