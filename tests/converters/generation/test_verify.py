import numpy as np
import pytest

from tests.golden.test_golden import HERE
from tests.zoo.language_models import by_hand
from tfcompress import converters

FILE = HERE / "language_model.tflite"


def test_a_file_of_an_earlier_version_computes_what_keras_does():
    with np.load(FILE.with_suffix(".npz")) as stored:
        tokens = stored["tokens"]
    found = converters.verify_generator(by_hand(), FILE, tokens)
    assert (found.samples, [error.name for error in found.outputs]) == (2, ["decode", "prefill"])
    found.raise_if_above(max_error=1e-5, top1_below=1)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones(4, int), r"of shape \(sequences, tokens\)"),
        (np.full((1, 4), 50), "ids from 0 to 49"),
        (np.ones((1, 17), int), "at most 16 ids"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        converters.verify_generator(by_hand(), FILE, tokens)


def test_verify_says_what_compares_a_language_model():
    with pytest.raises(ValueError, match="by verify_generator"):
        converters.verify(by_hand(), FILE, np.ones((1, 4), "int32"))
