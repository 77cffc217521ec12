"""`open_layers`: a model whose layers hold layers, read down to the layers inside."""

from __future__ import annotations

import warnings

import keras

from tfcompress.model.filters import Filters, check, select_layers
from tfcompress.model.functionalize import with_graph
from tfcompress.model.layers import walk

from .opener import Opener, is_composite

__all__ = ["composite_layers", "open_layers"]


def open_layers(model: keras.Model, filters: Filters = None) -> keras.Model:
    """Return a functional model in which layers that hold layers are read down to what they hold.

    A block of a transformer is often one layer: a class with layers inside, whose `call` says what
    it does with them. Keras records these calls when `call` runs on symbolic tensors. Here they
    take the place of the block, at any depth. The new model computes the same with the same
    weights: training one trains the other. It saves and loads as any model of Keras, without the
    class of the block. Its layers and operations have the names of the layers around them in front.

    `prune_channels`, `factorize`, `quantize_aware` and `equalize` open layers by themselves.

    >>> class Block(keras.layers.Layer):
    ...     def __init__(self, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.wide = keras.layers.Dense(8, "relu", name="wide")
    ...         self.narrow = keras.layers.Dense(4, name="narrow")
    ...     def call(self, x):
    ...         return x + self.narrow(self.wide(x))
    >>> inputs = keras.Input((4,), name="x")
    >>> model = keras.Model(inputs, Block(name="block")(inputs))
    >>> [layer.name for layer in open_layers(model).layers]
    ['x', 'block_wide', 'block_narrow']

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        filters: Layers to open: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all that hold layers, but Keras' own.

    Returns:
        A functional model, compiled with the loss of `model` if that is compiled. Its layers share
        the weights of `model`.

    Raises:
        TypeError: `model` is no Keras model, or `filters` has the wrong type.
        ValueError: The model is not built or cannot be traced; or `filters` or one of its entries
            selects no layer that holds layers.

    Warns:
        UserWarning: A layer cannot be opened, and stays whole; `composite_layers` says why, too.
    """
    check(filters)
    model = with_graph(model, whole=True)
    if filters is not None:
        places = [(p, lineage) for p, lineage in walk(model) if any(map(is_composite, lineage))]
        select_layers(model, filters, places, kind="layer that holds layers")
    opener = Opener(filters)
    found = opener.build(model)
    kept = {path: why for path, why in opener.kept.items() if why != opener.NOT_SELECTED}
    if kept:
        listed = "; ".join(f"{path!r}: {why}" for path, why in kept.items())
        warnings.warn(f"Not all layers of {model.name!r} can be opened. {listed}.", stacklevel=2)
    return found


def composite_layers(model: keras.Model) -> dict[str, str]:
    """Return for each layer that holds layers why `open_layers` cannot open it.

    >>> inputs = keras.Input((4,))
    >>> composite_layers(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    {}

    Args:
        model: A built model; subclassed, if its `call` can be traced.

    Returns:
        Dictionary of paths, and reasons in words; `""` for a layer that can be opened. Layers
        inside one that cannot be opened are not in it.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: The model is not built or cannot be traced.
    """
    opener = Opener()
    opener.build(with_graph(model, whole=True))
    return {**dict.fromkeys(opener.opened, ""), **opener.kept}
