"""The step of a quantized tensor reaches the layer that rounds a bias by it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.distill.features import end, output_of
from tfcompress.quantization.ops import linear
from tfcompress.quantization.wrapper import QuantizeWrapper

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 3.0, (16, 4, 4, 2)).astype(np.float32)
SAMPLES = {"x": X}


def net(between, **options):
    """An image, the tensors that `between` makes of it, and a layer with a bias."""
    image = keras.Input((4, 4, 2), name="x")
    y = layers.Dense(3, name="head", bias_initializer="normal", **options)(between(image))
    return keras.Model(image, y)


def calibrated(model, samples=SAMPLES):
    return tfc.calibrate(tfc.quantize_aware(model), samples)


def grid_of(qat, name, source):
    """Scale of the bias of a layer: the step of its input times that of each kernel column."""
    low, high = source.range()
    kernel = np.abs(qat.get_layer(name).layer.kernel.numpy()).max(axis=0)
    return (high - low) / 255 * kernel / 127


def bias_in(model, wanted, monkeypatch, x):
    """The biases that the op of a layer is computed with, one for each call."""
    if isinstance(wanted, str):
        wanted = model.get_layer(wanted).layer
    found = []
    compute = linear.compute

    def spy(layer, x, kernel, bias, activation):
        if layer is wanted:
            found.append(np.asarray(bias, "float64"))
        return compute(layer, x, kernel, bias, activation)

    with monkeypatch.context() as patch:
        patch.setattr(linear, "compute", spy)
        model(x, training=False)
    return found


def assert_on_grid(bias, scale, raw):
    steps = bias / scale
    # Two roundings of float32, of some thousand steps.
    np.testing.assert_allclose(steps, np.round(steps), atol=2e-3)
    assert np.abs(raw / scale - np.round(raw / scale)).max() > 0.02, (
        "the bias was on the grid before"
    )


def assert_on_both_grids(found, scales, raw):
    """Keras is free in the order of two calls."""
    assert len(found) == 2
    if np.abs(found[0] / scales[0] - np.round(found[0] / scales[0])).max() > 2e-3:
        found = found[::-1]
    for bias, scale in zip(found, scales, strict=True):
        assert_on_grid(bias, scale, raw)


COPIES = {
    "nothing": layers.Flatten(),
    "dropout": lambda x: layers.Flatten()(layers.Dropout(0.5)(x)),
    "reshape": lambda x: layers.Reshape((32,))(x),
    "permute": lambda x: layers.Flatten()(layers.Permute((3, 1, 2))(x)),
    "padding": lambda x: layers.Flatten()(layers.ZeroPadding2D()(x)),
    "max pooling": lambda x: layers.Flatten()(layers.MaxPooling2D()(x)),
    "ops": lambda x: ops.reshape(ops.transpose(x, (0, 2, 1, 3))[:, 1:], (-1, 24)),
    "concatenation": lambda x: layers.Flatten()(layers.Concatenate()([x, layers.Identity()(x)])),
}


@pytest.mark.parametrize("between", COPIES.values(), ids=COPIES)
def test_bias_is_on_the_grid_behind_an_operation_that_copies(between, monkeypatch, tmp_path):
    keras.utils.set_random_seed(0)
    model = net(between)
    qat = calibrated(model)
    qat.save(tmp_path / "qat.keras")
    for made in (qat, keras.models.load_model(tmp_path / "qat.keras")):
        (bias,) = bias_in(made, "quantized_head", monkeypatch, X)
        scale = grid_of(made, "quantized_head", made.get_layer("fake_quant_x"))
        assert_on_grid(bias, scale, model.get_layer("head").bias.numpy())


def test_bias_follows_the_range_as_training_moves_it(monkeypatch):
    keras.utils.set_random_seed(0)
    qat = calibrated(net(layers.Flatten()))
    qat.compile("sgd", "mse", jit_compile=False)
    qat.fit(2 * X, np.zeros((16, 3)), verbose=0)
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, X)
    raw = qat.get_layer("quantized_head").layer.bias.numpy()
    assert_on_grid(bias, grid_of(qat, "quantized_head", qat.get_layer("fake_quant_x")), raw)


def test_bias_is_not_rounded_before_ranges_are_known_nor_in_training(monkeypatch):
    qat = tfc.quantize_aware(net(layers.Flatten()))
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, X)
    np.testing.assert_array_equal(bias, qat.get_layer("quantized_head").layer.bias.numpy())


def test_shared_layer_rounds_its_bias_by_the_input_of_each_call(monkeypatch):
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    head = layers.Dense(3, name="head", bias_initializer="normal")
    x = {"a": X[:, 0, :2].reshape(16, 4), "b": 3 * X[:, 1, :2].reshape(16, 4)}
    model = keras.Model([a, b], layers.Add()([head(layers.Identity()(t)) for t in (a, b)]))
    qat = calibrated(model, x)
    found = bias_in(qat, "quantized_head", monkeypatch, [x["a"], x["b"]])
    scales = [grid_of(qat, "quantized_head", qat.get_layer(f"fake_quant_{n}")) for n in "ab"]
    assert_on_both_grids(found, scales, head.bias.numpy())


def nested(structure):
    """Two inputs go through one nested model, and its output through a layer with a bias."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inside = keras.Input((4,), name="inside")
    y = layers.Dense(5, "relu", name="in", bias_initializer="normal")(layers.Identity()(inside))
    given = {"list": [inside], "dict": {"inside": inside}, "tensor": inside}[structure]
    inner = keras.Model(given, {"y": y} if structure == "dict" else y, name="inner")

    def call(x):
        x = {"list": [x], "dict": {"inside": x}, "tensor": x}[structure]
        y = inner(x)
        return y["y"] if structure == "dict" else y

    y = layers.Concatenate(name="both")([call(a), call(b)])
    return keras.Model([a, b], layers.Dense(3, name="head", bias_initializer="normal")(y))


