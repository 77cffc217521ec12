"""`quantize_aware`: a Keras model -> one that trains as its int8 file will compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras

from tfcompress.edge.arguments import check_bool, refuse
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, check, select_layers
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import all_nodes, ends, is_graph, nodes
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import walk
from tfcompress.model.quantized import is_quantized
from tfcompress.model.rebuild import warn_of_untied

from .embeddings import plain_embeddings
from .graph_copy import Graph, Shared
from .positions import plain_positions
from .residual_sums import residual_sums
from .scheme import QuantizationScheme
from .uneven import uneven_first_layers

__all__ = ["quantize_aware"]


def quantize_aware(
    model: keras.Model,
    filters: Filters = None,
    exclude: Filters = None,
    scheme: QuantizationScheme = QuantizationScheme(),  # noqa: B008 - frozen
    float_first: bool = False,
    float_last: bool = False,
    float_sums: bool = False,
) -> keras.Model:
    """Return a copy of a model that computes as its int8 .tflite file will, and trains so.

    Kernels are rounded to int8 where they are read. Activations are rounded wherever the file will
    have an int8 tensor: after a convolution with its batch normalization and ReLU, not in between.
    Compile and fit it, at a small learning rate, for some epochs. Then `converters.convert(qat,
    path, converters.Int8())` needs no calibration data. Ranges of activations come from
    `calibrate`, or else from the first batches.

    >>> inputs = keras.Input((4,), name="x")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))
    >>> [layer.name for layer in quantize_aware(model).layers]
    ['x', 'fake_quant_x', 'quantized_head', 'head']

    Args:
        model: A built model; nested ones are quantized inside. It stays as it is. A subclassed one
            is read off its `call` where that is sound, and becomes a functional one.
        filters: Layers to quantize: a regular expression for their paths, a list of layers or
            names, or a function of a layer. Defaults to all, but for a first layer that normalizes
            features of very different sizes: one int8 range would lose the small ones.
        exclude: Layers, and operations by their names in `qat_report`, to keep in float all the
            same, in the same forms. One that only moves values follows its input. Defaults to none.
        scheme: Bits, symmetry and ranges. Defaults to `QuantizationScheme()`.
        float_first: Whether the first layers with kernels stay in float. Defaults to False.
        float_last: Whether the last layers with kernels stay in float. Defaults to False.
        float_sums: Whether the sums that normalizations read stay in float, which are the residual
            stream of a transformer. In pretrained ones some channels are a hundred times as large
            as others, and one int8 range loses the others. Defaults to False.

    Returns:
        A functional model, not compiled, with copies of all weights. A class of the model's own,
        with a `train_step` for example, is not kept.

    Raises:
        TypeError: If it is not a Keras model, or an argument has a wrong type.
        ValueError: If the model is not built, quantized already, has string inputs or nothing to
            quantize; if it is subclassed and cannot be read off its `call`; if a weight is NaN; or
            if `filters` or `exclude` selects nothing.

    Warns:
        UserWarning: If a first layer stays in float because of its features.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """
    if not isinstance(scheme, QuantizationScheme):
        refuse("scheme", "a QuantizationScheme(...)", scheme, TypeError)
    check_bool("float_first", float_first)
    check_bool("float_last", float_last)
    check_bool("float_sums", float_sums)
    check(filters)
    check(exclude, "exclude")
    model = with_graph(model)
    _check(model)
    model = plain_positions(plain_embeddings(model))
    layers = [
        (path, lineage)
        for path, lineage in walk(model)
        if lineage and not isinstance(lineage[-1], keras.layers.InputLayer)
    ]
    in_float: set[int] = set()
    if filters is not None:
        every = {id(lineage[-1]) for _, lineage in layers}
        in_float = every - select_layers(model, filters, layers)
    if exclude is not None:
        # A function of a layer need not take operations.
        operations = [] if callable(exclude) else _operations(model)
        in_float |= select_layers(model, exclude, [*layers, *operations], argument="exclude")
    if float_sums:
        in_float |= residual_sums(model)
    in_float |= ends(model, float_first, float_last)
    if filters is None:
        in_float |= uneven_first_layers(model, in_float)
    warn_of_untied(model)
    counts = Counter(id(node.operation) for node in all_nodes(model))
    return Graph(Shared(scheme, in_float, counts), model).build()


def _operations(model: keras.Model, around: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield path and lineage of each operation of `keras.ops`."""
    for node in nodes(model):
        lineage = (*around, node.operation)
        if is_graph(node.operation):
            yield from _operations(node.operation, lineage)
        elif not isinstance(node.operation, keras.layers.Layer):
            yield "/".join(part.name for part in lineage), lineage


def _check(model: keras.Model) -> None:
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware already. `strip` makes it a float "
            "model again."
        )
    for tensor in model.inputs:
        if keras.backend.standardize_dtype(tensor.dtype) == "string":
            raise ValueError(
                f"Input {tensor.name!r} of model {model.name!r} takes strings, which no .tflite "
                "model computes with. Leave the text preprocessing out of the model."
            )
    check_finite(model)
    if not any(kernels_of(model)) and not any(v.trainable for v in model.variables):
        raise ValueError(
            f"There is nothing to quantize in model {model.name!r}: it has no weights."
        )
