import numpy as np
import pytest

from tfcompress.edge.generation.sampling import Sampling, draw, probabilities

LOGITS = np.random.default_rng(0).normal(size=40) * 2
MANY = np.random.default_rng(1).integers(0, 9, 3000) / 4


def reference(logits, temperature, top_k, top_p):
    """Rank, keep and renormalize one token at a time."""
    weights = [np.exp(x / temperature) for x in logits]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])[:top_k]
    total, kept, mass = sum(weights[i] for i in ranked), [], 0.0
    for i in ranked:
        if top_p is None or mass < top_p:
            kept.append(i)
            mass += weights[i] / total
    result = np.zeros(len(weights))
    for i in kept:
        result[i] = weights[i] / sum(weights[j] for j in kept)
    return result


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 7])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.95])
def test_probabilities_match_a_reference(temperature, top_k, top_p):
    found = probabilities(LOGITS, Sampling(temperature, top_k, top_p))
    np.testing.assert_allclose(found, reference(LOGITS, temperature, top_k, top_p), atol=1e-12)


@pytest.mark.parametrize("top_k", [None, 500])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
def test_many_tokens_of_which_most_are_equally_likely(top_k, top_p):
    found = probabilities(MANY, Sampling(1.0, top_k, top_p))
    kept = np.count_nonzero(reference(MANY, 1.0, top_k, top_p))
    # Sums in another order: one token more or less.
    assert abs(np.count_nonzero(found) - kept) <= 1
    assert found.sum() == pytest.approx(1)
    assert MANY[found > 0].min() >= np.sort(MANY)[-kept - 1]


def test_greedy_takes_the_first_of_the_most_likely():
    logits = np.float32([1, 3, 3, 2])
    np.testing.assert_array_equal(probabilities(logits, Sampling()), [0, 1, 0, 0])
    assert draw(logits, Sampling(), np.random.default_rng(0)) == 1
    # So low a temperature divides to infinity.
    np.testing.assert_array_equal(probabilities(logits[1:], Sampling(1e-320)), [0.5, 0.5, 0])


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN for a logit"):
        draw(np.float32([0, np.nan]), Sampling(), np.random.default_rng(0))


def test_draws_are_as_frequent_as_their_probabilities():
    how, rng = Sampling(1.0, top_k=4), np.random.default_rng(0)
    counts = np.bincount([draw(LOGITS, how, rng) for _ in range(4000)], minlength=40)
    # Four standard deviations of a frequency of a half among 4,000.
    np.testing.assert_allclose(counts / 4000, probabilities(LOGITS, how), atol=0.032)