@pytest.mark.parametrize("structure", ["tensor", "list", "dict"])
def test_steps_pass_the_border_of_a_nested_model(structure, monkeypatch, tmp_path):
    keras.utils.set_random_seed(0)
    model = nested(structure)
    x = {"a": X[:, 0, :2].reshape(16, 4), "b": 3 * X[:, 1, :2].reshape(16, 4)}
    qat = calibrated(model, x)
    qat.save(tmp_path / "qat.keras")
    again = keras.models.load_model(tmp_path / "qat.keras")
    inputs = [x["a"], x["b"]]
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), qat.predict(inputs, verbose=0))

    inner = again.get_layer("inner")
    found = bias_in(again, inner.get_layer("quantized_in").layer, monkeypatch, inputs)
    scales = [grid_of(inner, "quantized_in", again.get_layer(f"fake_quant_{n}")) for n in "ab"]
    raw = inner.get_layer("quantized_in").layer.bias.numpy()
    assert_on_both_grids(found, scales, raw)

    stripped = tfc.strip(again)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]
    copy, original = stripped.get_layer("inner"), model.get_layer("inner")
    keras.tree.assert_same_structure(copy.input, original.input)
    keras.tree.assert_same_structure(copy.output, original.output)
    np.testing.assert_allclose(stripped(inputs), model(inputs), rtol=1e-6)

    file = converters.convert(again, tmp_path / "qat.tflite", converters.Int8(), batch_size=1)
    converters.verify(again, file, x).raise_if_above(lsb=1.01)


def test_output_of_a_nested_model_has_its_step(monkeypatch):
    keras.utils.set_random_seed(0)
    x = keras.Input((4, 4, 2), name="x")
    inside = keras.Input((4, 4, 2))
    inner = keras.Model(inside, layers.Dense(5, name="in")(layers.Flatten()(inside)), name="inner")
    y = layers.Dense(3, name="head", bias_initializer="normal")(layers.Dropout(0.2)(inner(x)))
    model = keras.Model(x, y)
    qat = calibrated(model)
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, X)
    (source,) = [
        layer for layer in qat.get_layer("inner").layers if isinstance(layer, tfc.FakeQuant)
    ]
    scale = grid_of(qat, "quantized_head", source)
    assert_on_grid(bias, scale, model.get_layer("head").bias.numpy())
    # Distillation finds the output that it had before.
    assert output_of(qat, "inner").shape == (None, 5)
    assert end(qat, "inner").activation == "linear"


def test_quantize_aware_takes_a_nested_model_called_by_keywords(tmp_path):
    keras.utils.set_random_seed(0)
    inside = keras.Input((4,))
    y = layers.Dense(5, name="in", bias_initializer="normal")(layers.Dropout(0.1)(inside))
    inner, x = keras.Model(inside, y, name="inner"), keras.Input((4,), name="x")
    y = layers.Dense(3, bias_initializer="normal")(inner(training=False, inputs=x))
    samples = X.reshape(-1, 4)[:16]
    qat = calibrated(keras.Model(x, y), samples)
    file = converters.convert(qat, tmp_path / "qat.tflite", converters.Int8(), batch_size=1)
    converters.verify(qat, file, samples).raise_if_above(lsb=1.01)


