"""Weight clustering: the weights of a kernel share a few values.

A .tflite file has no codebook, so clustering makes it neither smaller nor faster. Its gzip is
smaller.
"""

from __future__ import annotations

import dataclasses
import warnings
import zlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.table import Table

from tfcompress.edge.arguments import check_bool, check_integer
from tfcompress.edge.shown import Shown
from tfcompress.model.checks import check_finite_array
from tfcompress.model.constraints import Constraint, FitConstraint, masks
from tfcompress.model.filters import Filters
from tfcompress.model.fit_callback import FitCallback
from tfcompress.model.kernels import select
from tfcompress.model.tables import as_text, new_table, scaled

__all__ = ["ClusteredKernel", "Clustering", "KeepClusters", "cluster_weights", "k_means"]

_MOST = 255  # values other than zero; with zero, as many as a byte can number
_ROUNDS = 300

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class ClusteredKernel:
    """What clustering did to one kernel.

    Attributes:
        path: Layer path and variable name.
        size: Number of weights.
        values: Number of different values after clustering, zero included.
        zeros: Number of weights that are zero.
        error: Root mean square of the weights' changes, divided by that of the weights.
        bytes: Bytes of the kernel; clustering does not change them.
        gzip_before: Bytes of the kernel alone after gzip, before clustering.
        gzip_bytes: Bytes of the kernel alone after gzip, after clustering.
    """

    path: str
    size: int
    values: int
    zeros: int
    error: float
    bytes: int
    gzip_before: int
    gzip_bytes: int


