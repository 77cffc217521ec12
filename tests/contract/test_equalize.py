"""Over the kinds of model that people have: an equalized model computes the same function."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tests.zoo.architectures import ARCHITECTURES, DEEP
from tfcompress.converters.equalization.equalize import apply

SLOW = {
    *("MobileNetV2 until block_4_add", "ResNet50V2 until conv3_block2_out"),
    *("MobileNetV3Small until expanded_conv_4_add", "Xception until block5_sepconv1_act"),
}


def marks(name):
    """Of the deep nets, which have no layers that the small ones lack, CI runs four."""
    if name in SLOW:
        return pytest.mark.slow("a deep net")
    return pytest.mark.large if name in DEEP else ()


NAMES = [pytest.param(name, marks=marks(name)) for name in ARCHITECTURES]

# With these, an activation that is not homogeneous or a layer without a rule is all there is.
NOTHING = {
    *("depthwise-bn-relu6", "LSTM", "GRU", "BiLSTM", "Lambda", "raw ops on Keras tensors"),
    *("custom layer", "layer used twice", "swish/gelu", "MobileNet"),
}


def make_uneven(model):
    """Give every parameter of a new model a value, a tenth of them a large one."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "beta", "bias", "moving_mean"):
            large = 1 + 9 * (rng.random(weight.shape) < 0.1)
            weight.assign(weight.numpy() + rng.uniform(-0.5, 0.5, weight.shape) * large)
        elif weight.name == "moving_variance":
            weight.assign(rng.uniform(0.2, 2.0, weight.shape))


def outputs(model, x):
    """Return the outputs, in float64."""
    return [np.asarray(y, np.float64) for y in keras.tree.flatten(model(x, training=False))]


@pytest.mark.parametrize("name", NAMES)
def test_an_equalized_model_computes_the_same(name):
    case = ARCHITECTURES[name]()
    make_uneven(case.model)
    before = [weight.numpy() for weight in case.model.weights]
    plan = tfc.equalization_plan(case.model, case.x)
    assert bool(plan.equalized) == (name not in NOTHING), str(plan)
    assert all(channels.why_kept for channels in plan.kept)
    new = apply(plan)
    # Sums of thousands of rounded products: 20 ulp of float32, of float16 in mixed precision.
    tolerance = 2e-2 if name == "mixed_float16" else 1e-5
    for old, got in zip(outputs(case.model, case.x), outputs(new, case.x), strict=True):
        np.testing.assert_allclose(got, old, atol=tolerance * np.abs(old).max(), rtol=0)
    after = [weight.numpy() for weight in case.model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    changed = sum(np.abs(weight.numpy()).sum(dtype=np.float64) for weight in new.weights)
    same = sum(np.abs(weight).sum(dtype=np.float64) for weight in before)
    assert (changed != same) == bool(plan.equalized)
