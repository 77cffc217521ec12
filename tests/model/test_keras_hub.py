"""What is cut goes back into a class of KerasHub, where that has arguments for it."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tests.contract.test_language_models import greedy
from tests.zoo.keras_hub import family
from tests.zoo.language_models import ROOM, causal_lm

TOKENS = {
    "token_ids": np.arange(ROOM, dtype="int32")[None],
    "padding_mask": np.ones((1, ROOM), "int32"),
}


def cut(like, **options):
    inputs = {name: keras.Input((ROOM,), dtype="int32", name=name) for name in TOKENS}
    model = keras.Model(inputs, like(inputs))
    return tfc.prune_channels(model, 0.5, round_to=1, **options)


@pytest.mark.slow("opens blocks again and again")
@pytest.mark.parametrize(
    ("name", "options", "arguments"),
    [
        ("GPT-2", {"filters": "intermediate"}, {"intermediate_dim": 32}),
        ("Llama", {"filters": "feedforward"}, {"intermediate_dim": 32}),
        ("Gemma", {"filters": "ffw"}, {"intermediate_dim": 32}),
    ],
)
def test_a_language_model_generates_what_the_smaller_model_says(name, options, arguments):
    like = causal_lm(name)
    small = cut(like, **options)
    made = tfc.as_keras_hub(small, like=like)
    assert type(made) is type(like)
    config = like.backbone.get_config()
    found = made.backbone.get_config()
    assert {key: found[key] for key in found if found[key] != config[key]} == arguments
    np.testing.assert_array_equal(made(TOKENS), small(TOKENS))

    prompt = [3, 1, 4, 1, 5]
    answer = greedy(made, prompt)
    ids = np.array([prompt + answer], "int32")
    scores = np.asarray(small({**TOKENS, "token_ids": ids}))
    # The cache computes in another order.
    best = scores.max(-1)[0, len(prompt) - 1 : -1]
    np.testing.assert_allclose(scores[0, range(len(prompt) - 1, ROOM - 1), answer], best, atol=1e-4)


@pytest.mark.slow("opens blocks again and again")
@pytest.mark.parametrize("name", ["GPT-2", "Gemma"])
def test_a_cut_vocabulary_is_given_back_and_generates(name):
    like = causal_lm(name)
    inputs = {name: keras.Input((ROOM,), dtype="int32", name=name) for name in TOKENS}
    kept = [*range(ROOM), 30, 41]
    small = tfc.prune_vocabulary(keras.Model(inputs, like(inputs)), kept)
    made = tfc.as_keras_hub(small.model, like=like)
    assert made.backbone.vocabulary_size == len(kept)
    expected = np.asarray(like(TOKENS))[..., kept]
    np.testing.assert_allclose(made(TOKENS), expected, atol=1e-5)

    prompt = [3, 1, 4, 1, 5]
    ids = np.array([prompt + greedy(made, prompt)])
    scores = np.asarray(like({**TOKENS, "token_ids": small.old_ids[ids].astype("int32")}))
    # Of the tokens that were kept, the likeliest follow.
    likeliest = scores[0, len(prompt) - 1 : -1, kept].argmax(0)
    np.testing.assert_array_equal(ids[0, len(prompt) :], likeliest)


def test_a_backbone_is_given_back_and_saves(tmp_path):
    model, x = family("BERT")
    [like] = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    small = tfc.prune_channels(model, 0.5, filters="intermediate", round_to=1)
    made = tfc.as_keras_hub(small, like=like)
    made.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    for part in small(x):
        np.testing.assert_array_equal(again(x)[part], small(x)[part])
    assert again.intermediate_dim == 32


@pytest.mark.slow("opens blocks again and again")
def test_what_no_argument_describes_is_refused():
    like = causal_lm("GPT-2")
    small = cut(like)  # heads, too, whose width is that of the model by their number
    with pytest.raises(
        ValueError, match=r"No arguments of GPT2Backbone give this model.*attention"
    ):
        tfc.as_keras_hub(small, like=like)
    with pytest.raises(TypeError, match="`like` must be a backbone or a task of KerasHub"):
        tfc.as_keras_hub(small, like=small)
