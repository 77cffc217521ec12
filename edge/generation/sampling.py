"""From logits to the next token."""

from dataclasses import dataclass

import numpy as np

from ..arguments import check_integer, check_number
from ..tensors import Array


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
    order = np.argsort(-logits, kind="stable")
    result = np.zeros(logits.shape)
    if how.temperature == 0:
        result[order[0]] = 1.0
        return result
    kept = order[: how.top_k]
    scores = logits[kept].astype(np.float64)
    # The largest is taken off before the division, which may then give no more than 0.
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores[0]) / how.temperature)
    weights /= weights.sum()
    if how.top_p is not None:
        count = int(np.searchsorted(np.cumsum(weights), how.top_p)) + 1
        kept, weights = kept[:count], weights[:count] / weights[:count].sum()
    result[kept] = weights
    return result


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
    if how.temperature == 0:
        return int(np.argmax(logits))
    return int(rng.choice(len(logits), p=probabilities(logits, how)))
