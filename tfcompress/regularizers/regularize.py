"""Set the regularizers of the kernels of a built model."""

from __future__ import annotations

import keras

from tfcompress.edge.arguments import check_bool, refuse
from tfcompress.model.filters import Filters
from tfcompress.model.keras_private import set_attention_regularizer
from tfcompress.model.kernels import DEPTHWISE, Kernel, kernels, select

__all__ = ["regularize"]

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def regularize(
    model: keras.Model,
    regularizer: keras.regularizers.Regularizer | str | None,
    filters: Filters = None,
    *,
    depthwise: bool = False,
) -> None:
    """Set the regularizer of a built model's kernels, in place.

    It replaces the regularizer that a kernel has; `None` removes it. The layers' configs change
    too, so it is saved with the model. Two kinds of layer cannot save it: a custom layer whose
    `get_config` does not contain it, and attention where `filters` selects only some projections.
    A compiled model need not be compiled again; a compiled model around this one must be.

    L1 drives weights towards zero, which prepares them for `Prune`; L2 keeps them small.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> regularize(model, keras.regularizers.L1(0.1))
    >>> _ = model.layers[0].kernel.assign([[1.0], [-2.0]])
    >>> round(float(sum(model.losses)), 4)
    0.3

    Args:
        model: A built model.
        regularizer: A Keras regularizer, its name (`"l1"`), or `None`.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        depthwise: Whether depthwise kernels are regularized too. Defaults to False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: Nothing matches `filters`, or no regularizer has the given name.
    """
    found = _regularizer(regularizer)
    check_bool("depthwise", depthwise)
    chosen = select(model, filters, depthwise)
    for kernel in chosen:
        kernel.variable.regularizer = found
        setattr(kernel.layer, _attribute(kernel), found)
    for layer in {id(part): part for kernel in chosen for part in kernel.lineage}.values():
        # Attention builds its projections from its own config when it is loaded, with one
        # regularizer for all of them.
        if isinstance(layer, _ATTENTION):
            inside = [k for k in kernels(model) if layer in k.lineage]
            if {k.path for k in inside} <= {k.path for k in chosen}:
                set_attention_regularizer(layer, found)
    # Steps that were traced earlier do not contain the regularizer.
    model.train_function = None
    model.test_function = None


def _regularizer(given: object) -> keras.regularizers.Regularizer | None:
    wanted = 'a keras.regularizers.Regularizer, its name such as "l1", or None'
    if given is None or isinstance(given, keras.regularizers.Regularizer):
        return given
    if not isinstance(given, str):
        refuse("regularizer", wanted, given, TypeError)
    try:
        return keras.regularizers.get(given)
    except ValueError:
        refuse("regularizer", wanted, given)


def _attribute(kernel: Kernel) -> str:
    """Return the name of the attribute that the layer writes into its config."""
    name = kernel.variable.name
    if isinstance(kernel.layer, DEPTHWISE) or name == "depthwise_kernel":
        return "depthwise_regularizer"
    if name == "recurrent_kernel":
        return "recurrent_regularizer"
    if name == "pointwise_kernel":
        return "pointwise_regularizer"
    return f"{name}_regularizer"
