"""Checks of the arguments of a `Distiller`, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfcompress.edge.arguments import check_number
from tfcompress.model.checks import check_built, check_finite

__all__ = ["check_losses", "check_models"]


def check_models(teacher: keras.Model, student: keras.Model) -> None:
    """Raise if two models cannot be teacher and student.

    Raises:
        TypeError: One is no Keras model.
        ValueError: One is not built, the two share weights or differ in their inputs or outputs, or
            the teacher's weights hold NaN.
    """
    check_built(teacher, "teacher")
    check_built(student, "student")
    shared = {id(variable) for variable in teacher.variables}
    both = [variable.path for variable in student.variables if id(variable) in shared]
    if teacher is student or both:
        raise ValueError(
            "Teacher and student are the same model, or share weights"
            f"{': ' + ', '.join(both) if both else ''}. The teacher does not change while the "
            "student learns, so they must share none; self_distiller(model) makes a copy."
        )
    for what in ("input", "output"):
        theirs, ours = (getattr(model, f"{what}s", None) or [] for model in (teacher, student))
        if theirs and ours and len(theirs) != len(ours):
            raise ValueError(
                f"The teacher {teacher.name!r} has {len(theirs)} {what}s, the student "
                f"{student.name!r} {len(ours)}."
            )
        for a, b in zip(theirs, ours, strict=False):
            if a.dtype != b.dtype or not _same_shape(a.shape, b.shape):
                raise ValueError(
                    f"The {what} shapes and dtypes differ: {a.shape} {a.dtype} of the teacher "
                    f"{teacher.name!r}, {b.shape} {b.dtype} of the student {student.name!r}."
                )
    check_finite(teacher)


def _same_shape(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    sizes = zip(a, b, strict=False)
    return len(a) == len(b) and all(x == y or None in (x, y) for x, y in sizes)


def check_losses(losses: list[Any], weights: list[Any], student_loss_weight: Any) -> None:
    """Raise if losses and their weights cannot be those of a `Distiller`.

    Raises:
        TypeError: A loss is no `keras.distillation.DistillationLoss`, or a weight no number.
        ValueError: There is none, the numbers of losses and weights differ, or a weight is out of
            range.
    """
    if not losses:
        raise ValueError("`distillation_losses` is empty. Leave it out for SoftTargets().")
    for loss in losses:
        if not isinstance(loss, keras.distillation.DistillationLoss):
            raise TypeError(
                "`distillation_losses` holds instances of keras.distillation.DistillationLoss. "
                f"Received: {loss!r}"
            )
    if len(weights) != len(losses):
        raise ValueError(
            f"There are {len(losses)} distillation losses and {len(weights)} weights of them. "
            f"Received: distillation_loss_weights={weights}"
        )
    for index, weight in enumerate(weights):
        check_number(f"distillation_loss_weights[{index}]", weight, 0)
    check_number("student_loss_weight", student_loss_weight, 0, 1)
