"""Generate tokens with a .tflite file of a language model."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import check_bool, check_each, check_integer, check_threads, refuse
from ..system import tflite
from ..tensors import Array
from .engine import CacheEngine
from .sampling import Sampling, draw

_ENDED = "another call of this Generator has begun, and has the cache: load the file twice"


class Generator:
    """Load a language model once, and generate tokens with it, on the CPU.

    The file is one that `converters.convert_generator` wrote: signatures `prefill_N`, which read N
    tokens of a prompt at once, and `decode`, which computes one token from those in its cache.
    NumPy and a LiteRT runtime are all that is needed; tflite-runtime will do.

    A Generator serves one thread at a time. The file runs in this process.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> edge.Generator(PROBE)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...probe.tflite is no language model as convert_generator writes them: it has ...

    Args:
        path: The .tflite file.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        quiet: Whether to hold the runtime's console output back. Defaults to True.

    Attributes:
        max_tokens: Most tokens of a prompt and its continuation together.
        vocabulary: Number of different tokens.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The runtime cannot load the file.
        TypeError: An argument has the wrong type.
        ValueError: The file is no language model, or a number is out of range.
        ImportError: No LiteRT runtime is installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], threads: int | None = None, *, quiet: bool = True
    ) -> None:
        self.threads = check_threads(threads)
        check_bool("quiet", quiet)
        self.path = tflite.check(path)
        self._engine = CacheEngine(self.path, self.threads, quiet)
        self._turn = 0
        self.max_tokens: int = self._engine.max_tokens
        self.vocabulary: int = self._engine.vocabulary

    def __repr__(self) -> str:
        return f"Generator({os.fspath(self.path)!r}, threads={self.threads})"

    def generate(
        self,
        tokens: Any,
        new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Sequence[int] = (),
    ) -> Iterator[int]:
        """Continue a prompt, token by token.

        Each token is there as soon as it is computed: `for token in generator.generate(prompt)`
        streams, and `list(...)` waits for all. Another call begins anew, and ends this one.

        Args:
            tokens: Ids of the prompt: a list or an integer array of one dimension, at most
                `max_tokens` long.
            new_tokens: Most tokens to generate. Defaults to None: until the cache is full.
            temperature: What logits are divided by before one is drawn. Defaults to 0, the most
                likely token at each step.
            top_k: Number of the most likely tokens to draw from. Defaults to None, all.
            top_p: Share of probability of the most likely tokens to draw from. Defaults to None,
                all.
            seed: Seed of the draws. Defaults to 0.
            stop: Ids that end the answer; they are not part of it. Defaults to none.

        Returns:
            An iterator over the ids.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A number is out of range, or the prompt is empty or too long.
            ModelRefused: The runtime failed to run the model.
        """
        prompt = check_tokens(tokens, self.vocabulary, self.max_tokens)
        room = self.max_tokens - len(prompt) + 1
        if new_tokens is not None:
            room = min(check_integer("new_tokens", new_tokens, 1), room)
        how = Sampling(temperature, top_k, top_p)
        rng = np.random.default_rng(check_integer("seed", seed, 0))
        check_each("stop", stop, (int, np.integer), "the id of a token")
        for index, token in enumerate(stop):
            check_integer(f"stop[{index}]", token, 0, self.vocabulary - 1)
        self._turn += 1
        return self._continue(prompt, room, how, rng, frozenset(map(int, stop)), self._turn)

    def _continue(
        self,
        prompt: Array,
        room: int,
        how: Sampling,
        rng: np.random.Generator,
        stop: frozenset[int],
        turn: int,
    ) -> Iterator[int]:
        if turn != self._turn:
            raise RuntimeError(_ENDED)
        logits = self._read(prompt)
        for position in range(len(prompt), len(prompt) + room):
            token = draw(logits, how, rng)
            if token in stop:
                return
            yield token
            if turn != self._turn:
                raise RuntimeError(_ENDED)
            if position + 1 < len(prompt) + room:
                logits = self._decode(token, position)

    def logits(self, tokens: Any, *, last: bool = False) -> Array:
        """Compute the logits after each token of a sequence, or after the last one.

        Without `last`, the tokens are read together where the signatures for it give logits
        (`convert_generator(prefill_logits=True)`), and else one by one.

        Args:
            tokens: Ids: a list or an integer array of one dimension, at most `max_tokens` long.
            last: Whether to compute those after the last token only, as `generate` does. Defaults
                to False.

        Returns:
            A float array of shape (tokens, vocabulary), or (vocabulary,) with `last`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: There is no token, there are too many, or an id is out of range.
            ModelRefused: The runtime failed to run the model.
        """
        check_bool("last", last)
        ids = check_tokens(tokens, self.vocabulary, self.max_tokens)
        self._turn += 1
        if last:
            return self._read(ids)
        told = [length for length, gives in self._engine.prefill.items() if gives]
        parts = [
            self._engine.run(ids[start : start + length], start, length)
            for start, length in plan(len(ids), told, self.max_tokens)
        ]
        return np.concatenate([part for part in parts if part is not None])

    def _read(self, prompt: Array) -> Array:
        """Fill the cache with a prompt; return the logits after it."""
        last = len(prompt) - 1
        for start, length in plan(last, list(self._engine.prefill), self.max_tokens):
            self._engine.run(prompt[start : min(start + length, last)], start, length)
        return self._decode(int(prompt[last]), last)

    def _decode(self, token: int, position: int) -> Array:
        logits = self._engine.run(np.array([token], np.int32), position, 1)
        assert logits is not None  # `decode` gives them, which the engine has checked
        first: Array = logits[0]
        return first