@dataclasses.dataclass(frozen=True)
class Clustering(Shown):
    """The result of `cluster_weights`. Printing it gives a table.

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="head")])
    >>> [(kernel.path, kernel.values) for kernel in cluster_weights(model, clusters=4).kernels]
    [('head/kernel', 4)]

    Attributes:
        kernels: One `ClusteredKernel` for each kernel, in the order of the model.
    """

    kernels: tuple[ClusteredKernel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return {"kernels": [dataclasses.asdict(kernel) for kernel in self.kernels]}

    def __rich__(self) -> Table:
        names = ("Weights", "Values", "Zeros", "Error", "Bytes", "gzip", "now")
        table = new_table(
            ("Kernel", *names),
            numbers=names,
            title="Clustered kernels",
            caption="A .tflite of clustered weights is as large and as fast as before: the format "
            "has no codebook. Only its gzip is smaller, as in a download or an APK. gzip: of each "
            "kernel by itself, before and now.",
        )
        for kernel in self.kernels:
            table.add_row(
                kernel.path,
                f"{kernel.size:,}",
                str(kernel.values),
                f"{kernel.zeros / kernel.size:.1%}",
                f"{kernel.error:.1%}",
                *(scaled(n, "B") for n in (kernel.bytes, kernel.gzip_before, kernel.gzip_bytes)),
            )
        return table

    def __str__(self) -> str:
        return as_text(self, width=90)


def cluster_weights(
    model: keras.Model, clusters: int = 16, filters: Filters = None, *, depthwise: bool = False
) -> Clustering:
    """Replace the weights of each kernel by a few shared values, in place.

    Each kernel gets its own values, by k-means. Zeros stay zero: where a kernel has zeros, as after
    `Prune`, zero is one of its values. Later training changes the clusters again. To keep them,
    fine-tune with `KeepClusters`.

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="head")])
    >>> done = cluster_weights(model, clusters=16)
    >>> done.kernels[0].values, np.unique(model.layers[0].kernel).size
    (16, 16)

    **Effect**: the .tflite file is as large and as fast as before; its gzip is smaller. In float
    files, a batch normalization that conversion folds into a kernel scales each output channel by
    another factor, and so multiplies the number of values. In int8 files each channel has its own
    scale, and the number of values stays.

    Args:
        model: A built model.
        clusters: Number of values that a kernel may have, 2 to 256, including zero if it has zeros.
            Defaults to 16.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        depthwise: Whether depthwise kernels are clustered too. Defaults to False.

    Returns:
        `Clustering`: values, error and gzip bytes of each kernel.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `clusters` is out of range, nothing matches `filters`, or a kernel holds NaN.
            The model is then unchanged.

    Reference:
        Han et al., "Deep Compression", https://arxiv.org/abs/1510.00149, section 3.
    """
    clusters = check_integer("clusters", clusters, 2, _MOST + 1)
    check_bool("depthwise", depthwise)
    chosen = select(model, filters, depthwise)
    found = []
    for kernel in chosen:
        weights = kernel.numpy()
        check_finite_array(f"Weight {kernel.path!r}", weights)
        found.append((weights, _clustered(weights, clusters)))
    rows = []
    for kernel, (before, after) in zip(chosen, found, strict=True):
        kernel.variable.assign(after)
        stored = np.asarray(kernel.variable.numpy())
        change, scale = (np.linalg.norm(array) for array in (stored - before, before))
        rows.append(
            ClusteredKernel(
                kernel.path,
                stored.size,
                values=np.unique(stored).size,
                zeros=stored.size - int(np.count_nonzero(stored)),
                error=float(change / scale) if scale else 0.0,
                bytes=stored.nbytes,
                gzip_before=len(zlib.compress(before.astype(stored.dtype).tobytes())),
                gzip_bytes=len(zlib.compress(stored.tobytes())),
            )
        )
    return Clustering(tuple(rows))


def k_means(values: Array, clusters: int) -> Array:
    """Return the centres of one-dimensional k-means with linear initialization.

    The first centres are spread evenly from the lowest value to the highest, so that the few large
    weights, which matter most, get centres too.

    >>> k_means(np.array([0.0, 1.0, 1.0, 8.0, 9.0]), 2).round(3).tolist()
    [0.667, 8.5]

    Args:
        values: Array of finite numbers of any shape, with at least one.
        clusters: Number of centres, at least 1.

    Returns:
        Ascending centres, float64. Centres that are nearest to no value are left out, so there may
        be fewer. If there are at most `clusters` different values, these are the centres.

    Reference:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    distinct = np.unique(ordered)
    if distinct.size <= clusters:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], clusters)
    counts = np.zeros(clusters)
    for _ in range(_ROUNDS):
        inner = np.searchsorted(ordered, (centres[:-1] + centres[1:]) / 2)
        bounds = np.array([0, *inner, ordered.size])
        before, counts = counts, np.diff(bounds)
        if np.array_equal(before, counts):
            break
        centres = np.where(counts, np.diff(sums[bounds]) / np.maximum(counts, 1), centres)
    return centres[counts > 0]


def _clustered(weights: Array, clusters: int) -> Array:
    """Return the weights, each replaced by the nearest centre; zeros stay."""
    kept = weights != 0
    if not kept.any():
        return weights
    centres = k_means(weights[kept], clusters if kept.all() else clusters - 1)
    nearest = np.searchsorted((centres[:-1] + centres[1:]) / 2, weights)
    return np.where(kept, centres[nearest], 0).astype(weights.dtype)


class ClusterConstraint(FitConstraint):
    """Replace every weight by the mean of its cluster; cluster 0 is zero.

    Args:
        index: Cluster of each weight: uint8, non-trainable variable of the shape of the weights.
        count: Number of clusters, with the cluster of zero.
        inner: The constraint that the variable had before, or `None`.
        owner: The callback that puts it there.
        fit: An object that is the same throughout one call of `fit` and another one in the next.
    """

    def __init__(
        self,
        index: keras.Variable,
        count: int,
        inner: Constraint | None,
        owner: object,
        fit: object,
    ) -> None:
        super().__init__(inner, owner, fit)
        self.index = index
        self.count = count

    def _apply(self, weights: Any) -> Any:
        # Masked weights are zero and do not count in the mean of their cluster.
        return self.tie(weights, *(mask.mask for mask in masks(self.inner)))

    def tie(self, weights: Any, *kept: Any) -> Any:
        """Return each weight's cluster mean; zero in cluster 0 and where a `kept` is False."""
        ops = keras.ops
        shape, dtype = weights.shape, weights.dtype
        index = ops.reshape(ops.cast(self.index, "int32"), [-1])
        counted = index != 0
        for mask in kept:
            counted = ops.logical_and(counted, ops.reshape(mask, [-1]))
        # The float64 mean of equal float32 values is that value, so weights without a gradient
        # stay exactly as they are.
        exact = ops.reshape(ops.cast(weights, "float64"), [-1])
        exact = ops.where(counted, exact, ops.zeros_like(exact))
        counts, sums = (self._sums(values, index) for values in (counted, exact))
        means = sums / ops.maximum(counts, 1.0)
        tied = ops.where(counted, ops.take(means, index), ops.zeros_like(exact))
        return ops.cast(ops.reshape(tied, shape), dtype)

    def _sums(self, values: Any, index: Any) -> Any:
        # Without XLA, 25 times as fast as keras.ops.segment_sum.
        return tf.math.bincount(
            index,
            weights=tf.cast(values, tf.float64),
            minlength=self.count,
            maxlength=self.count,
        )


class KeepClusters(FitCallback):
    """Keep weights equal that are equal when training begins, for fine-tuning.

    Weights that share a value after `cluster_weights` are a cluster for the whole `fit`. The
    optimizer updates each weight, and then each cluster gets the mean of its weights, inside the
    compiled step. So the values of the clusters train, and the assignment of weights to clusters
    does not change. Zeros stay zero.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16)])
    >>> model.compile("sgd", "mse", jit_compile=False)
    >>> done = cluster_weights(model, clusters=4)
    >>> x, y = np.ones((32, 8)), np.ones((32, 16))
    >>> history = model.fit(x, y, verbose=0, callbacks=[KeepClusters()])
    >>> np.unique(model.layers[0].kernel).size
    4

    It has no state of its own: an interrupted `fit` that is resumed reads the clusters from the
    weights. `Prune` and `KeepZeros` may be in the same list, in any order. The user's own
    constraints are applied first, and restored at the end.

    Args:
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels. Kernels
            with more than 255 different values other than zero are not clustered and are left
            alone.

    Raises:
        TypeError: `filters` has the wrong type.
        ValueError: When training begins: nothing matches `filters`.
    """

    _constraints: list[ClusterConstraint]

    def __init__(self, filters: Filters = None) -> None:
        super().__init__(filters, depthwise=True)

    def _start(self, epoch: int) -> None:
        # Attached after `on_train_begin`, so it is around all masks and sees them.
        selected, self._kernels = self._kernels, []
        for kernel in selected:
            index = _index(kernel.numpy())
            if index is None:
                continue
            with self.model.distribute_strategy.scope():
                # uint8, as TensorFlow keeps int32 variables off the GPU.
                variable = keras.Variable(index, dtype="uint8", trainable=False, name="clusters")
            constraint = ClusterConstraint(
                variable, int(index.max()) + 1, kernel.variable.constraint, self, self.params
            )
            kernel.variable.constraint = constraint
            self._kernels.append(kernel)
            self._constraints.append(constraint)
        if not self._kernels:
            warnings.warn(
                "KeepClusters has nothing to keep: no kernel's weights share a few values. Call "
                "cluster_weights(model) first.",
                stacklevel=2,
            )

    def _finish(self) -> None:
        # Averaged weights (`use_ema`) contain those from before clustering. Masks may be detached
        # by now, but masked weights are zero.
        for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
            weights = keras.ops.convert_to_tensor(kernel.variable)
            kernel.variable.assign(constraint.tie(weights, weights != 0))


def _index(weights: Array) -> npt.NDArray[np.uint8] | None:
    """Number the values other than zero from 1; None if there are too many or none is shared."""
    values = np.unique(weights)
    values = values[values != 0]
    if values.size > _MOST or values.size == weights.size:
        return None
    return np.where(weights == 0, 0, np.searchsorted(values, weights) + 1).astype(np.uint8)
