"""From logits to the next token."""

from dataclasses import dataclass

import numpy as np

from ..arguments import check_integer, check_number
from ..tensors import Array

_FIRST = 256
"""Tokens among which those of `top_p` are looked for first."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: What logits are divided by; 0 takes the most likely token.
        top_k: Number of the most likely tokens to draw from; None for all.
        top_p: Share of probability of the most likely tokens to draw from; None for all of it.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0)
        if self.top_k is not None:
            check_integer("top_k", self.top_k, 1)
        if self.top_p is not None:
            check_number("top_p", self.top_p, most=1, above=0)


def probabilities(logits: Array, how: Sampling) -> Array:
    """Compute the probability with which each token is drawn.

    First the `top_k` most likely tokens are kept, then the fewest of these whose probabilities sum
    to `top_p` (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751). Of equally likely tokens,
    those of the smaller ids are kept.

    >>> import numpy as np
    >>> from tfcompress.edge.generation.sampling import Sampling, probabilities
    >>> probabilities(np.log([0.5, 0.3, 0.2]), Sampling(1.0, top_p=0.6)).round(3)
    array([0.625, 0.375, 0.   ])

    Args:
        logits: Float array of shape (vocabulary,).
        how: How to draw.

    Returns:
        A float64 array of the same shape, whose sum is 1.
    """
    result = np.zeros(logits.shape)
    kept, weights = _candidates(logits, how)
    result[kept] = weights
    return result


def _candidates(logits: Array, how: Sampling) -> tuple[Array, Array]:
    """Return the tokens to draw from, and their probabilities."""
    if how.temperature == 0:
        return np.argmax(logits, keepdims=True), np.ones(1)
    kept = np.arange(len(logits)) if how.top_k is None else most_likely(logits, how.top_k)
    scores = logits[kept].astype(np.float64)
    # The largest is taken off before the division, which may then give no more than 0.
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores.max()) / how.temperature)
    weights /= weights.sum()
    if how.top_p is not None:
        size = _FIRST
        while True:
            order = most_likely(weights, size)
            mass = np.cumsum(weights[order])
            if mass[-1] >= how.top_p or size >= len(kept):
                break
            size *= 8
        order = order[: int(np.searchsorted(mass, how.top_p)) + 1]
        kept, weights = kept[order], weights[order] / weights[order].sum()
    return kept, weights


def most_likely(values: Array, count: int) -> Array:
    """Return where the largest values are, the largest first; equal ones in their order.

    Only these are sorted: a vocabulary may have a quarter of a million tokens.

    >>> import numpy as np
    >>> from tfcompress.edge.generation.sampling import most_likely
    >>> most_likely(np.array([1, 5, 3, 5, 3]), 3)
    array([1, 3, 2])

    Args:
        values: Array of one dimension.
        count: How many; all, if there are fewer.

    Returns:
        Their indices.
    """
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: count - len(above)]
    found: Array = np.concatenate([above[np.argsort(-values[above], kind="stable")], equal])
    return found


def draw(logits: Array, how: Sampling, rng: np.random.Generator) -> int:
    """Draw the next token.

    Args:
        logits: Float array of shape (vocabulary,).
        how: How to draw.
        rng: Source of chance.

    Returns:
        Its id.

    Raises:
        ValueError: A logit is NaN.
    """
    if np.isnan(logits).any():
        raise ValueError("the model gives NaN for a logit, so that no token can be chosen")
    kept, weights = _candidates(logits, how)
    sums = np.cumsum(weights)
    # The product may be rounded up to the whole sum.
    place = min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)
    return int(kept[place])
