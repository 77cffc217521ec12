"""Train a changed model on: it learns from the labels and from the original."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfcompress.distill.distiller import Distiller
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.model.layers import all_layers
from tfcompress.model.samples import Array

from .recipe import Recipe

__all__ = ["TimeUp", "Training", "digest", "epochs_after", "initial_rate", "rungs_of", "steps_of"]


class TimeUp(RuntimeError):
    """The time was up in the middle of a training."""


FineTune = Callable[[keras.Model, int], object]

_RUNG_STEPS = 400
"""Steps of the optimizer in the shortest training: fewer tell nothing."""
_RUNGS = 4
_TIMES = 3


@dataclass(frozen=True)
class Training:
    """How changed models are trained on.

    Attributes:
        model: The original, compiled, which is the teacher and stays as it is.
        data: What `fit` takes: `(x, y)`, or a data set.
        samples: Calibration samples by input name.
        batch_size: Samples in a batch, of arrays.
        rungs: Numbers of epochs to train for; each goes on from the one before.
        fine_tune: The user's own function of a model and a number of epochs; None for `fit`.
        folder: Where trained models are kept, by what they were made from.
        context: A digest of the original and of its data.
        seed: Seed of the order of the batches, and of dropout.
        end: Time of `time.monotonic` at which to stop.
    """

    model: keras.Model
    data: Any
    samples: dict[str, Array]
    batch_size: int
    rungs: tuple[int, ...]
    fine_tune: FineTune | None
    folder: Path
    context: str
    seed: int
    end: float

    last_rate: ClassVar[float] = 0.05
    """The learning rate ends at this share of the original's."""

    @functools.cached_property
    def distils(self) -> bool:
        """Return whether the original teaches: it tells classes apart, by a softmax or logits."""
        if self.fine_tune is not None or not _classifies(self.model.loss):
            return False
        copy = keras.models.clone_model(self.model)
        try:
            Distiller(self.model, copy)
        except ValueError:
            return False
        return True

    def changed(self, recipe: Recipe) -> keras.Model:
        """Return the model of a recipe, trained if it says so.

        What was trained before is read from the folder.

        Args:
            recipe: What to do.

        Returns:
            A model of its own, not compiled.
        """
        if not recipe.epochs:
            model = self._rewritten(recipe)
            for change in recipe.changes:
                change.preview(model)
            return model
        rungs = [epochs for epochs in self.rungs if epochs <= recipe.epochs]
        plain = recipe.plain()
        done = next((e for e in reversed(rungs) if self._path(plain.at(e)).exists()), 0)
        model = self._load(plain.at(done)) if done else self._rewritten(plain)
        for epochs in rungs:
            if epochs > done:
                self._train(model, plain.at(epochs), epochs - done, first=not done)
                done = epochs
        return model if plain.changes == recipe.changes else self._finished(model, recipe)

    def seed_of(self, recipe: Recipe) -> int:
        """Return the seed of the last `fit` of a recipe."""
        return (self.seed + int(recipe.key(self.context)[:7], 16)) % 2**31

    def _finished(self, model: keras.Model, recipe: Recipe) -> keras.Model:
        if self._path(recipe).exists():
            return self._load(recipe)
        for change in recipe.changes:
            model = change.finish(model, self.samples)
        self._train(model, recipe, epochs_after(recipe), first=False)
        return model

    def _rewritten(self, recipe: Recipe) -> keras.Model:
        model = self.model
        for change in recipe.changes:
            model = change.rewrite(model)
        if model is self.model:
            model = keras.models.clone_model(model)
            model.set_weights(self.model.get_weights())
        return model

    def _train(self, model: keras.Model, recipe: Recipe, epochs: int, first: bool) -> None:
        # A worker that takes over, or a run that is resumed, shuffles alike.
        keras.utils.set_random_seed(self.seed_of(recipe))
        if self.fine_tune is not None:
            self.fine_tune(model, epochs)
        else:
            stop = _StopAt(self.end)
            steps = epochs * (steps_of(self.data, self.batch_size) or 1)
            callbacks = [c for change in recipe.changes for c in change.callbacks(steps, first)]
            self._fit(model, epochs, steps, [*callbacks, stop])
            if stop.stopped:
                raise TimeUp("The time was up while it was trained.")
        with scratch_folder() as scratch:
            model.save(scratch / "model.keras")
            content = (scratch / "model.keras").read_bytes()
        write_whole({self._path(recipe): content})

    def _fit(self, model: keras.Model, epochs: int, steps: int, callbacks: list[Any]) -> None:
        optimizer = _optimizer(self.model.optimizer, steps)
        loss = self.model.loss
        trained = Distiller(self.model, model) if self.distils else model
        # On a CPU, XLA takes longer to compile than such a model to train.
        settings: dict[str, Any] = {"jit_compile": False}
        if trained is model:
            weights = (self.model.get_compile_config() or {}).get("loss_weights")
            settings["loss_weights"] = weights
        trained.compile(optimizer, loss, **settings)
        data = self.data if isinstance(self.data, tuple) else (self.data,)
        size = {"batch_size": self.batch_size} if isinstance(self.data, tuple) else {}
        trained.fit(*data, epochs=epochs, verbose=0, callbacks=callbacks, **size)

    def _path(self, recipe: Recipe) -> Path:
        return self.folder / f"{recipe.key(self.context)}.keras"

    def _load(self, recipe: Recipe) -> keras.Model:
        return keras.models.load_model(self._path(recipe), compile=False)


