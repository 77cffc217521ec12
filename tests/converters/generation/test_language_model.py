import keras
import numpy as np
import pytest

from tests.zoo.language_models import ENCODER, GEMMA_3, causal_lm
from tfcompress import converters
from tfcompress.converters.generation import families
from tfcompress.converters.generation.families import KnownFamily
from tfcompress.converters.generation.language_model import CachedModel, language_model
from tfcompress.converters.generation.logits import model_logits, step_logits

ROW = np.random.default_rng(0).integers(0, 50, 12).astype("int32")


@pytest.mark.parametrize("name", ["GPT-2", "Qwen 3", "Gemma 2", "Gemma 3", "Phi-3"])
def test_blocks_compute_what_the_model_does(name):
    model = causal_lm(name)
    stepped = language_model(model)
    assert isinstance(stepped, KnownFamily)
    expected = model_logits(model, ROW[None])[0]
    # float32 in another order: 1e-5 of the largest logit.
    peak = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(step_logits(stepped, ROW), expected, rtol=0, atol=peak)


def test_a_block_that_computes_something_else_is_not_used(monkeypatch):
    def other(block, x, positions, cache):
        y, cache = families._transformer(block, x, positions, cache)
        return y * 1.01, cache

    model = causal_lm("GPT-2")
    monkeypatch.setitem(families._BLOCKS, "GPT2CausalLM", other)
    stepped = language_model(model)
    assert isinstance(stepped, CachedModel)
    expected = model_logits(model, ROW[None])[0]
    peak = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(step_logits(stepped, ROW), expected, rtol=0, atol=peak)


def test_a_subclass_with_its_own_call_is_asked_itself():
    model = causal_lm("GPT-2")

    class Louder(type(model)):
        def call_with_cache(self, *given):
            logits, hidden, cache = super().call_with_cache(*given)
            return 2 * logits, hidden, cache

    stepped = language_model(Louder(model.backbone))
    assert isinstance(stepped, CachedModel)
    quiet = step_logits(language_model(model), ROW)
    np.testing.assert_allclose(step_logits(stepped, ROW), 2 * quiet, atol=1e-4)


@pytest.mark.slow("six layers")
def test_a_cache_for_each_layer_is_read_where_the_block_is_unknown(monkeypatch):
    model = causal_lm("Gemma 3")
    monkeypatch.delitem(families._BLOCKS, "Gemma3CausalLM")
    stepped = language_model(model)
    assert isinstance(stepped, CachedModel)
    assert stepped.cache_shapes(9) == [(1, 2, 9, 8)] * 6
    expected = model_logits(model, ROW[None])[0]
    peak = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(step_logits(stepped, ROW), expected, rtol=0, atol=peak)


def test_a_model_that_decodes_something_else_is_refused():
    # The positions of its queries begin anew at each call.
    model = causal_lm(
        "GPT-NeoX", {"GPT-NeoX": lambda h: h.GPTNeoXCausalLM(h.GPTNeoXBackbone(**ENCODER))}
    )
    with pytest.raises(converters.ConversionError, match="other logits one token at a time"):
        language_model(model)


@pytest.mark.slow("six layers")
def test_an_error_of_the_model_is_told():
    both = {**GEMMA_3, "use_bidirectional_attention": True}
    model = causal_lm("both", {"both": lambda h: h.Gemma3CausalLM(None, h.Gemma3Backbone(**both))})
    with pytest.raises(converters.ConversionError, match=r"is not known: (?!Exception)"):
        language_model(model)


def test_models_without_a_cache_that_is_known_are_refused():
    backbone = causal_lm("GPT-2").backbone
    with pytest.raises(converters.ConversionError, match="a backbone alone gives no logits"):
        language_model(backbone)

    class Odd(keras.Model):
        def call_with_cache(self, tokens, cache, index):
            raise NotImplementedError

        def _build_cache(self, tokens):
            return None, (np.zeros(3),)

    with pytest.raises(converters.ConversionError, match="in a subclass of it"):
        language_model(Odd(name="odd"))
