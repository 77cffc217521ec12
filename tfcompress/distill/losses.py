"""Distillation losses on pairs of layers, for `tfcompress.Distiller`.

Each is a `keras.distillation.DistillationLoss` for one pair of layers. Give the `Distiller` a list
of them; Keras' own losses may be in the list too.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfcompress.edge.arguments import check_text
from tfcompress.model.checks import check_loss

from .features import Place, attention_at, layer_at, output_of
from .masks import check_mask, check_positions, mean_where

__all__ = ["AttentionMaps", "AttentionScores", "Features"]


@keras.saving.register_keras_serializable("tfcompress")
class Features(keras.distillation.FeatureDistillation):  # type: ignore[misc]
    """Distill the features of a layer of the teacher.

    This is Keras' FeatureDistillation with a linear projection of the student's features to the
    teacher's width, where the widths differ, for instance after channel pruning. The projection
    trains along with the student and belongs to the `Distiller`; `keras.distillation.Distiller`
    would not train it. Use it for the hints of FitNets, and for hidden states and embeddings of
    transformers (TinyBERT).

    >>> features = Features("block_2", "block_2")
    >>> float(features.compute_loss([[1.0, 2.0]], [[1.0, 0.0]]))
    2.0

    Args:
        teacher_layer_name: Layer of the teacher: its name, or its path if it is in a nested model.
            Defaults to None, the output.
        student_layer_name: Layer of the student: its name, or its path if it is in a nested model.
            Defaults to None, the output.
        loss: Keras loss or its name; its mean counts. Defaults to `"mse"`. The formula of FitNets
            has half of the sum instead, which differs by a factor.
        mask: Name of an input (samples, positions) that is 0 at padding, such as `"padding_mask"`,
            for features (samples, positions, width). Defaults to None: all positions count.

    Raises:
        TypeError: A name is no text, or `loss` is no loss.
        ValueError: Keras has no such loss. When the distiller is made: there is no such layer, or
            the features differ in more than their last axis, the width.

    Reference:
        Romero et al. 2015, https://arxiv.org/abs/1412.6550; Jiao et al. 2020,
        https://arxiv.org/abs/1909.10351
    """

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        loss: Any = "mse",
        mask: str | None = None,
    ) -> None:
        for role, name in (("teacher", teacher_layer_name), ("student", student_layer_name)):
            if name is not None:
                check_text(f"{role}_layer_name", name)
        check_loss("loss", loss)
        super().__init__(loss, teacher_layer_name, student_layer_name)
        self.mask = check_mask(mask)
        self.projection: keras.layers.Dense | None = None

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Raise if the features do not fit, and make the projection if the widths differ."""
        wide, narrow = _outputs(self, teacher, student)
        _check_shapes(self, wide, narrow)
        check_positions(self, student, narrow[1:-1])
        if self.projection is not None:
            if self.projection.kernel.shape != (narrow[-1], wide[-1]):
                raise ValueError(
                    f"{_names(self)} belongs to another distiller already. Make one for each."
                )
        elif wide[-1] != narrow[-1]:
            self.projection = keras.layers.Dense(
                wide[-1], use_bias=False, dtype="float32", name="projection"
            )
            self.projection.build((None, narrow[-1]))

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss, a scalar.

        Args:
            teacher_outputs: Features of the teacher, `(..., teacher's width)`.
            student_outputs: Features of the student, `(..., student's width)`.
            **kwargs: `mask`, the values of the input of that name.
        """
        teacher, student = (ops.cast(x, "float32") for x in (teacher_outputs, student_outputs))
        if self.projection is not None:
            student = self.projection(student)
        if self.mask is None:
            return super().compute_loss(teacher, student)
        of_position = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        return mean_where(of_position(teacher, student), kwargs["mask"])

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {**super().get_config(), "mask": self.mask}


class _Pair(keras.distillation.DistillationLoss):  # type: ignore[misc]
    """A loss on a layer of the teacher and a layer of the student, without other arguments."""

    def __init__(self, teacher_layer_name: str, student_layer_name: str) -> None:
        self.teacher_layer_name = check_text("teacher_layer_name", teacher_layer_name)
        self.student_layer_name = check_text("student_layer_name", student_layer_name)

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the loss of a config from `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfcompress")
class AttentionMaps(_Pair):
    """Distill where in an image the features of a convolution are large: attention transfer.

    The map of a layer is the sum of squares over its channels at each position, scaled to length 1
    over all positions. The loss is the squared distance between the maps of teacher and student,
    from 0 to 2, and the mean over the samples. The numbers of channels may differ; the positions
    may not. The paper has the distance itself, which has no gradient where the maps are equal, as
    in self-distillation at its start. The authors' code squares it too.

    >>> import numpy as np
    >>> maps = AttentionMaps("stage_2", "stage_2")
    >>> teacher = np.float32([[[3.0], [0.0]]])  # one sample, two positions, one channel
    >>> student = np.float32([[[0.0, 0.0], [1.0, 2.0]]])
    >>> float(maps.compute_loss(teacher, student))
    2.0

    Args:
        teacher_layer_name: Layer of the teacher, channels last: its name, or its path if it is in a
            nested model.
        student_layer_name: Layer of the student, channels last: its name, or its path if it is in a
            nested model.

    Raises:
        TypeError: A name is no text.
        ValueError: When the distiller is made: there is no such layer, or the positions differ.

    Reference:
        Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1612.03928
    """

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Raise if the positions do not fit."""
        wide, narrow = _outputs(self, teacher, student)
        _check_shapes(self, wide, narrow)
        if len(wide) < 3:
            raise ValueError(f"{_names(self)} needs features with positions. Received: {wide}")

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss, a scalar.

        Args:
            teacher_outputs: Features of the teacher, `(samples, *positions, channels)`.
            student_outputs: Features of the student, `(samples, *positions, channels)`, with any
                number of channels.
            **kwargs: Not used.
        """
        difference = _attention_map(teacher_outputs) - _attention_map(student_outputs)
        return ops.mean(ops.sum(ops.square(difference), axis=-1))


@keras.saving.register_keras_serializable("tfcompress")
class AttentionScores(_Pair):
    """Distill which position attends to which in an attention layer.

    The loss is the mean squared difference of the attention probabilities (after the softmax), over
    samples, heads and pairs of positions. If the numbers of heads differ, for instance after head
    pruning, the means over the heads are compared. TinyBERT compares the scores before the softmax,
    which Keras' layers do not return.

    >>> AttentionScores("block_1/attention", "block_1/attention").get_config()["mask"] is None
    True

    Args:
        teacher_layer_name: A MultiHeadAttention or GroupQueryAttention of the teacher, which need
            not return its scores, or the Softmax of attention that is written out, as `open_layers`
            shows it: its name, or its path if it is in a nested model.
        student_layer_name: A MultiHeadAttention, GroupQueryAttention or Softmax of the student,
            quantization-aware or not: its name, or its path if it is in a nested model.
        mask: Name of an input (samples, positions) that is 0 at padding, such as `"padding_mask"`,
            for layers in which each position attends to all. Defaults to None: all pairs count.

    Raises:
        TypeError: A name is no text.
        ValueError: When the distiller is made: there is no such attention layer, or the positions
            differ.

    Reference:
        Jiao et al. 2020, https://arxiv.org/abs/1909.10351
    """

    def __init__(
        self, teacher_layer_name: str, student_layer_name: str, mask: str | None = None
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name)
        self.mask = check_mask(mask)

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {**super().get_config(), "mask": self.mask}

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Raise if there are no such layers, or the positions differ."""
        first, second = (
            attention_at(model, name, role)[1]
            for model, name, role in _roles(self, teacher, student)
        )
        _check_shapes(self, first, second)
        check_positions(self, student, second[1:-1])

    def teacher_place(self, teacher: keras.Model) -> Place:
        """Return where to read the teacher."""
        return attention_at(teacher, self.teacher_layer_name)[0]

    def student_place(self, student: keras.Model) -> Place:
        """Return where to read the student."""
        return attention_at(student, self.student_layer_name)[0]

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss, a scalar.

        Args:
            teacher_outputs: Attention probabilities of the teacher, `(samples, heads, queries,
                keys)`.
            student_outputs: Attention probabilities of the student, `(samples, heads, queries,
                keys)`, with any number of heads.
            **kwargs: `mask`, the values of the input of that name.
        """
        teacher, student = (_by_head(x) for x in (teacher_outputs, student_outputs))
        if teacher.shape[1] != student.shape[1]:
            teacher, student = (ops.mean(x, axis=1) for x in (teacher, student))
        difference = ops.mean(ops.square(teacher - student), axis=1)
        if self.mask is None:
            return ops.mean(difference)
        counts = ops.cast(kwargs["mask"], "bool")
        return mean_where(difference, ops.logical_and(counts[:, :, None], counts[:, None, :]))


def _by_head(scores: Any) -> Any:
    """Return `(samples, heads, queries, keys)`, of scores whose heads may be in groups."""
    scores = ops.cast(scores, "float32")
    heads = scores.shape[1:-2]
    return (
        scores
        if len(heads) == 1
        else ops.reshape(scores, (-1, math.prod(heads), *scores.shape[-2:]))
    )


def _attention_map(features: Any) -> Any:
    """Return `(samples, positions)`, of length 1; all zero where the features are."""
    energy = ops.sum(ops.square(ops.cast(features, "float32")), axis=-1)
    energy = ops.reshape(energy, (ops.shape(energy)[0], -1))
    length = ops.sum(ops.square(energy), axis=-1, keepdims=True)
    return energy * ops.rsqrt(ops.maximum(length, 1e-24))


def _names(loss: Any) -> str:
    names = f"{loss.teacher_layer_name!r}, {loss.student_layer_name!r}"
    return f"{type(loss).__name__}({names})"


def _roles(loss: Any, teacher: keras.Model, student: keras.Model) -> Any:
    return (
        (teacher, loss.teacher_layer_name, "teacher"),
        (student, loss.student_layer_name, "student"),
    )


def _outputs(loss: Any, teacher: keras.Model, student: keras.Model) -> list[tuple[Any, ...]]:
    shapes = []
    for model, name, role in _roles(loss, teacher, student):
        if name is not None:
            layer_at(model, name, role)
        shapes.append(tuple(output_of(model, name, role).shape))
    return shapes


def _check_shapes(loss: Any, teacher: Any, student: Any) -> None:
    """Raise if two shapes differ in more than the last axis."""
    same = len(teacher) == len(student) and all(
        a == b or None in (a, b) for a, b in zip(teacher[:-1], student[:-1], strict=True)
    )
    if not same:
        raise ValueError(
            f"{_names(loss)}: the outputs of the two layers must have one shape but for the last "
            f"axis, the width. Received: {teacher} of the teacher, {student} of the student."
        )
