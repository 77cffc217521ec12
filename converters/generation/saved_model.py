"""A language model -> a SavedModel with a signature for each length of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfcompress.converters.errors import ConversionError
from tfcompress.converters.export.saved_model import quiet
from tfcompress.edge.system.scratch import raise_if_full

from .protocol import LanguageModel

DECODE, PREFILL = "decode", "prefill_"


def signatures(prefill: tuple[int, ...]) -> dict[str, int]:
    """Return the number of tokens of each signature.

    >>> signatures((8, 128))
    {'prefill_8': 8, 'prefill_128': 128, 'decode': 1}

    Args:
        prefill: Numbers of tokens that are read at once.
    """
    return {**{f"{PREFILL}{length}": length for length in prefill}, DECODE: 1}


def save(
    model: LanguageModel, name: str, max_tokens: int, keys: Mapping[str, int], folder: Path,
    *, prefill_logits: bool,
) -> None:  # fmt: skip
    """Trace a language model for each signature, and save it.

    Args:
        model: The model.
        name: Its name, for errors.
        max_tokens: Tokens that the caches hold.
        keys: Signature -> its number of tokens.
        folder: The folder to write.
        prefill_logits: Whether the signatures that read a prompt give logits, too.

    Raises:
        ConversionError: It cannot be traced or saved.
    """
    import tensorflow as tf

    shapes = model.cache_shapes(max_tokens)
    caches = {part: shape for i, shape in enumerate(shapes) for part in _names(i)}
    traced = {}
    for key, length in keys.items():
        specs = {
            "tokens": tf.TensorSpec((1, length), "int32", name="tokens"),
            "input_pos": tf.TensorSpec((length,), "int32", name="input_pos"),
            **{part: tf.TensorSpec(shape, "float32", name=part) for part, shape in caches.items()},
        }
        serve = _serving(model, len(shapes), key == DECODE or prefill_logits)
        try:
            traced[key] = tf.function(serve, autograph=False).get_concrete_function(**specs)
        except Exception as error:
            raise ConversionError(
                f"Model '{name}' cannot be traced for {length} token(s): {error}"
            ) from error
    module = tf.Module()
    used = {id(t) for function in traced.values() for t in function.captured_inputs}
    variables = {id(v): v for function in traced.values() for v in function.variables}
    module.state = [v for v in variables.values() if id(v.handle) in used]
    try:
        with quiet():
            tf.saved_model.save(module, str(folder), signatures=traced)
    except Exception as error:
        raise_if_full(str(error))
        raise ConversionError(f"Model '{name}' cannot be exported: {error}") from error


def _serving(model: LanguageModel, layers: int, gives_logits: bool) -> Callable[..., Any]:
    """Return the function of a signature: tensors by name in, and out."""
    import tensorflow as tf

    def serve(**given: Any) -> dict[str, Any]:
        caches: list[Any] = [tuple(given[part] for part in _names(i)) for i in range(layers)]
        logits, updated = model.step(given["tokens"], given["input_pos"], caches)
        outputs = {"logits": logits} if gives_logits else {}
        for index, cache in enumerate(updated):
            outputs |= zip(_names(index), cache, strict=True)
        # With an identity each: an output may be an input.
        return {output: tf.identity(value) for output, value in outputs.items()}

    return serve


def _names(layer: int) -> tuple[str, str]:
    return f"kv_cache_k_{layer}", f"kv_cache_v_{layer}"
