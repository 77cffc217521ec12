"""What a layer's `call` does, recorded on symbolic tensors."""

from __future__ import annotations

import math
import re
from enum import IntEnum
from typing import Any

import keras
from keras import ops

from tfcompress.model import keras_private
from tfcompress.model.layers import all_layers, children, rule_class

from .batch import of_any_batch
from .calls import Call, NotOpened, Recording, same_recording

__all__ = ["record"]


def record(layer: Any, args: Any, kwargs: Any) -> Recording:
    """Record what a layer calls inside.

    Args:
        layer: A built layer, or a function of tensors.
        args: Positional arguments of the call, symbolic tensors among them.
        kwargs: Keyword arguments, in the same form.

    Returns:
        The recording. It leaves no trace in the layers inside.

    Raises:
        NotOpened: The `call` cannot be recorded, or would not compute the same.
    """
    if not isinstance(layer, keras.layers.Layer):
        return _recorded(layer, args, kwargs, None)
    if getattr(layer, "activity_regularizer", None) is not None:
        raise NotOpened("it has an activity regularizer")
    sizes = _batch_sizes(args, kwargs)
    why: NotOpened | None = None
    for symbols in _Symbols:
        for batches in sizes:
            try:
                found = [_settled(layer, args, kwargs, batch, symbols) for batch in batches]
                return found[0] if len(found) == 1 else of_any_batch(*found)
            except NotOpened as error:
                why = error if symbols is _Symbols.WEIGHTS else why
    assert why is not None
    raise why


def _batch_sizes(args: Any, kwargs: Any) -> list[tuple[int | None, ...]]:
    """Return the batch sizes to record a call at, one or two for each attempt.

    Sizes that are Python numbers can be used in more ways than None. Where images are cut into
    windows, and a mask has a row for each, the batch is a multiple of their number.
    """
    shapes = [x.shape for x in keras.tree.flatten((args, kwargs)) if hasattr(x, "shape")]
    if not any(shape[:1] == (None,) for shape in shapes):
        return [(None,)]
    rows = math.lcm(*(shape[0] for shape in shapes if len(shape) and shape[0]))
    return [(None,), (2, 3), *([(2 * rows, 3 * rows)] if rows > 1 else [])]


class _Symbols(IntEnum):
    """For what of a layer symbolic tensors stand; each includes those before."""

    WEIGHTS = 1
    CONSTANTS = 2
    LAYERS = 3
    """Layers inside that are made of layers, too, are read together with it: they may give None,
    which Keras records of no layer."""


def _settled(layer: Any, args: Any, kwargs: Any, batch: int | None, symbols: _Symbols) -> Recording:
    # What is recorded of `training` in a functional model, `fit` overrules.
    calm, busy = (
        _recorded(layer, args, {**kwargs, "training": training}, layer, batch, symbols)
        for training in (False, True)
    )
    _settle_training(calm, busy)
    return calm


def _recorded(
    layer: Any,
    args: Any,
    kwargs: Any,
    owner: keras.layers.Layer | None,
    batch: int | None = None,
    symbols: _Symbols = _Symbols.WEIGHTS,
) -> Recording:
    inputs: list[Any] = []
    given = keras.tree.map_structure(lambda x: _fresh(x, batch, inputs), (args, kwargs))
    weights: list[tuple[Any, Any]] = []
    inner = [] if owner is None else list(all_layers(owner))
    before = [(part, keras_private.number_of_calls(part)) for part in inner]
    inherited = [part for part in inner if _inherits_spec(part)]
    scope = _Reads()
    try:
        for part in inherited:
            keras_private.infer_spec(part)
        with scope:
            if owner is None:
                outputs = layer(*given[0], **given[1])
            else:
                outputs = keras_private.call_inside(_with_symbols(owner, symbols, weights), *given)
        flat = keras.tree.flatten(outputs)
        tensors = [x for x in flat if isinstance(x, keras.KerasTensor)]
        masks = [keras_private.mask_of(tensor) for tensor in tensors]
        ends = [*tensors, *(mask for mask in masks if mask is not None)]
        starts = [*inputs, *(symbol for _, symbol in weights)]
        calls = [
            Call(node.operation, node.arguments.args, dict(node.arguments.kwargs), node.outputs)
            for node in keras_private.recorded(ends, starts)
        ]
    except Exception as error:
        # Keras puts the names of the calls around a message, which it makes bold.
        bold = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)
        why = (bold.group(1) if bold else str(error)).strip().partition("\n")[0]
        if "as input to a TensorFlow function" in why:
            why = "its `call` uses a function of TensorFlow, which takes no symbolic tensors"
        elif not isinstance(error, NotOpened):
            kind = type(error).__name__
            why = f"its `call` cannot be traced on symbolic tensors ({kind}: {why})"
        raise NotOpened(why) from error
    finally:
        for part in inherited:
            del vars(part)["compute_output_spec"]
        for part, count in before:
            keras_private.forget_calls(part, count)
    if not tensors or not all(isinstance(x, keras.KerasTensor) or ops.is_tensor(x) for x in flat):
        raise NotOpened("an output does not depend on the inputs")
    _check(scope, calls)
    return Recording(inputs, weights, calls, outputs)


