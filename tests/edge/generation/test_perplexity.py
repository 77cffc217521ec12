import numpy as np
import pytest

from tests.golden.test_golden import HERE
from tfcompress import edge

FILE = HERE / "language_model.tflite"


def reference(logits, targets):
    """Multiply probabilities, one token at a time."""
    chosen = [np.exp(row)[t] / np.exp(row).sum() for row, t in zip(logits, targets, strict=True)]
    return np.prod(chosen) ** (-1 / len(chosen))


def test_perplexity_is_that_of_the_logits_of_keras():
    with np.load(FILE.with_suffix(".npz")) as stored:
        tokens, logits = stored["tokens"][0], stored["logits"][0].astype(np.float64)
    # The error of float32 logits, 1e-5 of the peak.
    expected = reference(logits[:15], tokens[1:])
    assert edge.perplexity(FILE, tokens) == pytest.approx(expected, rel=1e-4)


def test_windows_predict_each_token_but_the_first_once():
    tokens = np.random.default_rng(1).integers(0, 50, 12)
    generator, done = edge.Generator(FILE), []
    rows = [*generator.logits(tokens[:5]), *generator.logits(tokens[5:10]),
            *generator.logits(tokens[10:11])]  # fmt: skip
    found = edge.perplexity(FILE, tokens, window=5, progress=lambda *counts: done.append(counts))
    assert found == pytest.approx(reference(np.float64(rows), tokens[1:]), rel=1e-6)
    assert done == [(5, 11), (10, 11), (11, 11)]


def test_a_single_token_and_a_window_larger_than_the_cache_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        edge.perplexity(FILE, [1])
    with pytest.raises(ValueError, match="from 1 to 16"):
        edge.perplexity(FILE, [1, 2], window=17)
