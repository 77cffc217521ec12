import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tests.zoo.keras_hub import family

RNG = np.random.default_rng(0)
SIZE = 50
TOKENS = RNG.choice([3, 4, 7, 20, 21, 48], (6, 5)).astype("int32")


def net(head="dense", masked=False):
    """Tokens and kinds in, scores of tokens out; the table lies in a nested model."""
    inner_ids = keras.Input((5,), dtype="int32")
    table = layers.Embedding(SIZE, 8, mask_zero=masked, name="table")
    inner = keras.Model(inner_ids, table(inner_ids), name="inner")
    ids, kinds = (keras.Input((5,), dtype="int32", name=name) for name in ("ids", "kinds"))
    x = inner(ids) + layers.Embedding(2, 8, name="kind")(kinds)
    x = layers.LayerNormalization()(layers.LSTM(8, return_sequences=True)(x))
    if head == "dense":
        x = layers.Dense(SIZE, name="scores")(x)
    return keras.Model({"ids": ids, "kinds": kinds}, x, name="net")


def samples(ids):
    return {"ids": ids, "kinds": np.arange(ids.size).reshape(ids.shape) % 2}


@pytest.mark.parametrize("masked", [True, False])
def test_kept_tokens_have_the_same_scores(masked, tmp_path):
    model = net(masked=masked)
    ids = np.where(RNG.random(TOKENS.shape) < 0.2, 0, TOKENS) if masked else TOKENS
    before = model.predict(samples(ids), verbose=0)
    small = tfc.prune_vocabulary(
        model, (row for row in TOKENS), keep=[1], unknown=2, heads="scores"
    )
    wanted = sorted({1, 2, *TOKENS.ravel().tolist(), *([0] if masked else [])})
    assert small.old_ids.tolist() == wanted
    assert small.model.get_layer("inner").get_layer("table").input_dim == len(wanted)
    small.model.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    for new in (small.model, loaded):
        found = new.predict(samples(small.translate(ids)), verbose=0)
        np.testing.assert_allclose(found, before[..., wanted], atol=1e-6)  # sums of 8 products
    gone = small.translate(np.array([[49, 3]]))
    assert small.old_ids[gone].tolist() == [[2, 3]]
    assert model.get_layer("inner").get_layer("table").input_dim == SIZE


def test_tied_and_untied_heads_of_a_language_model_are_cut_with_the_table():
    model, x = family("GPT-2 language model")
    before = model.predict(x, verbose=0)
    small = tfc.prune_vocabulary(model, x["token_ids"], keep=[0])
    assert len(small.old_ids) < 40
    found = small.model.predict({**x, "token_ids": small.translate(x["token_ids"])}, verbose=0)
    np.testing.assert_allclose(found, before[..., small.old_ids], atol=1e-5)

    table = layers.ReversibleEmbedding(SIZE, 8, tie_weights=False)
    ids = keras.Input((5,), dtype="int32")
    untied = keras.Model(ids, table(table(ids), reverse=True))
    small = tfc.prune_vocabulary(untied, TOKENS)
    found = small.model.predict(small.translate(TOKENS), verbose=0)
    wanted = untied.predict(TOKENS, verbose=0)[..., small.old_ids]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_what_cannot_be_cut_is_refused_before_any_work():
    model = net()
    ids = keras.Input((5,), dtype="int32", name="ids")
    table = layers.Embedding(SIZE, 8)
    compares = keras.Model(ids, table(ids) * ops.cast(ops.not_equal(ids, 0), "float32")[..., None])
    for wrong, said in (
        ((model, [SIZE]), "holds the id 50; the table has the rows 0 to 49"),
        ((model, []), "one or more token ids"),
        ((compares, TOKENS), "New ids would change what 'not_equal"),
        ((keras.Sequential([keras.Input((3,)), layers.Dense(2)]), TOKENS), "No table of the model"),
    ):
        with pytest.raises(ValueError, match=said):
            tfc.prune_vocabulary(*wrong)
    with pytest.raises(TypeError, match="integers of any shape"):
        tfc.prune_vocabulary(model, TOKENS / 2)
    with pytest.raises(ValueError, match="one of the model's inputs, ids, kinds"):
        tfc.prune_vocabulary(model, TOKENS, input="token_ids")
    small = tfc.prune_vocabulary(model, TOKENS)
    with pytest.raises(ValueError, match="not in the new vocabulary, such as 49"):
        small.translate([49])
    last = keras.Model(model.inputs, layers.Dense(4, name="few")(model.output))
    with pytest.raises(ValueError, match="'few' in `heads` gives 4 scores"):
        tfc.prune_vocabulary(last, TOKENS, heads="few")
