"""`as_keras_hub`: a smaller model in the class of KerasHub that it was cut from."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from .checks import check_built
from .opening.open_layers import open_layers
from .opening.parameter import Parameter

__all__ = ["as_keras_hub"]

_SIZES = (
    *("vocabulary_size", "intermediate_dim", "mlp_dim", "head_dim"),
    *("num_key_value_heads", "num_query_heads", "num_heads", "hidden_dim"),
)


def as_keras_hub(model: keras.Model, like: Any) -> Any:
    """Return a smaller model in the class of KerasHub that it was cut from.

    `prune_channels` and `prune_vocabulary` open the blocks of a transformer and give a functional
    model. Where the arguments of the original's class can describe it, such as a smaller
    `intermediate_dim`, this function gives a model of that class, with the weights of the smaller
    one, so that `generate()`, presets and everything else that the class can do stay.

    That takes blocks that were cut alike. Heads can be cut where the class has an argument for
    their width (`head_dim` of Gemma and Qwen 3): others divide the width of the model by the number
    of heads. To leave them whole, `filters=` selects the layers to cut.

    >>> import keras_hub, tfcompress as tfc
    >>> lm = keras_hub.models.GPT2CausalLM(keras_hub.models.GPT2Backbone(
    ...     vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
    ...     max_sequence_length=8))
    >>> inputs = {name: keras.Input((8,), dtype="int32", name=name) for name in lm.input}
    >>> model = keras.Model(inputs, lm(inputs))  # of fixed length, so that blocks can be opened
    >>> small = tfc.prune_channels(model, 0.5, filters="intermediate", round_to=1)
    >>> as_keras_hub(small, like=lm).backbone.intermediate_dim
    8

    Args:
        model: A functional model that was made of `like`, or of a model around it, with the same
            names of layers.
        like: The original: a backbone of KerasHub, or a task with one, such as a `CausalLM`.

    Returns:
        A new model of the class of `like`. A task has the preprocessor of `like`.

    Raises:
        TypeError: `like` is no backbone and no task of KerasHub, or `model` is no Keras model.
        ValueError: The class has no arguments for such a model; the message names a weight that
            does not fit.
    """
    check_built(model)
    backbone = getattr(like, "backbone", like)
    if not (isinstance(backbone, keras.Model) and hasattr(type(backbone), "from_preset")):
        raise TypeError(
            "`like` must be a backbone or a task of KerasHub. "
            f"Received: {like!r} of type {type(like).__name__}"
        )
    sources = _weights(open_layers(model), like)
    wanted = _shapes(sources)
    config = backbone.get_config()
    sizes = {
        key: int(config[key])
        for key in _SIZES
        if isinstance(config.get(key), int) and config[key] > 1
    }
    ratios = _ratios(wanted, _shapes(_opened(like, model)))
    best, score = dict(sizes), _score(like, model, {**config, **sizes}, wanted)
    for key, size in sizes.items() if ratios else ():
        for ratio in ratios:
            tried = {**best, key: max(1, round(size * ratio))}
            found = _score(like, model, {**config, **tried}, wanted)
            if found > score:
                best, score = tried, found
    made = _made(like, {**config, **best})
    targets = _opened(made, model)
    _check(_shapes(targets), wanted, type(backbone).__name__, best)
    for name, target in targets.items():
        target.assign(sources[name])
    return made


def _made(like: Any, config: dict[str, Any]) -> Any:
    """Return a new model of the class of `like`, whose backbone has another config."""
    backbone = getattr(like, "backbone", like)
    made = type(backbone).from_config(dict(config))
    if backbone is like:
        return made
    return type(like)(backbone=made, preprocessor=like.preprocessor, name=like.name)


def _opened(like: Any, model: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights of a model by name, opened as it is called in the smaller one."""
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), model.input
    )
    return _weights(open_layers(keras.Model(inputs, like(inputs))), like)


def _weights(model: keras.Model, like: Any) -> dict[str, keras.Variable]:
    """Return the weights by the names of their layers below `like`, and their own."""
    prefix = f"{like.name}_"
    found: dict[str, keras.Variable] = {}
    for layer in model.layers:
        name = layer.name.removeprefix(prefix)
        for index, variable in enumerate(layer.variables):
            own = "" if isinstance(layer, Parameter) else f"_{variable.name}"
            key = name + own
            found[key if key not in found else f"{key}_{index}"] = variable
    return found


def _score(like: Any, model: keras.Model, config: dict[str, Any], wanted: dict[str, Any]) -> int:
    """Return how many weights of a model of a config are as large as in the one that is wanted."""
    one_layer = {key: 1 for key in ("num_layers",) if isinstance(config.get(key), int)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes whose layers cannot be opened
            found = _shapes(_opened(_made(like, {**config, **one_layer}), model))
    except (ValueError, TypeError, ZeroDivisionError):  # Sizes that the class refuses.
        return -1
    return sum(wanted.get(name) == shape for name, shape in found.items())


def _shapes(weights: dict[str, keras.Variable]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(variable.shape) for name, variable in weights.items()}


def _ratios(small: dict[str, tuple[int, ...]], large: dict[str, tuple[int, ...]]) -> list[float]:
    """Return by what sizes were cut."""
    pairs = [(large[name], now) for name, now in small.items() if name in large]
    return sorted(
        {
            after / before
            for old, new in pairs
            if len(old) == len(new)
            for before, after in zip(old, new, strict=True)
            if before != after
        }
    )


def _check(
    found: dict[str, tuple[int, ...]],
    wanted: dict[str, tuple[int, ...]],
    kind: str,
    sizes: dict[str, int],
) -> None:
    name = next((n for n in (*wanted, *found) if found.get(n) != wanted.get(n)), None)
    if name is not None:
        listed = ", ".join(f"{key}={size}" for key, size in sizes.items())
        raise ValueError(
            f"No arguments of {kind} give this model: with {listed}, the weight {name!r} has the "
            f"shape {found.get(name)}, and in the model {wanted.get(name)}. Cut "
            "all blocks alike, and leave whole what the class has no argument for: `filters=` "
            "selects the layers to cut. The functional model saves and loads as it is."
        )