class _StopAt(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops training at a time."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end
        self.stopped = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop if it is time."""
        if time.monotonic() > self.end:
            self.model.stop_training = self.stopped = True


def epochs_after(recipe: Recipe) -> int:
    """Return the epochs of training after a change that finishes a trained model."""
    return math.ceil(recipe.epochs / _TIMES)


def _classifies(loss: Any) -> bool:
    named = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    return "categorical_crossentropy" in str(named)


def _optimizer(original: keras.optimizers.Optimizer, steps: int) -> keras.optimizers.Optimizer:
    """Return an optimizer like the original's, whose rate goes down from where that began."""
    decay = keras.optimizers.schedules.CosineDecay(
        initial_rate(original), max(1, steps), Training.last_rate
    )
    return type(original).from_config(original.get_config() | {"learning_rate": decay})


def initial_rate(original: keras.optimizers.Optimizer) -> float:
    """Return the learning rate that an optimizer began with."""
    rate = original.get_config()["learning_rate"]
    if isinstance(rate, dict):
        rate = keras.saving.deserialize_keras_object(rate)(0)
    return float(rate)


def steps_of(data: Any, batch_size: int) -> int | None:
    """Return the number of batches of an epoch; None if it cannot be known."""
    if isinstance(data, tuple):
        return math.ceil(len(keras.tree.flatten(data)[0]) / batch_size)
    count = data.cardinality() if isinstance(data, tf.data.Dataset) else data.num_batches
    return int(count) if count is not None and int(count) > 0 else None


def rungs_of(data: Any, batch_size: int) -> tuple[int, ...]:
    """Return numbers of epochs to train for: 400 steps or more, three times as many, and so on.

    >>> rungs_of((np.zeros((1280, 4)), np.zeros(1280)), 32)
    (10, 30, 90, 270)

    Args:
        data: What `fit` takes.
        batch_size: Samples in a batch, of arrays.

    Returns:
        Epochs, counted from the beginning.
    """
    steps = steps_of(data, batch_size)
    least = 1 if steps is None else max(1, math.ceil(_RUNG_STEPS / steps))
    return tuple(least * _TIMES**rung for rung in range(_RUNGS))


def digest(model: keras.Model, *arrays: Any, settings: Sequence[Any] = ()) -> str:
    """Return a digest of a model with its weights, of arrays, and of plain settings."""
    # No names: Keras numbers them anew in each process.
    kinds = [type(layer).__name__ for layer in all_layers(model)]
    hashed = hashlib.sha256(json.dumps([kinds, *settings], default=str).encode())
    for array in [*model.get_weights(), *keras.tree.flatten(arrays)]:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:24]
