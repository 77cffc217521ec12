"""`Recipe`: all that is done to a model, as plain values; and `Outcome`, what came of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from .steps.base import ChangeStep, FileStep, step_of
from .target import Figures

__all__ = ["Outcome", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """What is done to the original, in order.

    Attributes:
        file: How the .tflite file is made, at the end.
        changes: What is done to the model before, in order.
        epochs: Epochs of training after that; 0 shows bytes and latency, which training leaves.
    """

    file: FileStep
    changes: tuple[ChangeStep, ...] = ()
    epochs: int = 0

    def label(self) -> str:
        """Return what is done, in a few words."""
        parts = [change.label() for change in self.changes]
        trained = [f"{self.epochs} epochs" if self.epochs else "untrained"] if self.changes else []
        return ", ".join([*parts, self.file.label(), *trained])

    @property
    def trained(self) -> bool:
        """Return whether the model is changed and trained, and not only stored otherwise."""
        return bool(self.changes)

    def at(self, epochs: int) -> Recipe:
        """Return the recipe with another number of epochs."""
        return replace(self, epochs=epochs)

    def plain(self) -> Recipe:
        """Return the recipe without changes that finish a trained model."""
        return replace(self, changes=tuple(c for c in self.changes if not c.finishes))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which `from_dict` makes an equal recipe."""
        return {
            "file": self.file.to_dict(),
            "changes": [change.to_dict() for change in self.changes],
            "epochs": self.epochs,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` described."""
        changes = tuple(cast(ChangeStep, step_of(change)) for change in data["changes"])
        return cls(cast(FileStep, step_of(data["file"])), changes, data["epochs"])

    def key(self, *context: str) -> str:
        """Return a name for the model that a recipe gives, which is the same in each process.

        How its file is made does not count.

        Args:
            *context: What else the model depends on: a digest of the original and of the data.
        """
        text = json.dumps([self.to_dict() | {"file": None}, *context], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Outcome:
    """What became of a recipe.

    Attributes:
        recipe: The recipe.
        figures: What was measured; None if it was dropped.
        loss: How much worse its metric is than the original's.
        why: Why it was dropped; empty if it was not.
        file: Name of its file in the storage; empty without one.
        seconds: Time that it took.
        notes: Warnings of the conversion.
        samples: Number of validation samples that its metric is an estimate from; 0 for all.
        error: Standard error of the loss, if it is an estimate.
    """

    recipe: Recipe
    figures: Figures | None = None
    loss: float = 0.0
    why: str = ""
    file: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    samples: int = 0
    error: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which `from_dict` makes an equal outcome."""
        return {**asdict(self), "recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Outcome:
        """Return the outcome that `to_dict` described."""
        values = dict(data)
        values["recipe"] = Recipe.from_dict(values["recipe"])
        values["notes"] = tuple(values["notes"])
        if values["figures"] is not None:
            values["figures"] = Figures(**values["figures"])
        return cls(**values)
