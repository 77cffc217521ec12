"""`verify_generator`: a language model and its .tflite file on the same tokens."""

from __future__ import annotations

import os
from typing import Any

import keras

from tfcompress.converters.verified import Verification
from tfcompress.edge.arguments import check_seconds, refuse
from tfcompress.edge.errors import raised_by
from tfcompress.edge.generation.generator import check_tokens
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.system.tflite import check
from tfcompress.model.checks import check_built
from tfcompress.model.samples import Array

from .logits import file_logits, logit_errors, model_logits


def verify_generator(
    model: keras.Model,
    path: str | os.PathLike[str],
    tokens: Any,
    *,
    timeout: float | None = 600.0,
) -> Verification:
    """Compare the logits of a language model's file with those of a call of the model itself.

    Keras sees each sequence as a whole, without a cache. The file computes it twice, in a child
    process: token by token ("decode": the logits after each token), and with all but the last token
    read together, as `edge.Generator` does it ("prefill": the logits after the last token).

    >>> import keras, numpy as np
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(50, 8)])
    >>> converters.verify_generator(model, "nowhere.tflite", np.ones((1, 8), int))
    Traceback (most recent call last):
    ...
    tfcompress.edge.errors.ModelFileError: nowhere.tflite: there is no such file

    Args:
        model: The model that the file was made from.
        path: A file that `convert_generator` wrote.
        tokens: Integer array of shape (sequences, tokens): ids, at most `max_tokens` to a sequence.
        timeout: Seconds for the child process; None for no limit. Defaults to 600.

    Returns:
        The errors of the logits, for "decode" and "prefill".

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ModelRefused: The runtime cannot run the file, or died of it.
        TypeError: An argument has the wrong type.
        ValueError: The tokens cannot be used, or the file is no language model.
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    rows = _rows(tokens)
    file = check(path)
    model = check_built(model)
    try:
        found = file_logits(file, rows, timeout)
    except ChildFailure as failure:
        raise raised_by(failure, file) from None
    expected = model_logits(model, rows)
    if expected.shape != found.decode.shape:
        raise ValueError(
            f"{file} is not a file of model '{model.name}': it gives logits of shape "
            f"{found.decode.shape}, the model {expected.shape}"
        )
    return Verification(file, "xnnpack", len(rows), logit_errors(expected, found))


def _rows(tokens: Any) -> Array:
    """Return sequences of ids, or raise if they are none; each is checked by the file, too."""
    if getattr(tokens, "ndim", 0) != 2 or not tokens.size:
        refuse("tokens", "an integer array of shape (sequences, tokens)", tokens, _kind(tokens))
    return check_tokens(tokens.reshape(-1), 2**31 - 1).reshape(tokens.shape)


def _kind(tokens: Any) -> type[Exception]:
    return ValueError if hasattr(tokens, "ndim") else TypeError
