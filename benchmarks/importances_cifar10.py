"""Which channels to cut: a trained net cut by every importance, and trained on alike.

For recipe_cifar10.py, which has the nets and the command line.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cifar10
import keras
import numpy as np

import tfcompress as tfc

SHARE = 0.5  # of the MACs that is left
IMAGES = 25_000  # to train on, once
RATE = 1e-3
SEEN = 1024  # training images that data-driven importances look at
BASELINE = "random"


NAMES = [*tfc.importance.IMPORTANCES.names(), BASELINE]


def importance_of(name: str, images: cifar10.Array, labels: cifar10.Array, seed: int) -> Any:
    """Return the importance of a name, made with what it needs.

    Args:
        name: One of `NAMES`.
        images: Scaled training images.
        labels: Their labels.
        seed: Seed of the scores at random.
    """
    if name == BASELINE:
        return tfc.importance.random(seed)
    needs = tfc.importance.IMPORTANCES.needs(name)
    return tfc.importance.get(
        name,
        data=None if needs == "weights" else (images, labels),
        loss=keras.losses.SparseCategoricalCrossentropy(True) if needs == "loss" else None,
    )


@dataclass(frozen=True)
class Comparison:
    """A net, cut by an importance.

    Attributes:
        importance: Which.
        seed: Of the float training, and of all that is random after it.
        macs: Share of the multiply-accumulates that is left.
        cut: Accuracy after the cut, in percent of the test images.
        trained: Accuracy after some training, in percent of the test images.
    """

    importance: str
    seed: int
    macs: float
    cut: float
    trained: float


def compare(
    names: Sequence[str],
    model: Callable[[], keras.Model],
    train: cifar10.Split,
    test: cifar10.Split,
    *,
    seed: int,
    batch: int,
    file: Callable[[str], Path],
) -> list[Comparison]:
    """Cut a net by each importance, and train on.

    Args:
        names: Some of `NAMES`.
        model: Gives the trained net.
        train: Training images and labels.
        test: Test images and labels.
        seed: Of the net; the batches follow from it, too.
        batch: Images in a batch.
        file: Where the figures of an importance are kept; those that are there stand.
    """
    found = []
    for name in names:
        if not file(name).exists():
            made = _cut(model(), name, train, test, seed, batch)
            file(name).write_text(json.dumps(asdict(made)))
        found.append(Comparison(**json.loads(file(name).read_text())))
    return found


def _cut(
    model: keras.Model,
    name: str,
    train: cifar10.Split,
    test: cifar10.Split,
    seed: int,
    batch: int,
) -> Comparison:
    def accuracy(model: keras.Model) -> float:
        logits = model.predict(cifar10.scaled(test[0]), batch_size=250, verbose=0)
        return 100 * float(np.mean(logits.argmax(-1) == test[1]))

    importance = importance_of(name, cifar10.scaled(train[0][:SEEN]), train[1][:SEEN], seed)
    small = tfc.prune_channels(model, tfc.budgets.Macs(SHARE), importance=importance)
    cut = accuracy(small)
    keras.utils.set_random_seed(seed)
    few = (train[0][:IMAGES], train[1][:IMAGES])
    cifar10.fine_tune(small, keras, few, seed=seed, epochs=1, rate=RATE, batch=batch)
    share = tfc.summary(small).total.macs / tfc.summary(model).total.macs
    return Comparison(name, seed, share, cut, accuracy(small))


def mean(comparisons: list[Comparison], field: str = "trained") -> dict[str, float]:
    """Over seeds, by importance."""
    groups: dict[str, list[float]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.importance, []).append(getattr(comparison, field))
    return {name: statistics.mean(group) for name, group in groups.items()}
