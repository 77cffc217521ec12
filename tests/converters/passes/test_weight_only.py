import keras
import numpy as np
import pytest
from keras import layers, ops

from tfcompress import converters, edge
from tfcompress.converters.export.layer_names import layer_tree
from tfcompress.converters.passes.base import Refused
from tfcompress.converters.passes.rounding import largest_scales, nearest
from tfcompress.converters.passes.weight_only import rewrite

IDS = np.random.default_rng(0).integers(0, 90, (6, 8)).astype("int32")
EXACT = {"block": None, "activations": "float32"}


class Mix(keras.layers.Layer):
    """A product with a constant that the converter does not make a FULLY_CONNECTED op of."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(4, 128, 16), name="kernel")

    def call(self, x):
        return ops.matmul(x[:, None], self.kernel)


@pytest.fixture(scope="module")
def lm():
    keras.utils.set_random_seed(0)
    ids = keras.Input((8,), dtype="int32", name="ids")
    x = layers.Embedding(90, 128, name="table")(ids)
    x = x + layers.Dense(128, activation="gelu", name="dense")(x)
    x = layers.Dense(4, name="tiny")(x) * ops.mean(Mix(name="mix")(x), axis=(1, 3))[..., None]
    return keras.Model(ids, layers.Flatten()(x), name="lm")


@pytest.fixture(scope="module")
def content(lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.tflite"
    return converters.convert(lm, path, batch_size=1).path.read_bytes()


def rewritten(content, lm, folder, default, layers=None):
    found = rewrite(content, default=default, layers=layers or {}, tree=layer_tree(lm))
    path = folder / "rewritten.tflite"
    path.write_bytes(found.content)
    return found, path


def rounded(lm, bits, block=None):
    """A copy of the model, with the weights that the integers stand for: NumPy's own rounding."""
    copy = keras.models.clone_model(lm)
    copy.set_weights(lm.get_weights())
    for layer, axis in (("table", 1), ("dense", 0), ("mix", None)):
        variable = copy.get_layer(layer).weights[0]
        values = variable.numpy()
        if axis is None:  # a scale for each column, over all products
            rows = values.transpose(2, 0, 1).reshape(16, -1)
        else:
            moved = np.moveaxis(values, axis, -1)
            rows = moved.reshape(-1, block or moved.shape[-1])
        scales = largest_scales(rows, bits)
        real = nearest(rows, scales, bits) * scales[:, None]
        if axis is None:
            if block is not None:
                continue
            real = real.reshape(16, 4, 128).transpose(1, 2, 0)
        else:
            real = np.moveaxis(real.reshape(moved.shape), -1, axis)
        variable.assign(real)
    return copy


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
@pytest.mark.parametrize(("bits", "block"), [(8, None), (4, None), (8, 32), (4, 32)])
def test_a_file_computes_with_the_rounded_weights(content, lm, bits, block, delegate, tmp_path):
    found, path = rewritten(content, lm, tmp_path, {**EXACT, "bits": bits, "block": block})
    wanted = rounded(lm, bits, block).predict(IDS, verbose=0)
    # float32 sums in another order.
    np.testing.assert_allclose(
        edge.Runner(path, delegate=delegate)(IDS), wanted, atol=1e-4 * np.abs(wanted).max()
    )
    assert set(found.report) == ({"tiny", "mix"} if block else {"tiny"})
    # The table and the kernels: 11,520 + 16,384 + 8,192 float32 values of 1,024 and more.
    saved = (11520 + 16384 + (0 if block else 8192)) * (4 - bits / 8)
    # Scales of 4 bytes. Zero points of 8, for each kernel here: equal vectors are stored once.
    scales = 12 * (16384 // 32) + 4 * (11520 // 32) if block else 4 * 90 + 12 * (128 + 16)
    assert len(content) - len(found.content) == pytest.approx(saved - scales, abs=2000)


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
@pytest.mark.parametrize("bits", [8, 4])
def test_dense_layers_may_sum_integers(content, lm, bits, delegate, tmp_path):
    form = {"bits": bits, "block": None, "activations": "int8"}
    _, path = rewritten(content, lm, tmp_path, form)
    wanted = rounded(lm, bits).predict(IDS, verbose=0)
    error = edge.Runner(path, delegate=delegate)(IDS) - wanted
    # Activations of 8 bits leave 40 dB, minus two roundings.
    assert np.square(error).mean() < 1e-3 * np.square(wanted).mean()
    dtypes = {t.dtype for t in converters.inspect(path).constants if np.prod(t.shape) > 1024}
    assert dtypes == {f"int{bits}"}


@pytest.mark.parametrize("block", [None, 32])
def test_gptq_loses_less_than_the_nearest_integers(content, lm, block, tmp_path):
    np.savez(tmp_path / "samples.npz", IDS)
    samples = {"path": str(tmp_path / "samples.npz"), "names": ["ids"], "batch_size": 1}
    wanted, errors = lm.predict(IDS, verbose=0), {}
    for rounding in ("nearest", "gptq"):
        form = {**EXACT, "bits": 4, "block": block, "rounding": rounding}
        # The table has 8 bits, so that the dense layer's error is what is left.
        layers = {"table": {**EXACT, "bits": 8}, "mix": None}
        found = rewrite(content, default=form, layers=layers, tree=layer_tree(lm), samples=samples)
        path = tmp_path / f"{rounding}.tflite"
        path.write_bytes(found.content)
        errors[rounding] = np.square(edge.Runner(path)(IDS) - wanted).mean()
    # 48 rows for 128 columns; seen: 0.3 and 0.2 of the error.
    assert errors["gptq"] < 0.6 * errors["nearest"]


def test_a_layer_may_have_another_form_or_none(content, lm, tmp_path):
    layers = {"table": {**EXACT, "bits": 8}, "dense": None}
    found, path = rewritten(content, lm, tmp_path, {**EXACT, "bits": 4}, layers)
    assert found.report["dense"] == "asked for"
    large = [t for t in converters.inspect(path).constants if np.prod(t.shape) > 1024]
    assert sorted(t.dtype for t in large) == ["float32", "int4", "int8"]


def test_what_has_no_form_stays_in_float_with_the_reason(content, lm, tmp_path):
    found, _ = rewritten(content, lm, tmp_path, {**EXACT, "bits": 4, "block": 48})
    assert "fewer than 1024 weights" in found.report["tiny"]
    assert "no multiple of a block of 48" in found.report["dense"]
    assert "have no blocks" in found.report["mix"]


def test_a_quantized_file_is_refused(files):
    with pytest.raises(Refused, match="is quantized already"):
        rewrite(files["int8"].path.read_bytes(), default=None, layers={}, tree={})


@pytest.mark.slow("two conversions")
@pytest.mark.parametrize("block", [None, 32])
def test_a_tied_table_is_stored_once(block, tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((8,), dtype="int32", name="ids")
    table = layers.Embedding(90, 128, name="table")
    scores = ops.matmul(table(ids), ops.transpose(table.embeddings))
    form = converters.WeightOnly(4, block, "float32", "gptq", IDS)
    file = converters.convert(
        keras.Model(ids, scores), tmp_path / "tied.tflite", form, batch_size=1, samples=IDS
    )
    assert file.kept_weights == {}
    # Two scales of 4 bytes and a zero point of 8; a second copy would take 5,760 bytes more.
    assert file.bytes < 90 * 128 / 2 + 16 * 90 * (4 if block else 1) + 5000
    # Uniform weights in 15 steps: 20 dB each, in two products.
    assert file.outputs[0].snr_db > 15
