"""`SoftTargets`: distill the outputs of the teacher."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfcompress.edge.arguments import check_bool, check_number, check_text

from .features import Place, end, output_of
from .masks import check_mask, check_positions, mean_where

__all__ = ["SoftTargets"]

_FLOOR = 1e-30  # Below any probability that matters; its logarithm and 1 / it are finite.
_HALF_A_STEP = 1 / 512  # half a step of probabilities in int8
_ENDS = {"softmax": False, "linear": True}


@keras.saving.register_keras_serializable("tfcompress")
class SoftTargets(keras.distillation.DistillationLoss):  # type: ignore[misc]
    """Distill the teacher's probabilities, softened by a temperature.

    The loss is `T² KL(softmax(z_teacher / T) || softmax(z_student / T))`, the mean over all but the
    last axis. The factor T² keeps the gradient's size, and so the balance with the loss on the
    labels, as T changes.

    Each model may end in a softmax or in logits `z`. The logarithm of a softmax's output serves as
    logits, because softmax ignores a constant that is added to all logits.

    >>> import numpy as np
    >>> soft = SoftTargets(temperature=2.0, from_logits=True)
    >>> teacher, student = np.float32([[2.0, 0.0]]), np.float32([[0.0, 0.0]])
    >>> round(float(soft.compute_loss(teacher, student)), 4)
    0.4438

    If a quantization-aware student rounds its output to int8, the loss reads the output before
    rounding, because the logarithm of a rounded zero is infinite. Where it cannot, because a
    Reshape follows, all probabilities count as at least half a step of 1/256.

    Args:
        temperature: The temperature T, above 0. Defaults to 3.
        from_logits: Whether the models' outputs are logits. Defaults to None: it is read from the
            last layers of each model.
        teacher_layer_name: Layer of the teacher to read instead of the output, such as one of
            several outputs: its name, or its path if it is in a nested model. Defaults to None.
        student_layer_name: Layer of the student to read instead of the output: its name, or its
            path if it is in a nested model. Defaults to None.
        mask: Name of an input (samples, positions) that is 0 at padding, such as `"padding_mask"`,
            for outputs (samples, positions, classes). Defaults to None: all positions count.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `temperature` is not above 0. When the distiller is made: a model ends otherwise
            than `from_logits` says, or it is None and cannot be read; or there is no such layer.

    Reference:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        temperature: float = 3.0,
        from_logits: bool | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        mask: str | None = None,
    ) -> None:
        if from_logits is not None:
            check_bool("from_logits", from_logits)
        for role, name in (("teacher", teacher_layer_name), ("student", student_layer_name)):
            if name is not None:
                check_text(f"{role}_layer_name", name)
        self.temperature = check_number("temperature", temperature, above=0)
        self.from_logits = from_logits
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name
        self.mask = check_mask(mask)
        self._logits = (from_logits, from_logits)
        self._floor = _FLOOR

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Read how the models end, and raise if that does not fit."""
        first, second = (
            (self._are_logits(model, name, role), end(model, name).rounded)
            for model, name, role in (
                (teacher, self.teacher_layer_name, "teacher"),
                (student, self.student_layer_name, "student"),
            )
        )
        if self.mask is not None:
            check_positions(self, student, output_of(student, self.student_layer_name).shape[1:-1])
        self._logits = (first[0], second[0])
        self._floor = _HALF_A_STEP if first[1] or second[1] else _FLOOR

    def _are_logits(self, model: keras.Model, name: str | None, role: str) -> bool:
        activation = end(model, name, role).activation
        known = _ENDS.get(activation)
        where = f"the {role} {model.name!r}" if name is None else f"layer {name!r} of the {role}"
        if activation and known is None:
            raise ValueError(
                f"SoftTargets needs logits, or probabilities that a softmax gives; {where} ends in "
                f"{activation!r}. Use keras.distillation.FeatureDistillation for other outputs."
            )
        if known is None and self.from_logits is None:
            raise ValueError(
                f"It cannot be told whether {where} gives logits or probabilities. Say it: "
                "SoftTargets(from_logits=True) or False."
            )
        if known is not None and self.from_logits is not None and known != self.from_logits:
            raise ValueError(
                f"SoftTargets(from_logits={self.from_logits}) does not fit {where}, which ends in "
                f"{'logits' if known else 'a softmax'}. Leave `from_logits` out."
            )
        logits = bool(self.from_logits if known is None else known)
        if not logits and getattr(model, "outputs", None):
            dtype = output_of(model, name).dtype
            if dtype != "float32":
                raise ValueError(
                    f"{where} ends in a softmax in {dtype}, whose logarithms are no good. Give its "
                    "last layer dtype='float32', as Keras recommends."
                )
        return logits

    def student_place(self, student: keras.Model) -> Place | None:
        """Return where to read the student: before its output is rounded to int8."""
        return end(student, self.student_layer_name).place

    def teacher_place(self, teacher: keras.Model) -> Place | None:
        """Return where to read the teacher."""
        return end(teacher, self.teacher_layer_name).place

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss, a scalar.

        Args:
            teacher_outputs: Logits or probabilities of the teacher, `(..., classes)`.
            student_outputs: Logits or probabilities of the student, `(..., classes)`.
            **kwargs: `mask`, the values of the input of that name.
        """
        teacher, student = (
            ops.log_softmax(self._as_logits(outputs, logits) / self.temperature)
            for outputs, logits in zip(
                (teacher_outputs, student_outputs), self._logits, strict=True
            )
        )
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * mean_where(divergence, kwargs.get("mask"))

    def _as_logits(self, outputs: Any, logits: bool | None) -> Any:
        if logits is None:
            raise ValueError("Say whether outputs are logits: SoftTargets(from_logits=...).")
        outputs = ops.cast(outputs, "float32")
        return outputs if logits else ops.log(ops.maximum(outputs, self._floor))

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {
            "temperature": self.temperature,
            "from_logits": self.from_logits,
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
            "mask": self.mask,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SoftTargets:
        """Return the loss of a config from `get_config`."""
        return cls(**config)
