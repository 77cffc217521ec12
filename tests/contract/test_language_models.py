"""Causal language models of KerasHub generate on the device what they generate in Keras."""

import numpy as np
import pytest

from tests.zoo.language_models import FAMILIES, ROOM, VOCABULARY, causal_lm
from tfcompress import converters, edge

IN_CI = {"GPT-2": (), "Llama": pytest.mark.slow("converts"), "Gemma": pytest.mark.slow("converts")}
NAMES = [pytest.param(name, marks=IN_CI.get(name, pytest.mark.large)) for name in FAMILIES]


def greedy(model, prompt):
    """Return what Keras' own `generate` adds to a prompt, until the cache is full."""
    ids, mask = np.zeros((2, 1, ROOM), "int32")
    ids[0, : len(prompt)], mask[0, : len(prompt)] = prompt, 1
    model.compile(sampler="greedy", jit_compile=False)
    given = {"token_ids": ids, "padding_mask": mask.astype(bool)}
    if hasattr(model.backbone, "vision_encoder"):  # Gemma 3, which gives the images back
        given["images"] = np.zeros((1, 0, 1, 1, 3), "float32")
    answer = model.generate(given, stop_token_ids=None)
    return list(map(int, answer["token_ids"][0, len(prompt) :]))


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_are_those_of_keras(name, tmp_path):
    model = causal_lm(name)
    file = converters.convert_generator(
        model, tmp_path / "lm.tflite", max_tokens=ROOM, prefill=(4,)
    )
    assert bool(file.notes) == (name == "Bloom")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, ROOM))
    # float32 in another order: 1e-5 of logits of about 1.
    converters.verify_generator(model, file, tokens).raise_if_above(max_error=1e-4)
    prompt = [3, 1, 4, 1, 5, 9, 2]
    assert list(edge.Generator(file).generate(prompt))[: ROOM - 7] == greedy(model, prompt)


@pytest.mark.slow("converts, and runs two files a token")
def test_a_decoder_over_two_files_gives_the_tokens_of_one(tmp_path):
    shapes = dict.fromkeys(("token_ids", "padding_mask"), (1, ROOM))
    whole = converters.convert(causal_lm("GPT-2"), tmp_path / "lm.tflite", input_shapes=shapes)
    middle = len(converters.inspect(whole).nodes) // 2
    parts = converters.split(whole, tmp_path / "1.tflite", tmp_path / "2.tflite", at=middle)
    one, *relay = (edge.Runner(path) for path in (whole, parts.first, parts.second))

    def generated(runners):
        ids = [3, 1, 4, 1, 5]
        while len(ids) < ROOM:
            row = np.array([ids + [0] * (ROOM - len(ids))], "int32")
            given = {"token_ids": row, "padding_mask": np.ones_like(row)}
            for runner in runners:
                given |= runner.named({info.name: given[info.name] for info in runner.inputs})
            [end] = runners[-1].outputs
            ids.append(int(given[end.name][0, len(ids) - 1].argmax()))
        return ids

    assert generated(relay) == generated([one])
