"""How well a file of a language model predicts a text."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import check_function, check_integer
from .generator import Generator, check_tokens


def perplexity(
    path: str | os.PathLike[str],
    tokens: Any,
    *,
    window: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> float:
    """Compute the perplexity of a text, from the .tflite file as it runs.

    That is `exp(mean(-log p))` over all tokens but the first, `p` being the probability that the
    file gives to a token after those before it. The text is read in windows; a token is predicted
    from those before it in its window only, as is usual for small models.

    >>> from tfcompress import edge
    >>> edge.perplexity("nowhere.tflite", [1, 2, 3])
    Traceback (most recent call last):
    ...
    tfcompress.edge.errors.ModelFileError: nowhere.tflite: there is no such file

    Args:
        path: A file that `converters.convert_generator` wrote. With `prefill_logits=True` it reads
            many tokens at once, which is several times as fast here.
        tokens: Ids of the text: a list or an integer array of one dimension, two or more.
        window: Tokens to a window. Defaults to None, as many as the cache holds.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        progress: Called with the number of tokens done and of tokens in all. Defaults to None.

    Returns:
        The perplexity: 1 if each token was certain, the size of the vocabulary for a random guess.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The runtime cannot run the file.
        TypeError: An argument has the wrong type.
        ValueError: The file is no language model, or a number is out of range.
    """
    if window is not None:
        check_integer("window", window, 1)
    if progress is not None:
        check_function("progress", progress, "done", "tokens")
    generator = Generator(path, threads)
    if window is not None:
        check_integer("window", window, 1, generator.max_tokens)
    ids = check_tokens(tokens, generator.vocabulary)
    if len(ids) < 2:
        raise ValueError("`tokens` must be two or more: the first one is predicted from nothing")
    size, total = window or generator.max_tokens, 0.0
    for start in range(0, len(ids) - 1, size):
        given = ids[start : min(start + size, len(ids) - 1)]
        total += surprise(generator.logits(given), ids[start + 1 : start + 1 + len(given)])
        if progress is not None:
            progress(start + len(given), len(ids) - 1)
    return math.exp(total / (len(ids) - 1))


def surprise(logits: Any, targets: Any) -> float:
    """Sum the negative logarithms of the probabilities of tokens.

    >>> import numpy as np
    >>> from tfcompress.edge.generation.perplexity import surprise
    >>> round(surprise(np.zeros((2, 4)), np.array([0, 3])), 6)  # twice log(4)
    2.772589

    Args:
        logits: Float array of shape (tokens, vocabulary).
        targets: Integer array of shape (tokens,): the ids that came.

    Returns:
        The sum, in nats.
    """
    wide = np.asarray(logits, np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    chosen = np.take_along_axis(wide, np.asarray(targets)[:, None], -1)[:, 0]
    return float(np.sum(np.log(np.exp(wide).sum(-1)) - chosen))
