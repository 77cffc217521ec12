import numpy as np
import pytest

from tests.golden.test_golden import HERE
from tfcompress import edge
from tfcompress.edge.generation.generator import plan
from tfcompress.edge.system.tflite import PROBE

FILE = HERE / "language_model.tflite"


@pytest.fixture(scope="module")
def generator():
    return edge.Generator(FILE)


@pytest.fixture(scope="module")
def stored():
    with np.load(FILE.with_suffix(".npz")) as found:
        return found["tokens"], found["logits"]


def test_a_generator_knows_its_file(generator):
    assert (generator.max_tokens, generator.vocabulary) == (16, 50)
    assert repr(generator) == f"Generator('{FILE}', threads=None)"


def test_logits_are_those_of_keras_read_together_or_one_by_one(generator, stored):
    for tokens, expected in zip(*stored, strict=True):
        # float32 sums in another order: 1e-5 of the peak.
        peak = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(generator.logits(tokens), expected, rtol=0, atol=peak)
        for count in (1, 2, 5, 9, 13, 16):  # with padding, without, and at the end of the cache
            last = generator.logits(tokens[:count], last=True)
            np.testing.assert_allclose(last, expected[count - 1], rtol=0, atol=peak)


def test_generation_is_greedy_and_fills_the_cache(generator, stored):
    prompt = list(map(int, stored[0][0][:5]))
    found = list(generator.generate(prompt))
    assert len(found) == 16 - 5 + 1
    for count in range(len(found)):
        logits = generator.logits(prompt + found[:count], last=True)
        assert found[count] == int(np.argmax(logits))
    assert list(generator.generate(np.array(prompt), 3)) == found[:3]
    end = next(i for i in range(1, len(found)) if found[i] not in found[:i])
    assert list(generator.generate(prompt, stop=[found[end]])) == found[:end]


def test_draws_follow_the_seed(generator):
    def drawn(seed):
        return list(generator.generate([1, 2], temperature=3.0, top_k=20, top_p=0.99, seed=seed))

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_new_call_ends_the_one_before(generator):
    first = generator.generate([1, 2, 3])
    next(first)
    list(generator.generate([4]))
    with pytest.raises(RuntimeError, match="load the file twice"):
        next(first)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "one or more token ids"),
        ([1.5], "one or more token ids"),
        ([[1], [2, 3]], "one or more token ids"),
        ([50], "ids from 0 to 49"),
        ([-1], "ids from 0 to 49"),
        ([1] * 17, "at most 16 ids, as many as the cache holds"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(generator, tokens, message):
    with pytest.raises((TypeError, ValueError), match=message):
        generator.generate(tokens)


def test_a_file_without_decode_is_refused():
    with pytest.raises(ValueError, match=r"no language model .* and no 'decode'"):
        edge.Generator(PROBE)


def test_a_plan_reads_all_tokens_once_and_stays_in_the_cache():
    for lengths in ([], [4], [4, 8], [16]):
        for count in range(17):
            runs = plan(count, lengths, room=16)
            read = [range(start, min(start + length, count)) for start, length in runs]
            assert [place for part in read for place in part] == list(range(count))
            assert all(start + length <= 16 for start, length in runs)
