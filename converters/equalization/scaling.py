"""Scales of channels: which weights make a channel, which read it, and which channels are tied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from tfcompress.model.dependency.call import Call
from tfcompress.model.dependency.units import Coupling, Ids, Labelled

__all__ = ["Norm", "Part", "Read", "Scaling", "scaling_of"]


@dataclass(frozen=True, eq=False)
class Part:
    """A weight that changes with the scale of channels.

    Attributes:
        layer: The layer that holds it.
        variable: The weight.
        ids: The unit of each element: an array that can be broadcast to the weight's shape.
        reads: Whether the weight is divided by the scale, since it reads the channels, or
            multiplied by it, since it makes them.
        outputs: Axes that run over the outputs of a kernel that mixes the channels that it reads;
            empty for any other weight.
    """

    layer: Any
    variable: keras.Variable
    ids: Ids
    reads: bool
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch normalization, whose statistics follow the scale of what it reads.

    Attributes:
        layer: The layer.
        read: The units that it reads.
        made: The units that it makes.
    """

    layer: Any
    read: Ids
    made: Ids


@dataclass(frozen=True, eq=False)
class Read:
    """A tensor that weights read, whose largest values are measured.

    Attributes:
        path: Path of the layer.
        key: `id` of the symbolic tensor that the layer is called with.
        ids: Units of the channels of what is read.
        seen: Returns what is read, from the value of that tensor. None for the value itself.
    """

    path: str
    key: int
    ids: Ids
    seen: Callable[[Any], Any] | None = None


class Scaling(Coupling):
    """Units that have one scale, and the weights that change with it.

    Attributes:
        parts: The weights that change by a factor, by `id(variable)` and whether they read.
        norms: The batch normalizations, by `id(layer)`.
        reads: The tensors that weights read, one for each call of a layer.
        folded: Units that are in no tensor of a file, since the layer that makes them is folded
            into the batch normalization after it.
    """

    fixed_reason = "it meets values that cannot be scaled"

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[tuple[int, bool], Part] = {}
        self.norms: dict[int, Norm] = {}
        self.reads: list[Read] = []
        self.folded: list[Ids] = []

    def part(self, part: Part) -> None:
        """Note a weight that changes with the scale of units; at a second call, unite them."""
        first = self.parts.setdefault((id(part.variable), part.reads), part)
        if first is not part:
            self.unite(first.ids.ravel(), part.ids.ravel())

    def norm(self, norm: Norm) -> None:
        """Note a batch normalization; at a second call, unite what it reads."""
        first = self.norms.setdefault(id(norm.layer), norm)
        if first is not norm:
            self.unite(first.read, norm.read)

    def read(self, path: str, x: Labelled, ids: Ids, seen: Any = None) -> None:
        """Note that a layer reads a tensor."""
        self.reads.append(Read(path, x.key, ids, seen))


def scaling_of(call: Call) -> Scaling:
    """Return the `Scaling` in which a rule notes what it finds."""
    assert isinstance(call.coupling, Scaling)
    return call.coupling
