"""What a step is, and the registry of steps."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import keras

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.sparse import Sparse
from tfcompress.edge.registry import Registry

__all__ = ["STEPS", "ChangeStep", "FileStep", "Step", "register_step", "step_of"]


class Step(abc.ABC):
    """One thing that is done to a model: a frozen dataclass, whose fields are plain values.

    Attributes:
        name: Name in the registry, and in stored studies.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def label(self) -> str:
        """Return what is done, in a few words."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which `step_of` makes an equal step."""
        return {"step": self.name, **asdict(self)}  # type: ignore[call-overload]


class FileStep(Step):
    """How the .tflite file is made. It costs a conversion, some seconds, and no training.

    Attributes:
        bits: Bits of a weight in the file, to guess sizes by.
        needs_samples: Whether it is calibrated with samples.
        stores_zeros: Whether zeros take next to no bytes in its file.
        rescues: Whether it is only worth trying where int8 loses more than is allowed.
    """

    bits: ClassVar[int]
    needs_samples: ClassVar[bool] = False
    stores_zeros: ClassVar[bool] = True
    rescues: ClassVar[bool] = False

    @abc.abstractmethod
    def precision(self, samples: Any) -> Precision:
        """Return the precision to convert with.

        Args:
            samples: Calibration samples by input name; None for a quantization-aware model.
        """

    @abc.abstractmethod
    def code(self) -> str:
        """Return Python code of the precision, in which `samples` are the calibration samples."""

    def sparse(self) -> Sparse | bool:
        """Return how zeros are stored: by default sparse, without the names of tensors."""
        return Sparse(names=False) if self.stores_zeros else False


class ChangeStep(Step):
    """What is done to the model, so that it must be trained on. Each method of these does nothing.

    Attributes:
        order: Changes are made in this order.
        finishes: Whether it changes the model after training, by `finish`, without changing bytes.
        makes_zeros: Whether it makes zeros, which take next to no bytes in a sparse file. It is
            added to each of the other changes then, as little of it as fits.
    """

    order: ClassVar[int]
    finishes: ClassVar[bool] = False
    makes_zeros: ClassVar[bool] = False

    @classmethod
    def choices(cls) -> Sequence[ChangeStep]:
        """Return the settings to try, the mildest first; none if it is not to be chosen."""
        return ()

    def left(self) -> float:
        """Return about which share of the weights is left, to guess sizes by."""
        return 1.0

    def rewrite(self, model: keras.Model) -> keras.Model:
        """Return the model to train."""
        return model

    def preview(self, model: keras.Model) -> None:
        """Do in place, without training, what `callbacks` do in training: bytes and time show it.

        Args:
            model: A model that `rewrite` returned.
        """

    def callbacks(self, steps: int, first: bool) -> Sequence[keras.callbacks.Callback]:
        """Return callbacks for one `fit`.

        Args:
            steps: Number of steps of the optimizer in it.
            first: Whether it is the first one; those that follow go on with its model.
        """
        return ()

    def finish(self, model: keras.Model, samples: Any) -> keras.Model:
        """Return the model to train once more, after training.

        Args:
            model: The trained model.
            samples: Calibration samples by input name.
        """
        return model

    def code(self) -> str:
        """Return Python that changes `small` as `rewrite` does; empty if it does nothing.

        By default, this and the two others import the class, and call its methods.
        """
        lines = []
        if any(map(self._uncoded, ("rewrite", "callbacks", "finish"))):
            lines.append(f"from {type(self).__module__} import {type(self).__name__}")
        if self._uncoded("rewrite"):
            lines.append(f"small = {self!r}.rewrite(small)")
        return "\n".join(lines)

    def _uncoded(self, name: str) -> bool:
        """Return whether a class defines a method, and not the code of it."""
        code = "code" if name == "rewrite" else f"{name}_code"
        mine, base = type(self), ChangeStep
        return getattr(mine, name) is not getattr(base, name) and (
            getattr(mine, code) is getattr(base, code)
        )

    def callbacks_code(self, steps: int, first: bool) -> Sequence[str]:
        """Return Python of each of the `callbacks`.

        Args:
            steps: Number of steps of the optimizer.
            first: Whether it is the first `fit`.
        """
        return (f"*{self!r}.callbacks({steps}, {first})",) if self._uncoded("callbacks") else ()

    def finish_code(self) -> str:
        """Return Python that changes `small` as `finish` does; empty if it does nothing."""
        return f"small = {self!r}.finish(small, samples)" if self._uncoded("finish") else ""


STEPS: Registry[type[Step]] = Registry("step")


def register_step(step: type[Step]) -> type[Step]:
    """Add a class of steps, as a decorator.

    Args:
        step: The class.

    Returns:
        The class as it is.

    Raises:
        ValueError: There is another step of this name.
    """
    STEPS.add(step)
    return step


def step_of(data: dict[str, Any]) -> Step:
    """Return the step that `to_dict` described.

    >>> from tfcompress.planner.steps.float16 import Float16File
    >>> step_of(Float16File().to_dict())
    Float16File()

    Args:
        data: What `to_dict` returned.

    Returns:
        An equal step.

    Raises:
        ValueError: No step has this name.
    """
    values = dict(data)
    return STEPS.get(values.pop("step"))(**values)
