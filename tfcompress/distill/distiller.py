"""`Distiller`: train a student on labels and a teacher, while it is compressed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tfcompress.edge.arguments import check_text
from tfcompress.model.checks import check_built, check_finite
from tfcompress.model.keras_private import compiled_loss

from .checks import check_losses, check_models
from .features import Place, extract, layer_at
from .masks import given_mask
from .soft_targets import SoftTargets

__all__ = ["Distiller", "self_distiller"]

Losses: TypeAlias = (
    keras.distillation.DistillationLoss | Sequence[keras.distillation.DistillationLoss]
)


@keras.saving.register_keras_serializable("tfcompress")
class Distiller(keras.distillation.Distiller):  # type: ignore[misc]
    """Train a student on labels and on the outputs of a teacher, in one objective.

    The objective is `student_loss_weight * labels + (1 - student_loss_weight) * sum(weight_i *
    distillation_i) + penalties`. The penalties are the student's regularizers, such as L1 or
    `SmoothL0` set with `regularize`.

    Compile and fit it as any model. Callbacks and functions of this package act on its student
    alone, by the names of the student's layers: `Prune`, `KeepZeros`, `regularize`,
    `FreezeRanges`, `FreezeBatchNorm`, `prune_weights`. The student may be from `quantize_aware`.
    After training, `distiller.student` is still a plain model.

    >>> import numpy as np
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    >>> distiller = Distiller(teacher, student, SoftTargets(temperature=4.0))
    >>> distiller.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    >>> history = distiller.fit(np.eye(4), np.array([0, 1, 0, 1]), verbose=0)
    >>> sorted(history.history)
    ['distillation_loss', 'loss', 'penalty', 'student_loss', 'total_loss']

    **Differences from Keras**: `keras.distillation.Distiller` ignores the student's regularizers
    and sample weights. For features it runs the student a second time, always in training mode, so
    that batch normalization updates twice, and in `evaluate` too. It loads without its optimizer.
    It leaves the teacher frozen. This class does none of that, and also reads layers inside nested
    models.

    **The teacher** runs in inference mode, and stays as it is: its weights are not among the
    distiller's `trainable_weights`, and its own `trainable` does not change.

    Args:
        teacher: A built model.
        student: A built model with inputs and outputs of the same shapes and types.
        distillation_losses: A loss or a list of losses, from `tfcompress.distill` or
            `keras.distillation`. Defaults to `SoftTargets()`.
        distillation_loss_weights: A weight for each distillation loss, at least 0. Defaults to 1
            for each.
        student_loss_weight: Weight of the loss on the labels, 0 to 1. Defaults to 0.5. At 0,
            neither a loss in `compile` nor labels are needed.
        name: Name of the model. Defaults to "distiller".
        **kwargs: Other arguments of `keras.Model`. `dtype` defaults to the student's.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A model is not built; the two do not fit, are the same or share weights; the
            teacher's weights hold NaN; a weight is out of range; or a loss does not fit the models.

    Reference:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: Losses | None = None,
        distillation_loss_weights: Sequence[float] | float | None = None,
        student_loss_weight: float = 0.5,
        name: str = "distiller",
        **kwargs: Any,
    ) -> None:
        check_text("name", name)
        check_models(teacher, student)
        losses, weights = _losses(distillation_losses, distillation_loss_weights)
        check_losses(losses, weights, student_loss_weight)
        for loss in losses:
            loss.validate_model_compatibility(teacher, student)
        places = (
            [_place(loss, teacher, "teacher") for loss in losses],
            [_place(loss, student, "student") for loss in losses],
        )
        readers = (_reader(teacher, places[0]), _reader(student, places[1]))
        kwargs.setdefault("dtype", student.dtype_policy)
        # Not `keras.distillation.Distiller.__init__`: it freezes the teacher for good, and makes
        # extractors for the losses, which run the student a second time.
        keras.Model.__init__(self, name=name, **kwargs)
        self.teacher, self.student = teacher, student
        self.student_loss_weight = student_loss_weight
        self.distillation_losses = losses
        self.distillation_loss_weights = weights
        self._keys = [(_key(t), _key(s)) for t, s in zip(*places, strict=True)]
        self._run_teacher, self._run_student = readers
        self.autocast = False  # The models cast their inputs themselves.
        projections = (getattr(loss, "projection", None) for loss in losses)
        self.projections = [layer for layer in projections if layer is not None]
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")
        self.penalty_tracker = keras.metrics.Mean(name="penalty")
        # Each replica of a distribution strategy is traced in a thread of its own.
        self._latest = threading.local()
        self.built = True

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Return the weights that the optimizer changes: none of the teacher's."""
        return self._not_the_teachers(super().trainable_weights)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """Return all other weights, with all of the teacher's."""
        changed = {id(variable) for variable in self.trainable_weights}
        return [variable for variable in self.weights if id(variable) not in changed]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Return the variables that the optimizer changes: none of the teacher's."""
        return self._not_the_teachers(super().trainable_variables)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """Return all other variables, with all of the teacher's."""
        changed = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in changed]

    def _not_the_teachers(self, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
        teachers = {id(variable) for variable in self.teacher.variables}
        return [variable for variable in variables if id(variable) not in teachers]

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Compile the model with a loss on the labels.

        Args:
            optimizer: Keras optimizer, or its name. Defaults to "adam".
            loss: Keras loss on the labels, or its name. None (the default) only if
                `student_loss_weight` is 0.
            metrics: List of Keras metrics, or their names. Defaults to None.
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: There is no `loss`, and `student_loss_weight` is above 0.
        """
        if loss is None and self.student_loss_weight > 0:
            raise ValueError(
                "Give a `loss` of the labels, or make the Distiller with student_loss_weight=0. "
                f"Received: loss=None, student_loss_weight={self.student_loss_weight}"
            )
        keras.Model.compile(self, optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with the saved arguments, and build the optimizer."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the student's predictions."""
        self._latest.outputs = self._run_student(inputs, training=training)
        return self._latest.outputs["output"]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the objective, a scalar.

        Args:
            x: Inputs of both models.
            y: Labels, or None if `student_loss_weight` is 0.
            y_pred: The student's predictions for `x`. Defaults to None: they are computed.
            sample_weight: Weights of the samples in the loss on the labels, or None.
            training: Whether the student runs in training mode if `y_pred` is None. Defaults to
                True.
        """
        if y_pred is None:
            y_pred = self(x, training=training)
        student = self._student_outputs(x, y_pred, training)
        replicas = self.distribute_strategy.num_replicas_in_sync
        labels = ops.zeros(())
        if self.student_loss_weight > 0:
            loss = compiled_loss(self, y, y_pred, sample_weight)
            if loss is not None:
                # Keras divides the loss by the number of replicas, because the optimizer adds up
                # their gradients.
                labels = ops.cast(loss, "float32") * replicas
        distillation = ops.zeros(())
        if self.student_loss_weight < 1:
            teacher = self._run_teacher(x, training=False)
            for loss, weight, (theirs, ours) in zip(
                self.distillation_losses, self.distillation_loss_weights, self._keys, strict=True
            ):
                loss.validate_outputs(teacher[theirs], student[ours])
                mask = given_mask(loss, self.student, x)
                given = {} if mask is None else {"mask": mask}
                term = loss.compute_loss(teacher[theirs], student[ours], **given)
                distillation += weight * ops.cast(term, "float32")
        penalty = ops.zeros(())
        for term in self.student.losses:
            penalty += ops.sum(ops.cast(term, "float32"))
        share = self.student_loss_weight
        total = share * labels + (1 - share) * distillation + penalty
        self.student_loss_tracker.update_state(labels)
        self.distillation_loss_tracker.update_state(distillation)
        self.penalty_tracker.update_state(penalty)
        self.total_loss_tracker.update_state(total)
        return total / replicas

    def _student_outputs(self, x: Any, y_pred: Any, training: bool) -> dict[str, Any]:
        """Return all student outputs of the pass that predicted `y_pred`."""
        latest = getattr(self._latest, "outputs", None)
        self._latest.outputs = None
        if latest is not None:
            pairs = zip(
                keras.tree.flatten(latest["output"]), keras.tree.flatten(y_pred), strict=True
            )
            if all(ours is theirs for ours, theirs in pairs):
                return dict(latest)
        return {**self._run_student(x, training=training), "output": y_pred}


def self_distiller(
    model: keras.Model,
    distillation_losses: Losses | None = None,
    distillation_loss_weights: Sequence[float] | float | None = None,
    student_loss_weight: float = 0.5,
    **kwargs: Any,
) -> Distiller:
    """Return a `Distiller` in which a model learns from a copy of its present self.

    Use it to prune a model while it is trained to keep its outputs. For quantization-aware
    training, whose student is another model: `Distiller(model, quantize_aware(model))`.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    >>> distiller = self_distiller(model)
    >>> distiller.student is model, distiller.teacher is model
    (True, False)

    Args:
        model: A built model, which becomes the student.
        distillation_losses: A loss or a list of losses, from `tfcompress.distill` or
            `keras.distillation`. Defaults to `SoftTargets()`.
        distillation_loss_weights: A weight for each distillation loss, at least 0. Defaults to 1
            for each.
        student_loss_weight: Weight of the loss on the labels, 0 to 1. Defaults to 0.5.
        **kwargs: Other arguments of `Distiller`, such as `name`.

    Returns:
        The distiller, not compiled.

    Raises:
        ValueError: The model is not built or cannot be copied, a weight is out of range, or a loss
            does not fit the model.
    """
    check_finite(check_built(model))
    check_losses(*_losses(distillation_losses, distillation_loss_weights), student_loss_weight)
    try:
        teacher = keras.models.clone_model(model)
        if not teacher.built:  # Subclassed.
            teacher.build_from_config(model.get_build_config())
        teacher.set_weights(model.get_weights())
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} cannot be copied from its own config: {error}. Make the "
            "teacher yourself, and use Distiller(teacher, model)."
        ) from error
    return Distiller(
        teacher,
        model,
        distillation_losses,
        distillation_loss_weights,
        student_loss_weight,
        **kwargs,
    )


def _losses(losses: Any, weights: Any) -> tuple[list[Any], list[Any]]:
    """Return losses and their weights as lists, with the defaults filled in."""
    losses = _as_list(SoftTargets() if losses is None else losses)
    return losses, [1.0] * len(losses) if weights is None else _as_list(weights)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _place(loss: Any, model: keras.Model, role: str) -> Place | None:
    """Return where a loss reads a model, or None for the model's output."""
    if hasattr(loss, f"{role}_place"):
        place: Place | None = getattr(loss, f"{role}_place")(model)
        return place
    name = getattr(loss, f"{role}_layer_name", None)
    return None if name is None else Place(layer_at(model, name, role)[0])


def _key(place: Place | None) -> str:
    if place is None:
        return "output"
    return f"{place.path}:{'scores' if place.scores else 'output'}"


def _reader(model: keras.Model, places: Sequence[Place | None]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a model and returns its output and the places', by `_key`.

    It is no model, because Keras would track a model and save it.
    """
    wanted = {_key(place): place for place in places if place is not None}
    if not wanted:
        return lambda x, training: {"output": model(x, training=training)}
    extractor = extract(model, wanted)
    return lambda x, training: extractor(x, training=training)
