"""By how much each unit of a model is scaled: samples in, factors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.model.dependency.units import FIXED, Ids
from tfcompress.model.samples import Array as Samples
from tfcompress.model.samples import whole_batches
from tfcompress.model.signature import Signature
from tfcompress.model.tensor_values import tensor_values

from .formula import largest_by_unit, relative_weights, smooth_factors
from .scaling import Scaling

__all__ = ["factors", "measure", "together"]

Array = npt.NDArray[np.float64]

_BATCH = 32


def measure(
    model: keras.Model, scaling: Scaling, call: Signature, samples: Mapping[str, Samples]
) -> Array:
    """Return the largest absolute value of each unit where weights read it, by root.

    Args:
        model: The model.
        scaling: Its units.
        call: The inputs of the model.
        samples: Arrays by input name.

    Returns:
        Array with a number for each unit.
    """
    roots = scaling.roots()
    found = np.zeros(len(roots))
    reads: dict[int, list[Any]] = {}
    for read in scaling.reads:
        reads.setdefault(read.key, []).append(read)
    fixed = call.inputs[0].shape[0]
    filled = whole_batches(samples, fixed or 1)
    step = fixed or _BATCH
    for start in range(0, len(next(iter(filled.values()))), step):
        rows = [
            keras.ops.convert_to_tensor(filled[s.name][start : start + step]) for s in call.inputs
        ]
        with keras.StatelessScope():
            for key, value in tensor_values(model, rows):
                for read in reads.get(key, ()):
                    seen = value if read.seen is None else read.seen(value)
                    np.maximum.at(found, roots[read.ids], _largest(seen))
    return found


def _largest(value: Any) -> Array:
    """Return the largest absolute value along the last axis."""
    array = np.abs(np.asarray(keras.ops.convert_to_numpy(value), np.float64))
    return np.asarray(array.reshape(-1, array.shape[-1]).max(0, initial=0.0))


def together(scaling: Scaling, roots: Ids) -> Ids:
    """Return for each unit the number of its family: units that stand side by side in a tensor."""
    family = roots.copy()
    axes = [roots[ids] for ids in _side_by_side(scaling)]
    while True:
        before = family.copy()
        for ids in axes:
            np.minimum.at(family, ids, family[ids].min())
        family = family[roots]
        if (family == before).all():
            return family


def _side_by_side(scaling: Scaling) -> Iterable[Ids]:
    for ids in (*(s.ids for s in scaling.sources), *(read.ids for read in scaling.reads)):
        mine = ids[ids != FIXED]
        if mine.size:
            yield mine


def factors(scaling: Scaling, largest: Array, alpha: float, rounds: int) -> Array:
    """Return what to multiply each unit by.

    Args:
        scaling: The units of a model.
        largest: The largest absolute value of each, by root.
        alpha: How much of the unevenness moves into the weights, from 0 to 1.
        rounds: How often the formula is applied. The weights that read a channel are measured
            against others, which scale as well.

    Returns:
        Array with a factor for each unit, 1 for those that are kept.
    """
    roots = scaling.roots()
    family = together(scaling, roots)
    reasons = scaling.reasons()
    free = np.array([unit not in reasons and unit != FIXED for unit in roots.tolist()])
    factor = np.ones(len(roots))
    mixed = np.zeros(len(roots), bool)
    kernels = [part for part in scaling.parts.values() if part.reads and part.outputs]
    for part in kernels:
        mixed[roots[np.unique(part.ids)]] = True
    read = np.unique(np.concatenate([[FIXED], *(roots[read.ids] for read in scaling.reads)]))
    families = [
        np.array(sorted(members), np.int64)
        for members in _by_family(family, [u for u in read.tolist() if free[u]])
    ]
    for _ in range(rounds):
        weights = np.zeros(len(roots))
        for part in kernels:
            ids = roots[part.ids]
            kernel = np.asarray(keras.ops.convert_to_numpy(part.variable), np.float64)
            shares = relative_weights(kernel / factor[ids], part.outputs)
            weights = np.maximum(weights, largest_by_unit(ids, shares, len(roots)))
        for members in families:
            power = alpha if mixed[members].any() else 1.0
            now = largest[members] * factor[members]
            factor[members] *= smooth_factors(now, weights[members], power)
    return factor[roots]


def _by_family(family: Ids, units: list[int]) -> Iterable[list[int]]:
    found: dict[int, list[int]] = {}
    for unit in units:
        found.setdefault(int(family[unit]), []).append(unit)
    return found.values()
