"""Padding teaches nothing: NumPy references over the positions that count."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import distill

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 9, (6, 5)).astype("int32")
MASK = np.int32(np.arange(5) < np.array([[5], [3], [1], [2], [4], [0]]))


def net(width):
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    mask = keras.Input((5,), dtype="int32", name="padding_mask")
    x = layers.Embedding(9, width, name="table")(tokens)
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    x = layers.Add(name="block")([x, attention(x, x)])
    return keras.Model([tokens, mask], layers.Dense(3, activation="softmax", name="tag")(x))


def losses(mask=None):
    return {
        "targets": distill.SoftTargets(temperature=2.0, mask=mask),
        "features": distill.Features("block", "block", mask=mask),
        "huber": distill.Features("block", "block", loss=keras.losses.Huber(), mask=mask),
        "scores": distill.AttentionScores("attention", "attention", mask=mask),
    }


def distiller(loss, width=8):
    keras.utils.set_random_seed(0)
    made = tfc.Distiller(net(8), net(width), loss, student_loss_weight=0.0)
    made.compile("sgd", jit_compile=False)
    return made


def values(model):
    """What the losses compare: features, probabilities of tags, and of attention."""
    x = model.get_layer("table")(TOKENS)
    _, scores = model.get_layer("attention")(x, x, return_attention_scores=True)
    block = keras.Model(model.inputs, model.get_layer("block").output)
    return block.predict([TOKENS, MASK], verbose=0), model([TOKENS, MASK]), scores


@pytest.mark.parametrize("name", losses())
def test_only_positions_that_count_add_to_the_loss(name):
    made, counts = distiller(losses("padding_mask")[name]), MASK.astype(bool)
    (block, tags, scores), (block_2, tags_2, scores_2) = (
        map(np.asarray, values(model)) for model in (made.teacher, made.student)
    )
    logs = [np.log(x[counts].astype("float64")) / 2.0 for x in (tags, tags_2)]
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in logs)
    far = np.abs(block - block_2)[counts]
    pairs = counts[:, :, None] & counts[:, None, :]
    expected = {
        "targets": 4.0 * np.mean(np.sum(p * np.log(p / q), axis=-1)),
        "features": np.mean(far**2),
        "huber": np.mean(np.where(far <= 1.0, 0.5 * far**2, far - 0.5)),
        "scores": np.mean(np.mean((scores - scores_2) ** 2, axis=1)[pairs]),
    }
    for x in ([TOKENS, MASK], {"tokens": TOKENS, "padding_mask": MASK}):
        loss = float(made.compute_loss(x, training=False))
        # float32: a divergence of 3e-3 is the difference of logarithms around 1.
        np.testing.assert_allclose(loss, expected[name], rtol=2e-4)
    plain = distiller(losses()[name]).compute_loss([TOKENS, MASK], training=False)
    assert abs(float(plain) / expected[name] - 1.0) > 0.01


def test_a_distiller_with_masks_trains_a_quantized_student_and_loads(tmp_path):
    keras.utils.set_random_seed(0)
    x = {"tokens": TOKENS, "padding_mask": MASK}
    student = tfc.calibrate(tfc.quantize_aware(net(4)), x)
    chosen = [loss for name, loss in losses("padding_mask").items() if name != "huber"]
    made = tfc.Distiller(net(8), student, chosen, student_loss_weight=0.0)
    made.compile("adam", jit_compile=False)
    assert np.isfinite(made.fit(x, epochs=2, verbose=0).history["loss"]).all()
    made.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    assert [loss.mask for loss in again.distillation_losses] == ["padding_mask"] * 3
    np.testing.assert_allclose(
        float(again.compute_loss(x, training=False)), float(made.compute_loss(x, training=False))
    )


def test_no_position_that_counts_gives_zero():
    assert float(distill.masks.mean_where(np.ones((2, 3), "float32"), np.zeros((2, 3)))) == 0.0


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"needs an input of that name.*tokens, padding_mask"):
        distiller(distill.SoftTargets(mask="mask"))
    inputs = keras.Input((5, 4), name="x"), keras.Input((5,), name="padding_mask")
    pooled = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(inputs[0]))
    model = keras.Model(inputs, pooled)
    with pytest.raises(ValueError, match=r"for each position of that input, \(5,\).*\(\)"):
        tfc.Distiller(
            model, keras.models.clone_model(model), distill.SoftTargets(mask="padding_mask")
        )
    with pytest.raises(TypeError, match="mask"):
        distill.SoftTargets(mask=3)
