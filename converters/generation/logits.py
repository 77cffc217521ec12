"""The logits of a language model's file, and those of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfcompress.converters.output_error import OutputError, compare
from tfcompress.edge.arrays import load_arrays, save_arrays
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.edge.targets.local import LOCAL
from tfcompress.model.samples import Array

from .protocol import LanguageModel


class Logits(NamedTuple):
    """The logits of a file for rows of tokens.

    Attributes:
        decode: After each token, where they are computed one by one: shape (rows, tokens,
            vocabulary).
        prefill: After the last token, where those before it are read together: shape (rows,
            vocabulary).
    """

    decode: Array
    prefill: Array


def file_logits(path: Path, rows: Array, timeout: float | None) -> Logits:
    """Run a file in a child process.

    Args:
        path: The file.
        rows: int32 array of shape (rows, tokens).
        timeout: Seconds to wait; None for no limit.

    Returns:
        Its logits.

    Raises:
        ChildFailure: The file is no language model, the runtime fails on it, or it takes too long.
    """
    with scratch_folder() as folder, LOCAL.session([path]) as session:
        tokens, out = folder / "tokens.npz", folder / "logits.npz"
        save_arrays(tokens, [rows])
        session.child.request(
            "logits", timeout, path=session.paths[0], tokens=str(tokens), out=str(out)
        )
        return Logits(*load_arrays(out))


def step_logits(model: LanguageModel, row: Array) -> Array:
    """Compute the logits after each token of a row, by the model's own step.

    Args:
        model: The model.
        row: int32 array of shape (tokens,).

    Returns:
        An array of shape (tokens, vocabulary).
    """
    caches = [(ops.zeros(s), ops.zeros(s)) for s in model.cache_shapes(len(row))]
    positions = ops.arange(len(row), dtype="int32")
    logits, _ = model.step(ops.convert_to_tensor(row[None]), positions, caches)
    return np.asarray(ops.convert_to_numpy(logits)[0])


def model_logits(model: Any, rows: Array) -> Array:
    """Compute the logits after each token, by a call of the model without a cache.

    Args:
        model: A causal language model of KerasHub, or a model that maps token ids to logits.
        rows: int32 array of shape (rows, tokens).

    Returns:
        An array of shape (rows, tokens, vocabulary).
    """
    given: Any = rows
    if hasattr(model, "call_with_cache"):
        given = {"token_ids": rows, "padding_mask": np.ones_like(rows)}
    return np.asarray(ops.convert_to_numpy(model(given, training=False)))


def logit_errors(expected: Array, found: Logits) -> tuple[OutputError, OutputError]:
    """Compute how far the logits of a file are from the model's.

    Args:
        expected: The model's, of shape (rows, tokens, vocabulary).
        found: The file's.

    Returns:
        The errors of "decode" and of "prefill". The tokens of a vocabulary are no channels, each
        with a variation of its own: `channel_r2` is empty.
    """
    decode = compare("decode", expected, found.decode, None)
    prefill = compare("prefill", expected[:, -1], found.prefill, None)
    return replace(decode, channel_r2=()), replace(prefill, channel_r2=())