def _inherits_spec(layer: keras.layers.Layer) -> bool:
    """Return whether what the layer says of its output shapes is another one's, or too little."""
    if isinstance(layer, keras.layers.EinsumDense):  # A free axis of its config may be known here.
        return True
    classes = type(layer).__mro__
    own, spec = (
        next(i for i, cls in enumerate(classes) if name in vars(cls))
        for name in ("call", "compute_output_spec")
    )
    return own < spec and classes[spec] is not keras.layers.Layer


def _fresh(value: Any, batch: int | None, inputs: list[Any]) -> Any:
    """Return a symbolic tensor without a history in the place of one, with its mask."""
    if not isinstance(value, keras.KerasTensor):
        return value

    def like(tensor: Any) -> Any:
        shape = tuple(tensor.shape)
        if shape[:1] == (None,):
            shape = (batch, *shape[1:])
        return keras.KerasTensor(shape, tensor.dtype)

    fresh, mask = like(value), keras_private.mask_of(value)
    inputs.append(fresh)
    if mask is not None:
        keras_private.set_mask(fresh, like(mask))
        inputs.append(keras_private.mask_of(fresh))
    return fresh


def _with_symbols(layer: Any, symbols: _Symbols, weights: list[tuple[Any, Any]]) -> Any:
    """Return the layer with symbolic tensors in the place of its own weights and constants."""

    def stand_in(value: Any) -> Any:
        if isinstance(value, list | tuple) and any(map(_made_of_layers, value)):
            return [stand_in(part) for part in value]
        if symbols >= _Symbols.LAYERS and _made_of_layers(value):
            inner = _with_symbols(value, symbols, weights)
            return lambda *args, **kwargs: keras_private.call_inside(inner, args, kwargs)
        constant = symbols >= _Symbols.CONSTANTS and ops.is_tensor(value)
        if not isinstance(value, keras.Variable) and not constant:
            return value
        floats = keras.backend.is_float_dtype(value.dtype)
        symbol = keras.KerasTensor(value.shape, layer.compute_dtype if floats else value.dtype)
        weights.append((value, symbol))
        return symbol

    twin = keras_private.renamed(layer, layer.name)
    # Keras' own list of the layers inside stays.
    vars(twin).update({n: stand_in(x) for n, x in vars(layer).items() if n != "_layers"})
    vars(twin)["add_loss"] = _refuse_loss
    return twin


def _made_of_layers(value: Any) -> bool:
    """Return whether it is a layer with layers inside, of a class that is not Keras' own."""
    if not isinstance(value, keras.layers.Layer) or keras_private.has_graph(value):
        return False
    return rule_class(value).__module__.partition(".")[0] != "keras" and bool(children(value))


def _refuse_loss(loss: Any) -> None:
    raise NotOpened("its `call` adds a loss")


class _Reads(keras.StatelessScope):  # type: ignore[misc]
    """Notes which variables are read outside of the layers that hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[keras.Variable] = []

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.read.append(variable)
        return super().get_current_value(variable)


def _check(scope: _Reads, calls: list[Call]) -> None:
    for call in calls:
        for name in ("newshape", "shape"):
            if None in (getattr(call.operation, name, None) or ()):
                kind = type(call.operation).__name__
                raise NotOpened(f"its `call` needs a size that is not known ({kind})")
    if scope.state_mapping:
        raise NotOpened("its `call` changes weights")
    read = [variable.path for variable in scope.read]
    for call in calls:
        flat = keras.tree.flatten((call.args, call.kwargs))
        read += [value.path for value in flat if isinstance(value, keras.Variable)]
    if read:
        raise NotOpened(f"its `call` reads {read[0]!r}, a weight of a layer inside it")


def _settle_training(calm: Recording, busy: Recording) -> None:
    """Leave `training` to the layers inside, if that is all that a `call` does with it.

    Raises:
        NotOpened: The two recordings, without training and with it, differ in anything else.
    """
    for one, other in zip(calm.calls, busy.calls, strict=False):
        given = one.kwargs.pop("training", None), other.kwargs.pop("training", None)
        alike = one.operation is other.operation
        if alike and given not in ((None, None), (False, True)):
            raise NotOpened(f"its `call` sets `training` of {one.operation.name!r} by itself")
    if not same_recording(calm, busy):
        raise NotOpened("its `call` does something else in training, which is in no graph")