def check_tokens(tokens: Any, vocabulary: int, most: int | None = None) -> Array:
    """Return ids as an int32 array, or raise if they are none.

    Args:
        tokens: What was given.
        vocabulary: Number of different tokens.
        most: Largest number of ids; None for any. Defaults to None.

    Returns:
        An array of one dimension.

    Raises:
        TypeError: It is no list of integers.
        ValueError: It is empty or too long, or an id is out of range.
    """
    wanted = "a list of one or more token ids, or an integer array of one dimension"
    if not isinstance(tokens, list | tuple | np.ndarray):
        refuse("tokens", wanted, tokens, TypeError)
    try:
        ids = np.asarray(tokens)
    except (ValueError, OverflowError):  # lists of different lengths
        refuse("tokens", wanted, tokens)
    if ids.ndim != 1 or not ids.size:
        refuse("tokens", wanted, tokens)
    if ids.dtype.kind not in "iu":
        refuse("tokens", wanted, tokens, TypeError)
    if ids.min() < 0 or ids.max() >= vocabulary:
        refuse("tokens", f"ids from 0 to {vocabulary - 1}", tokens)
    if most is not None and len(ids) > most:
        raise ValueError(
            f"`tokens` must be at most {most} ids, as many as the cache holds. Received: "
            f"{len(ids)}. Convert the model with a larger max_tokens, or give the last ones only"
        )
    return ids.astype(np.int32)


def plan(count: int, lengths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Choose the signatures that read tokens: the smallest that takes all, or the largest there is.

    A signature writes as many places of the cache as it takes tokens. Where these would reach over
    its end, a smaller one is taken.

    >>> from tfcompress.edge.generation.generator import plan
    >>> plan(13, [4, 8], room=16)
    [(0, 8), (8, 8)]
    >>> plan(15, [8], room=15)
    [(0, 8), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1), (13, 1), (14, 1)]

    Args:
        count: Number of tokens.
        lengths: Numbers of tokens of the signatures, besides that for a single one.
        room: Places of the cache.

    Returns:
        Start and number of tokens of each run.
    """
    runs, start = [], 0
    while start < count:
        fitting = [length for length in lengths if start + length <= room]
        whole = [length for length in fitting if length >= count - start]
        length = min(whole, default=max(fitting, default=1))
        if count - start == 1:
            length = 1
        runs.append((start, length))
        start += length
    return runs
