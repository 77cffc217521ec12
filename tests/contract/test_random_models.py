"""Random models keep what is promised of all: the bar that no list of architectures can set.

A failure names the output, `graph_SEED`; `random_model([SEED])` makes the graph alone.
"""

import warnings

import numpy as np
import pytest

import tfcompress as tfc
from tests.channels.test_prune import silence
from tests.support.helpers import eager
from tests.zoo.random_models import random_model, random_samples
from tfcompress import converters
from tfcompress.low_rank import factors
from tfcompress.low_rank.rewrite import rewrite
from tfcompress.model.layers import all_layers

# One batch: each model and each file runs once, however many samples there are.
SAMPLES = 32
QUICK = pytest.param(range(1000, 1003), id="quick")
MODELS = [
    pytest.param(range(start, start + 40), id=f"{start}", marks=pytest.mark.slow("converts much"))
    for start in range(0, 200, 40)  # 40 graphs take some 45 seconds of one core
]
# Output steps that are allowed anywhere, and at worst where the mean is below AVERAGE. A value in
# the middle between two steps rounds the other way now and then, more often in TFLite's reference
# kernels, which round twice, and behind an average of 16 values, which often lies there; a steep
# sigmoid or a narrow output makes several steps of it. A fault moves all elements: a step or more
# on average.
STEPS, AT_WORST, AVERAGE = 2.01, 8.01, 0.75
# float32 sums in another order, over the layers of a graph.
FLOAT = {"rtol": 1e-4, "atol": 2e-5}


def outputs(model, x):
    return {name: np.asarray(y) for name, y in zip(model.output_names, model(x), strict=True)}


def check_same(new, old, x, **tolerance):
    found = outputs(new, x)
    for name, expected in outputs(old, x).items():
        np.testing.assert_allclose(found[name], expected, err_msg=name, **tolerance)


@pytest.mark.parametrize("seeds", [QUICK, *MODELS])
def test_random_models(seeds, tmp_path):
    model = random_model(seeds)
    x = random_samples(model, SAMPLES)
    quantization_aware(model, x, tmp_path / "qat.tflite")
    after_training(model, x, tmp_path / "int8.tflite")
    check_same(rewrite(model, full_ranks(model), refine=0), model, x, **FLOAT)
    silence(model)
    small = tfc.prune_channels(model, dead=True)
    assert small.count_params() < 0.9 * model.count_params()
    check_same(small, model, x, **FLOAT)


def quantization_aware(model, x, path):
    """`strip` undoes it exactly, and the file computes what the model does."""
    qat = tfc.quantize_aware(model)
    check_same(tfc.strip(qat), model, x, rtol=0, atol=0)
    with eager():
        tfc.calibrate(qat, x, batch_size=SAMPLES)
    file = converters.convert(qat, path, converters.Int8(), batch_size=SAMPLES)
    assert file.float_macs == ()
    for delegate in ("xnnpack", "reference"):
        for output in converters.verify(qat, file, x, delegate=delegate).outputs:
            seen = (output.name, delegate, output.max_lsb, output.mean_lsb)
            few = output.max_lsb <= AT_WORST and output.mean_lsb <= AVERAGE
            assert output.max_lsb <= STEPS or few, seen


def after_training(model, x, path):
    """An int8 file is close to the model, or the conversion said that it is not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = converters.convert(model, path, converters.Int8(calibration=x), batch_size=SAMPLES)
    said = " ".join(str(warning.message) for warning in caught)
    assert len(file.outputs) == len(model.outputs)
    for output in file.outputs:
        assert output.snr_db >= 15 or output.name in said, (output.name, output.snr_db)


def full_ranks(model):
    """The full rank of each layer that can be factorized, by `id(layer)`."""
    chosen = [layer for layer in all_layers(model) if not factors.why_not(layer)]
    return {id(la): factors.full_rank(la, factors.kernel_of(la)) for la in chosen}
