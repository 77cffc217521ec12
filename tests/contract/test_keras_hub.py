"""Every method on transformers: of KerasHub, whose blocks are layers made of layers, and by hand.

`benchmarks/keras_hub_matrix.py` prints what each method gives on each.
"""

import contextlib

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tests.channels.test_prune import cut_what_is_silent
from tests.zoo.attention_blocks import BLOCKS, block
from tests.zoo.keras_hub import FAMILIES, family
from tfcompress import converters, distill
from tfcompress.model.keras_private import flat_layers
from tfcompress.model.opening.opener import is_composite

BY_HAND = ("MultiHeadAttention, mask: padding", "GroupQueryAttention, mask: causal")
IN_CI = ("BERT", "GPT-2", "ViT", *BY_HAND)
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.slow("a transformer, converted twice")
        if name in IN_CI
        else pytest.mark.large,
    )
    for name in (*FAMILIES, *BLOCKS)
]

# What is refused, and a part of the reason.
WHOLE = {"DeBERTa": "uses a function of TensorFlow"}
REFUSED = {
    ("FNet", "convert"): "TFLite has no builtin for op Complex",
    ("MobileNet V5", "prune_channels"): "there is no rule for RmsNorm2d",
}


def refused(name, step):
    """Return a context that wants the error that a family meets in a step, if it meets one."""
    why = REFUSED.get((name, step))
    return contextlib.nullcontext() if why is None else pytest.raises(ValueError, match=why)


def built(name):
    return block(name) if name in BLOCKS else family(name)


def values(model, x):
    outputs = keras.tree.flatten(model(x, training=False))
    return np.concatenate([np.ravel(y) for y in outputs])


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def macs(model):
    return tfc.summary(model).total.macs


@pytest.mark.slow("traces a model again and again")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_opened(name, tmp_path):
    model, x = family(name)
    expected = values(model, x)
    kept = [why for why in tfc.composite_layers(model).values() if why]
    if name in WHOLE:
        assert kept
        assert all(WHOLE[name] in why for why in kept)
    else:
        assert not kept
        opened = tfc.open_layers(model)
        assert not any(map(is_composite, flat_layers(opened)))
        # Equal bits on most processors; on some, TensorFlow adds in another order.
        limit = 1e-6 * np.abs(expected).max()
        for found in (opened, reloaded(opened, tmp_path)):
            np.testing.assert_allclose(values(found, x), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_made_smaller_by_every_method(name, tmp_path):
    model, x = built(name)
    expected = values(model, x)

    def converted(model, precision):
        return converters.convert(model, tmp_path / f"{precision.name}.tflite", precision)

    with refused(name, "prune_channels"):
        small = tfc.prune_channels(model, 0.5, round_to=1)
        assert macs(small) < 0.85 * macs(model)
        np.testing.assert_array_equal(values(reloaded(small, tmp_path), x), values(small, x))
    low = tfc.factorize(model, energy=0.6)
    assert macs(low) < 0.9 * macs(model)
    np.testing.assert_array_equal(values(reloaded(low, tmp_path), x), values(low, x))

    with refused(name, "convert"):
        file = converted(model, converters.DynamicInt8())
        converters.verify(model, file, x).raise_if_above(snr_below=20)
        kinds = {tensor.dtype for tensor in converters.inspect(file).tensors if tensor.constant}
        sizes = [np.prod(variable.shape) for variable in model.trainable_variables]
        assert "int8" in kinds or max(sizes) < 1024

    qat = tfc.quantize_aware(model)
    tfc.calibrate(qat, x)
    found = values(reloaded(qat, tmp_path), x)
    assert found @ expected > 0.99 * np.linalg.norm(found) * np.linalg.norm(expected)
    with refused(name, "convert"):
        file = converted(qat, converters.Int8())
        floating = [layer.path for layer in tfc.qat_report(qat).floating]
        for op in file.float_macs:
            assert any(f"{op.layer}/".startswith(f"{path}/") for path in floating), op


@pytest.mark.slow("training steps of a transformer")
def test_training_in_place_prunes_what_is_inside_blocks():
    model, x = family("BERT")
    model.compile("sgd", "mse", jit_compile=False)
    targets = keras.tree.map_structure(np.asarray, model(x))
    schedule = tfc.schedules.OneShot(0.5)
    model.fit(x, targets, verbose=0, callbacks=[tfc.Prune(schedule, filters="transformer")])
    for row in tfc.summary(model).layers:
        if "transformer" in row.path and row.type in ("Dense", "EinsumDense"):
            assert row.zeros >= row.parameters // 2 - 32  # biases are not pruned


@pytest.mark.slow("cuts and distils a transformer")
@pytest.mark.parametrize("attention", ["heads", "width"])
@pytest.mark.parametrize("name", BY_HAND)
def test_attention_written_by_hand_is_cut_without_a_trace_and_distilled(name, attention):
    """Heads, head width, units of the dense layers and width of the embeddings."""
    model, x = block(name)
    kinds = {group.kind for group in tfc.channel_groups(model, attention=attention).prunable}
    cut = {"heads"} if attention == "heads" else {"key width", "value width"}
    assert kinds >= {"channels", "units", *(cut if name in BY_HAND[:1] else ())}
    small = tfc.prune_channels(model, 0.5, attention=attention, round_to=1)
    assert macs(small) <= 0.55 * macs(model)
    losses = [
        distill.AttentionScores("attention_1", "attention_1"),
        distill.Features("mlp_sum_1", "mlp_sum_1"),
    ]
    distiller = tfc.Distiller(model, small, losses, student_loss_weight=0.0)
    distiller.compile("sgd", jit_compile=False)
    assert np.isfinite(distiller.fit(x, verbose=0).history["distillation_loss"][0])
    silent = cut_what_is_silent(model, attention=attention)
    assert silent.count_params() < model.count_params()
    expected = values(model, x)
    np.testing.assert_allclose(values(silent, x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", BY_HAND)
def test_flash_attention_is_refused_by_keras_on_tensorflow(name):
    model, x = block(name, flash_attention=True)
    with pytest.raises(ValueError, match="Flash attention is not supported in tensorflow backend"):
        model(x)
