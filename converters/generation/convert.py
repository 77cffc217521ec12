"""`convert_generator`: a language model -> one .tflite file with prefill and decode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfcompress.converters.checks import check_output
from tfcompress.converters.converted import Converted
from tfcompress.converters.errors import ConversionError
from tfcompress.converters.file.model import Inspection
from tfcompress.converters.finishing import Finished, Lowered, finish
from tfcompress.converters.kernel_choice import weight_pass
from tfcompress.converters.output_error import OutputError
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.float32 import Float32
from tfcompress.converters.precisions.registry import check_precision
from tfcompress.converters.preparation import PathLike
from tfcompress.converters.rewriting import ask
from tfcompress.converters.runtimes import parse_release
from tfcompress.edge.arguments import check_bool, check_integer, check_seconds, refuse
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import raise_if_full, scratch_folder
from tfcompress.model.checks import check_built, check_finite
from tfcompress.model.errors import ModelError
from tfcompress.model.layers import all_layers

from .language_model import CachedModel, language_model
from .logits import file_logits, logit_errors, step_logits
from .protocol import LanguageModel
from .saved_model import save, signatures

_TRIED = 12
"""Tokens on which a file is compared with its model: some read together, some one by one."""

_LEAST_SNR = {"float": 40.0, "rounded": 10.0}
"""In dB. float16 gives 60, int8 30 and int4 15 or more on untrained models; below 10 dB, a third
of the spread of the logits is lost."""


def convert_generator(
    model: keras.Model,
    path: PathLike,
    *,
    max_tokens: int,
    prefill: Sequence[int] = (128,),
    precision: Precision | str = Float32(),  # noqa: B008 - frozen
    prefill_logits: bool = False,
    runtime: str | None = None,
    timeout: float | None = 1800.0,
) -> Converted:
    """Write a causal language model as one .tflite file that generates text on a device.

    The file has a signature `prefill_N` for each N of `prefill`, which reads N tokens of a prompt
    at once, and `decode`, which computes one token. Both work on a key-value cache: `kv_cache_k_I`
    and `kv_cache_v_I` of shape (1, heads, max_tokens, head width) for each layer I go in and come
    out. Beside them `tokens` and `input_pos` go in, and `logits` come out: the names and shapes of
    LiteRT-LM. All signatures share their weights. `edge.Generator` runs the file.

    A model is read in one of three ways. Of GPT-2, OPT, Llama, Mistral, Qwen, Gemma and Phi-3 in
    KerasHub, the graph is made block by block, with a cache for each layer, which is fast. Other
    models of KerasHub are traced through their `call_with_cache`, which is several times as slow,
    as it slices one cache for all layers; `Converted.notes` says so. They are refused if it gives
    other logits one token at a time than for the same tokens together. A model of your own has the
    two methods of `LanguageModel`. The finished file is compared with the model on a few tokens.

    >>> import keras
    >>> from tfcompress import converters
    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="net")
    >>> converters.convert_generator(net, "lm.tflite", max_tokens=64, prefill=[16])
    Traceback (most recent call last):
    ...
    tfcompress.converters.errors.ConversionError: Model 'net' is a Sequential, which keeps no ...

    Args:
        model: A causal language model of KerasHub in float32, or a model with the methods of
            `LanguageModel`. It is not changed.
        path: The file to write. It ends in ".tflite", and its folder exists.
        max_tokens: Tokens of a prompt and its continuation together: the length of the cache, which
            is computed with, and copied, as a whole.
        prefill: Numbers of tokens that are read at once, each from 2 to `max_tokens`. A shorter
            rest of a prompt is padded. Defaults to (128,).
        precision: `Float32()`, `Float16()`, `DynamicInt8()` or `WeightOnly(bits=8 or 4)`, which
            stores embeddings in integers, too; or the name of one, such as "dynamic_int8". Defaults
            to `Float32()`.
        prefill_logits: Whether `prefill_N` gives the logits after each of its tokens, too, which
            makes `edge.perplexity` several times as fast, and the reading of prompts slower.
            Defaults to False.
        runtime: Release of the oldest runtime that must load the file, such as "2.14". Defaults to
            None: you are warned if release 2.14 would refuse the file.
        timeout: Seconds for each child process; None for no limit. Defaults to 1800.

    Returns:
        The file. `outputs` says how far the logits are from the model's, on a few tokens.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The path or a number cannot be used.
        PermissionError: The folder of `path` may not be written in.
        ConversionError: The model keeps no cache, cannot be converted, or not to this precision.
    """
    target = check_output("path", path)
    max_tokens = check_integer("max_tokens", max_tokens, 2)
    lengths = _check_prefill(prefill, max_tokens)
    precision = check_precision(precision)
    check_bool("prefill_logits", prefill_logits)
    release = None if runtime is None else parse_release(runtime)
    if timeout is not None:
        check_seconds("timeout", timeout)
    if release is not None:
        precision = precision.for_runtime(release)
    _check_serves(precision)
    try:
        check_built(model)
        check_finite(model)
    except ModelError as error:
        raise ConversionError(str(error)) from error
    _check_float32(model)
    _check_positions(model, max_tokens)
    stepped = language_model(model)
    with scratch_folder() as folder:
        keys = signatures(lengths)
        saved = folder / "saved_model"
        save(stepped, model.name, max_tokens, keys, saved, prefill_logits=prefill_logits)
        low = _lower(model.name, saved, list(keys), precision, timeout)
        passes = (*precision.passes(), *weight_pass(model, precision, {}))
        [new] = finish({target: low}, [passes], None, release, timeout)
        errors = _compare(stepped, model.name, new, max_tokens, precision, timeout)
        write_whole({target: new.content})
    for text in (new.note, *_faults(target, precision, errors)):
        if text:
            warnings.warn(text, stacklevel=2)
    return Converted(
        target,
        len(new.content),
        precision,
        kept_weights=new.kept_weights,
        notes=(_SLOW,) if isinstance(stepped, CachedModel) else (),
        outputs=errors,
    )


_SLOW = (
    "The model is traced through its `call_with_cache`, which slices one cache for all layers in "
    "each step. The methods of converters.LanguageModel, in a subclass of it, make it faster."
)


def _check_prefill(prefill: Any, most: int) -> tuple[int, ...]:
    wanted = f"a list of one or more different integers from 2 to {most}, which is max_tokens"
    if not isinstance(prefill, list | tuple):
        refuse("prefill", wanted, prefill, TypeError)
    lengths = [check_integer(f"prefill[{i}]", n, 2, most) for i, n in enumerate(prefill)]
    if not lengths or len(set(lengths)) < len(lengths):
        refuse("prefill", wanted, prefill)
    return tuple(sorted(lengths))


def _check_serves(precision: Precision) -> None:
    """Check that a precision needs no ranges of activations: nothing measures them in a cache."""
    if (
        precision.needs_ranges
        or precision.calibration_data() is not None
        or precision.kernels() is not None
    ):
        raise ConversionError(
            f"{type(precision).__name__} rounds activations to ranges that samples set, and a "
            "language model reads its own outputs through a cache. Use Float32(), Float16(), "
            "DynamicInt8() or WeightOnly(bits=8 or 4)."
        )


def _check_float32(model: keras.Model) -> None:
    for layer in all_layers(model):
        if layer.compute_dtype not in ("float32", None):
            raise ConversionError(
                f"Layer '{layer.name}' of model '{model.name}' computes in {layer.compute_dtype}. "
                "A language model is converted from float32: load it with dtype='float32', as in "
                "GPT2CausalLM.from_preset(name, dtype='float32')."
            )


def _check_positions(model: Any, max_tokens: int) -> None:
    """Check that a model has a position for each token of the cache."""
    for layer in all_layers(model):
        table = getattr(layer, "position_embeddings", None)
        shape: tuple[int, ...] = tuple(getattr(table, "shape", ()))
        if len(shape) == 2 and shape[0] < max_tokens:
            raise ConversionError(
                f"Layer '{layer.name}' of model '{model.name}' knows {shape[0]} positions. "
                f"Received: max_tokens={max_tokens}."
            )


def _lower(
    name: str, saved: Path, keys: list[str], precision: Precision, timeout: float | None
) -> Lowered:
    """Run the TensorFlow converter in a child process."""
    out = saved.with_name("made.tflite")
    request = {
        "saved_model": str(saved),
        "out": str(out),
        "options": precision.converter_options().to_dict(),
        "signatures": keys,
    }
    start = f"Model '{name}' cannot be converted to {precision.name}"
    reply = ask("jobs.generator", request, saved.parent, timeout, start)
    if "error" in reply:
        raise_if_full(reply["error"])
        raise ConversionError(f"{start}: {reply['error']}")
    found = Inspection.from_description(out, reply["file"])
    if found.load_error:
        raise ConversionError(f"{start}: the runtime does not load the file: {found.load_error}")
    return Lowered(found, (), {})


def _compare(
    model: LanguageModel,
    name: str,
    new: Finished,
    max_tokens: int,
    precision: Precision,
    timeout: float | None,
) -> tuple[OutputError, ...]:
    """Run the file on a few tokens, and compare it with the model."""
    path = new.dense.path
    place = next(s for s in new.dense.signatures if s.key == "decode").outputs["logits"]
    vocabulary = new.dense.tensors[place].shape[-1] or 2
    rng = np.random.default_rng(0)
    row = rng.integers(0, vocabulary, min(_TRIED, max_tokens)).astype(np.int32)
    try:
        found = file_logits(path, row[None], timeout)
    except ChildFailure as failure:
        raise ConversionError(
            f"The file of model '{name}' was made, but does not run: {failure.reason}"
        ) from failure
    expected = step_logits(model, row)
    errors = logit_errors(expected[None], found)
    for error in errors:
        if not _is_rounded(precision) and not error.snr_db >= _LEAST_SNR["float"]:
            raise ConversionError(
                f"The file of model '{name}' does not compute what the model does: its logits of "
                f"'{error.name}' differ by up to {error.max_error:g}. In a model of your own, see "
                "whether `step` writes to the cache at `positions`, and hides what is later."
            )
    return errors


def _is_rounded(precision: Precision) -> bool:
    passes = {step.module for step in precision.passes()} - {"float16"}
    options = precision.converter_options()
    return precision.weights() is not None or bool(options.optimizations or passes)


def _faults(path: Path, precision: Precision, errors: Sequence[OutputError]) -> list[str]:
    return [
        f"{path.name}: the logits of '{error.name}' are far from the model's: a signal-to-noise "
        f"ratio of {error.snr_db:.1f} dB. Use more bits, or blocks: WeightOnly(bits=4, block=32, "
        'activations="float32")'
        for error in errors
        if _is_rounded(precision) and not error.snr_db >= _LEAST_SNR["rounded"]
    ]
