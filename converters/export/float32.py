"""A model in mixed or half precision -> a float32 copy, which the converter can read."""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.converters.errors import ConversionError
from tfcompress.model.keras_private import has_graph
from tfcompress.model.layers import all_layers
from tfcompress.model.rebuild import own_objects

_NARROW = ("float16", "bfloat16", "float64")


def as_float32(model: keras.Model) -> keras.Model:
    """Return a model that computes in float32: the model itself, or a copy with its weights.

    Nested models are rebuilt too. The model and Keras' global dtype policy are not changed.

    >>> mixed = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="mixed_float16")])
    >>> as_float32(mixed).layers[0].compute_dtype
    'float32'

    Args:
        model: A built model.

    Returns:
        The model if it computes in float32, else a float32 copy.

    Raises:
        ConversionError: A subclassed model cannot be rebuilt from its config.
    """
    if not any(layer.compute_dtype in _NARROW for layer in all_layers(model)):
        return model
    policy = keras.config.dtype_policy()
    try:
        # Layers without a dtype in their config take the global policy.
        keras.config.set_dtype_policy("float32")
        with keras.saving.custom_object_scope(own_objects(model)):
            if isinstance(model, keras.Sequential) or has_graph(model):
                copy = keras.models.clone_model(model, clone_function=_clone)
            else:
                copy = type(model).from_config(_widen(model.get_config()))
                copy.build_from_config(model.get_build_config())
        narrow = [la.name for la in all_layers(copy) if la.compute_dtype in _NARROW]
        if narrow:
            raise ValueError(f"layer '{narrow[0]}' of the copy still computes in half precision")
        _carry_over(model, copy)
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' computes in {model.compute_dtype}, which has no .tflite "
            f"equivalent, and could not be rebuilt as float32: {_first_line(error)}. Build it "
            "yourself under keras.config.set_dtype_policy('float32'), call "
            "`copy.set_weights(model.get_weights())`, and convert the copy."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return copy


def _first_line(error: Exception) -> str:
    first = str(error).strip().split("\n\n")[0]
    return " ".join(line.strip() for line in first.splitlines()).rstrip(".")


def _clone(layer: keras.Layer) -> keras.Layer:
    config = _widen(layer.get_config())
    if isinstance(layer, keras.layers.Lambda):
        # The function is in this process already: no foreign code is loaded.
        return keras.layers.Lambda.from_config(config, safe_mode=False)
    return type(layer).from_config(config)


def _widen(config: Any) -> Any:
    """Return the config with float32 for every half-precision dtype and policy."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            name = str(config["config"]["name"])
            return "float32" if any(n in name for n in _NARROW) else config
        return {
            key: "float32"
            if "dtype" in str(key) and isinstance(value, str) and any(n in value for n in _NARROW)
            else _widen(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_widen(item) for item in config)
    return config


def _carry_over(model: keras.Model, copy: keras.Model) -> None:
    old, new = model.variables, copy.variables
    if [v.shape for v in old] != [v.shape for v in new]:
        raise ValueError("its rebuilt copy has other weights")
    for source, target in zip(old, new, strict=True):
        target.assign(keras.ops.cast(source, target.dtype))