def test_nested_model_called_on_the_output_of_a_float_one_rounds_the_bias_by_its_range(monkeypatch):
    keras.utils.set_random_seed(0)
    inside, x = keras.Input((4,)), keras.Input((4,), name="x")
    in_float = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="float")], name="first")
    head = layers.Dense(3, name="in", bias_initializer="normal")
    inner = keras.Model(inside, head(inside), name="inner")
    model = keras.Model(x, [inner(x), inner(in_float(x))])
    samples = X.reshape(-1, 4)[:16]
    qat = tfc.calibrate(tfc.quantize_aware(model, exclude="float"), samples)
    found = bias_in(
        qat, qat.get_layer("inner").get_layer("quantized_in").layer, monkeypatch, samples
    )
    sources = qat.get_layer("fake_quant_x"), qat.get_layer("first").get_layer("fake_quant_float")
    scales = [grid_of(qat.get_layer("inner"), "quantized_in", source) for source in sources]
    assert_on_both_grids(found, scales, head.bias.numpy())


def test_calibrate_rounds_no_bias_by_a_range_that_still_grows(monkeypatch):
    keras.utils.set_random_seed(0)
    qat = calibrated(net(layers.Flatten()))
    source = qat.get_layer("fake_quant_x")
    source.observing = True
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, X)
    np.testing.assert_array_equal(bias, qat.get_layer("quantized_head").layer.bias.numpy())


def test_summary_of_a_nested_model_has_the_layers_of_the_float_model():
    model = nested("tensor")
    paths = {layer.path for layer in tfc.summary(model).layers}
    assert {layer.path for layer in tfc.summary(tfc.quantize_aware(model)).layers} == paths


def test_step_of_a_composite_that_rounds_its_output_reaches_the_next_layer(monkeypatch):
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 4), name="x")
    y = layers.Flatten()(layers.LSTM(3, return_sequences=True, name="lstm")(x))
    model = keras.Model(x, layers.Dense(3, name="head", bias_initializer="normal")(y))
    sequences = X[:, :, :].reshape(16, 8, 4)[:, :5]
    qat = calibrated(model, {"x": sequences})
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, sequences)
    source = qat.get_layer("quantized_lstm").inner["hidden"]
    assert_on_grid(bias, grid_of(qat, "quantized_head", source), model.layers[-1].bias.numpy())


def test_masks_reach_a_layer_that_also_takes_steps():
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 4), name="x")
    y = layers.LSTM(3, name="lstm")(layers.Masking()(x))
    qat = tfc.quantize_aware(keras.Model(x, y))
    padded = X.reshape(16, 8, 4)[:, :5].copy()
    padded[:, 3:] = 0.0
    tfc.calibrate(qat, {"x": padded})
    other = keras.Input((3, 4), name="x")
    short = tfc.quantize_aware(keras.Model(other, qat_free(qat)(other)))
    short.set_weights(qat.get_weights())
    np.testing.assert_allclose(qat(padded), short(padded[:, :3]), atol=1e-6)


def qat_free(qat):
    layer = next(la for la in qat.layers if isinstance(la, QuantizeWrapper)).layer
    return type(layer).from_config(layer.get_config())


def test_mixed_precision_rounds_by_the_step(monkeypatch):
    keras.utils.set_random_seed(0)
    model = net(layers.Flatten(), dtype="mixed_float16")
    qat = calibrated(model)
    (bias,) = bias_in(qat, "quantized_head", monkeypatch, X)
    scale = grid_of(qat, "quantized_head", qat.get_layer("fake_quant_x"))
    raw = model.get_layer("head").bias.numpy()
    # Off by half a step at most, and by the precision of half floats.
    assert np.all(np.abs(bias - raw) <= 0.51 * scale + 2**-11 * np.abs(raw))
    assert (bias.astype("float32") != raw).any()


def test_a_model_saved_without_steps_still_computes(tmp_path):
    """A wrapper that is called as before has unrounded biases."""
    dense = layers.Dense(3, bias_initializer="normal")
    wrapper = QuantizeWrapper(dense)
    x = X.reshape(16, 32)
    step = np.float32(4 / 255)
    plain, rounded = wrapper(x), wrapper(x, input_steps={"inputs": step})
    scale = step * np.abs(dense.kernel.numpy()).max(axis=0) / 127
    assert (np.asarray(plain) != np.asarray(rounded)).any()
    assert np.all(np.abs(plain - rounded) <= 0.51 * scale)
