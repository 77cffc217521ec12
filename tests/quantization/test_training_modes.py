"""Quantization-aware models under every way that Keras has to train.

Whatever the way, the input's range is known exactly: the moving average of the batches' extremes.
"""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tests.support.helpers import as_id, on_two_cpus
from tfcompress import converters, schedules
from tfcompress.model.kernels import kernels
from tfcompress.quantization.fake_quant import fake_quants
from tfcompress.quantization.wrapper import QuantizeWrapper

SLOW = pytest.mark.slow("the other ways to train")
AVERAGE, LEARNED = tfc.QuantizationScheme(), tfc.QuantizationScheme(ranges="learned")
SLOW_LEARNED = pytest.param(LEARNED, marks=SLOW)
BATCH = 8


def build():
    x = keras.Input((12,), name="features")
    y = layers.Dense(10, "relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(3, name="head")(y))


def quantized(*, scheme=AVERAGE, **compiled):
    model = tfc.quantize_aware(build(), scheme=scheme)
    optimizer = compiled.pop("optimizer", keras.optimizers.Adam(0.01))
    model.compile(optimizer, "mse", **compiled)
    return model


def moving_average(x, epochs=1, momentum=0.99):
    low = high = None
    for start in list(range(0, len(x), BATCH)) * epochs:
        batch = x[start : start + BATCH]
        low = batch.min() if low is None else momentum * low + (1 - momentum) * batch.min()
        high = batch.max() if high is None else momentum * high + (1 - momentum) * batch.max()
    return low, high


def fit(model, data, epochs=2, **options):
    """Eight batches an epoch, in order."""
    trained = list(model.trainable_variables)  # ranges that are frozen leave the model's own list
    before = [variable.numpy() for variable in trained]
    options = {"epochs": epochs, "batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    history = model.fit(*data, **options)
    for variable, old in zip(trained, before, strict=True):
        new = variable.numpy()
        assert np.isfinite(new).all(), variable.path
        # Nothing is below zero after a ReLU: that end of the range has nothing to learn.
        assert np.any(new != old) or variable.path.endswith("hidden/low"), variable.path
    return history


def check(model, data, expected, rtol=1e-5):
    """The input's range, and that predictions are int8's."""
    found = next(fake_quants(model)).range()
    # Some 16 float32 products, one after the other
    np.testing.assert_allclose(found, expected, rtol=rtol)
    low, high = model.get_layer("head").range()
    steps = model.predict(data[0], verbose=0).astype(np.float64) / ((high - low) / 255)
    # float32, or what half precision says of it, is near whole numbers up to 255.
    np.testing.assert_allclose(steps, np.round(steps), atol=255 * rtol)
    assert len(np.unique(np.round(steps))) > 10


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"jit_compile": True}, marks=SLOW),
        {"jit_compile": False},
        {"run_eagerly": True},
        {"jit_compile": True, "steps_per_execution": 3},
    ],
    ids=str,
)
def test_compiled_or_not(data, how):
    model = quantized(**how)
    history = fit(model, data)
    check(model, data, moving_average(data[0], epochs=2))
    assert history.history["loss"][1] < history.history["loss"][0]


def test_learned_ranges(data):
    model = quantized(scheme=LEARNED, jit_compile=False)
    fit(model, data, epochs=1)
    first = data[0][:BATCH]
    low, high = next(fake_quants(model)).range()
    # Adam moves each by its rate, 0.01, at the most, in 8 steps.
    assert 0 < abs(low - first.min()) < 0.1
    assert 0 < abs(high - first.max()) < 0.1
    history = fit(model, data, epochs=4)
    assert history.history["loss"][-1] < history.history["loss"][0]
    limits = [v for v in model.trainable_variables if v.path.endswith("limit")]
    assert [limit.shape for limit in limits] == [(1, 10), (1, 3)]


@SLOW
@pytest.mark.parametrize("scheme", [AVERAGE, LEARNED], ids=["average", "learned"])
def test_all_ways_train_alike(data, scheme):
    """A step of SGD, compiled by XLA, by TensorFlow, or not at all."""
    float_model = build()
    results = []
    for how in ({"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}):
        model = tfc.quantize_aware(float_model, scheme=scheme)
        model.compile(keras.optimizers.SGD(0.1), "mse", **how)
        model.fit(data[0][:BATCH], data[1][:BATCH], verbose=0)
        results.append(model.get_weights())
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            # Sums in another order; no value lay in the middle between two steps.
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_gradient_accumulation(data):
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    model = quantized(optimizer=optimizer, jit_compile=False)
    fit(model, data)
    # The range follows every batch, whether or not the optimizer makes a step of it.
    check(model, data, moving_average(data[0], epochs=2))


@pytest.mark.parametrize("scheme", [AVERAGE, SLOW_LEARNED], ids=["average", "learned"])
def test_mixed_precision_as_keras_recommends_it(data, scheme):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = quantized(scheme=scheme, jit_compile=False)
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    fit(model, data, epochs=4)
    if scheme is not LEARNED:
        halves = data[0].astype(np.float16).astype(np.float32)
        check(model, data, moving_average(halves, epochs=4), rtol=1e-3)


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_bfloat16",
        *(pytest.param(p, marks=SLOW) for p in ("bfloat16", "float16", "float64")),
    ],
)
def test_precision_of_a_layer(data, policy):
    x = keras.Input((12,))
    y = layers.Dense(10, "relu", name="hidden", dtype=policy)(x)
    model = tfc.quantize_aware(keras.Model(x, layers.Dense(3, dtype="float32", name="head")(y)))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, auto_scale_loss=False)
    fit(model, data)
    assert model.get_layer("quantized_hidden").layer.dtype_policy.name == policy
    predicted = model.predict(data[0], verbose=0)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()


def test_sample_weights_and_class_weights(data):
    """A sample of no weight shapes the ranges, but nothing else."""
    x, y = data
    weights = (np.arange(64) % 2).astype(np.float32)
    float_model = build()
    found = []
    for targets in (y, np.where(weights[:, None] > 0, y, 1e3)):
        model = tfc.quantize_aware(float_model)
        model.compile("sgd", "mse", jit_compile=False)
        fit(model, (x, targets), epochs=1, sample_weight=weights)
        check(model, data, moving_average(x))
        found.append(model.get_weights())
    for left, right in zip(*found, strict=True):
        # The sums hold zeros times 1e3, and so the same terms.
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    classes = y.argmax(1)
    model = tfc.quantize_aware(float_model)
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    fit(model, (x, classes), epochs=1, class_weight={0: 1.0, 1: 0.0, 2: 5.0})


class Stop(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Stop


@pytest.mark.parametrize("scheme", [AVERAGE, SLOW_LEARNED], ids=["average", "learned"])
def test_interrupted_and_resumed_is_as_if_it_was_not(data, tmp_path, scheme):
    float_model = build()

    def model():
        fresh = tfc.quantize_aware(float_model, scheme=scheme)
        fresh.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        return fresh

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [backup, tfc.FreezeRanges(epoch=3), *more]

    whole = model()
    fit(whole, data, epochs=4, callbacks=[tfc.FreezeRanges(epoch=3)])
    with pytest.raises(Stop):
        fit(model(), data, epochs=4, callbacks=callbacks(Interrupt(2)))
    resumed = model()
    fit(resumed, data, epochs=4, callbacks=callbacks())
    for left, right in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=left.path)
    assert all(layer.frozen for layer in fake_quants(resumed))


def test_saved_loaded_and_trained_on(data, tmp_path):
    model = quantized(jit_compile=False)
    fit(model, data)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for trained in (model, loaded):
        fit(trained, data)
        check(trained, data, moving_average(data[0], epochs=4))
    for left, right in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_checkpoints_and_early_stopping_bring_ranges_back(data, tmp_path):
    model = quantized(jit_compile=False)
    fit(model, data, epochs=1)
    x, y = data
    # Noise on targets that grows: the first epoch stays the best.
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    path = tmp_path / "best.weights.h5"
    save = keras.callbacks.ModelCheckpoint(path, "val_loss", True, save_weights_only=True)
    save.save_best_only = True
    model.optimizer.learning_rate = 0.5
    history = fit(model, data, epochs=20, callbacks=[stop, save], validation_data=(x, y))
    losses = history.history["val_loss"]
    assert len(losses) < 20
    best = int(np.argmin(losses))
    check(model, data, moving_average(x, epochs=2 + best))
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), min(losses), rtol=1e-5)
    fresh = tfc.quantize_aware(build())
    fresh.load_weights(path)
    np.testing.assert_array_equal(fresh.predict(x, verbose=0), model.predict(x, verbose=0))


def test_evaluation_and_prediction_move_nothing(data):
    model = quantized(jit_compile=False)
    fit(model, data, epochs=1, validation_data=(10 * data[0], data[1]))
    check(model, data, moving_average(data[0]))
    before = model.get_weights()
    model.evaluate(10 * data[0], data[1], verbose=0)
    model.predict(10 * data[0], verbose=0)
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_several_inputs_and_outputs(data):
    x, y = data
    a, b = keras.Input((12,), name="a"), keras.Input((12,), name="b")
    shared = layers.Dense(6, "relu", name="shared")
    joined = layers.Concatenate(name="joined")([shared(a), shared(b)])
    first = layers.Dense(3, name="first")(joined)
    second = layers.Dense(1, "sigmoid", name="second")(joined)
    float_model = keras.Model({"a": a, "b": b}, {"first": first, "second": second})
    model = tfc.quantize_aware(float_model)
    loss = {"first": "mse", "second": "binary_crossentropy"}
    model.compile("adam", loss, jit_compile=False, metrics={"second": "accuracy"})
    targets = {"first": y, "second": (y[:, :1] > 0).astype(np.float32)}
    history = fit(model, ({"a": x, "b": 3 * x}, targets))
    assert {"first_loss", "second_loss", "second_accuracy"} < set(history.history)
    ranges = {layer.name: layer.range() for layer in fake_quants(model)}
    for name, factor in (("a", 1), ("b", 3)):
        expected = moving_average(factor * x, epochs=2)
        np.testing.assert_allclose(ranges[f"fake_quant_{name}"], expected, rtol=1e-5)
    predicted = model.predict({"a": x, "b": 3 * x}, verbose=0)
    assert predicted["first"].shape == (64, 3)
    # A sigmoid's int8 output goes by 1 / 256.
    np.testing.assert_array_equal(predicted["second"] * 256 % 1, 0)


def image_net():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    norm = layers.BatchNormalization(name="bn", moving_mean_initializer="random_normal")
    x = layers.ReLU(name="relu")(norm(x))
    x = layers.Conv2D(8, 3, activation="relu", name="middle")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, name="head")(x))


IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
CLASSES = np.random.default_rng(1).integers(0, 10, 64)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The int8 file of a pruned model that went through QAT with KeepZeros, and that model."""
    model = image_net()
    tfc.prune_weights(model, 0.7)
    qat = tfc.quantize_aware(model)
    qat.compile("adam", CROSSENTROPY, jit_compile=False)
    qat.fit(IMAGES, CLASSES, batch_size=16, epochs=2, verbose=0, callbacks=[tfc.KeepZeros()])
    path = tmp_path_factory.mktemp("pruned") / "pruned.tflite"
    return model, qat, converters.convert(qat, path, converters.Int8(), strict=True)


def test_keep_zeros(pruned):
    model, qat, _ = pruned
    for before, after in zip(kernels(model), kernels(qat), strict=True):
        zero = before.numpy() == 0
        assert zero.mean() == pytest.approx(0.7, abs=0.01)
        np.testing.assert_array_equal(after.numpy()[zero], 0)
        assert np.all(before.numpy()[~zero] != after.numpy()[~zero])


def test_zeros_are_zeros_of_int8(pruned):
    model, qat, file = pruned
    stored = {
        tensor.shape: tensor.sparsity
        for tensor in converters.inspect(file).constants
        if tensor.dtype == "int8"
    }
    # As TFLite has them: outputs first.
    for kernel in kernels(model):
        shape = kernel.variable.shape
        mine = (shape[-1], *shape[:-1])
        # Small weights may become zeros besides.
        assert stored[mine] >= 0.69, kernel.path
    verified = converters.verify(qat, file, IMAGES)
    verified.raise_if_above(lsb=1)


@pytest.mark.parametrize("scheme", [AVERAGE, SLOW_LEARNED], ids=["average", "learned"])
def test_pruned_while_quantization_aware(data, scheme):
    model = quantized(scheme=scheme, jit_compile=False)
    schedule = schedules.Polynomial(0.0, 0.75, begin=2, end=12, frequency=3)
    fit(model, data, callbacks=[tfc.Prune(schedule)])
    for kernel in kernels(model):
        new = kernel.numpy()
        assert np.sum(new == 0) == round(0.75 * new.size), kernel.path
    fit(model, data, callbacks=[tfc.KeepZeros()])
    for kernel in kernels(model):
        assert np.mean(kernel.numpy() == 0) == pytest.approx(0.75, abs=0.02)
    # What the wrapper reads holds zeros at the same places.
    wrapper = model.get_layer("quantized_hidden")
    (kernel,) = [k for k in kernels(model) if k.path.endswith("hidden/kernel")]
    rounded = np.asarray(wrapper.executor().kernel(wrapper.layer, "kernel"))
    assert not np.any(rounded[kernel.numpy() == 0])


def test_the_same_kernels_as_the_float_model_has():
    """Learned limits and ranges are not weights to prune."""
    x = keras.Input((5, 8))
    y = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    y = layers.SeparableConv1D(6, 3, name="separable")(y)
    y = layers.Bidirectional(layers.GRU(4), name="both")(y)
    model = keras.Model(x, layers.Dense(3, name="head")(y))
    for scheme in (AVERAGE, LEARNED):
        found = kernels(tfc.quantize_aware(model, scheme=scheme), depthwise=True)
        expected = kernels(model, depthwise=True)
        assert [k.variable.name for k in found] == [k.variable.name for k in expected]
        for left, right in zip(found, expected, strict=True):
            assert left.output_axes == right.output_axes
            np.testing.assert_array_equal(left.numpy(), right.numpy())


FLOAT = [
    ({"float_first": True}, {"conv"}),
    ({"float_first": True, "float_last": True}, {"conv", "head"}),
    ({"exclude": "middle"}, {"middle"}),
    ({"exclude": ["middle", "head"]}, {"middle", "head"}),
    ({"filters": "middle|head"}, {"conv"}),
    (
        {"filters": lambda layer: isinstance(layer, layers.Conv2D), "exclude": "mid"},
        {"middle", "head"},
    ),
]


@pytest.mark.parametrize(("options", "in_float"), FLOAT, ids=[as_id(o) for o, _ in FLOAT])
def test_layers_kept_in_float(options, in_float):
    qat = tfc.quantize_aware(image_net(), **options)
    wrappers = [layer for layer in qat.layers if isinstance(layer, QuantizeWrapper)]
    kept = {layer.layer.name for layer in wrappers if layer.in_float}
    assert in_float <= kept
    assert not (kept - in_float) & {"conv", "middle", "head"}
    assert in_float <= {row.path for row in tfc.qat_report(qat).floating}


@pytest.mark.parametrize(
    "options", [pytest.param(FLOAT[1][0], marks=SLOW), FLOAT[2][0]], ids=["ends", "middle"]
)
def test_layers_kept_in_float_are_so_in_the_file(options, tmp_path):
    in_float = next(names for these, names in FLOAT if these is options)
    qat = tfc.calibrate(tfc.quantize_aware(image_net(), **options), IMAGES)
    file = converters.convert(qat, tmp_path / "model.tflite", converters.Int8())
    assert len(file.float_macs) == len(in_float)
    for op in file.float_macs:
        assert any(name in str(op) for name in in_float), str(op)
    found = converters.inspect(file)
    dtypes = [
        found.tensors[node.inputs[1]].dtype
        for node in found.nodes
        if node.op in ("CONV_2D", "FULLY_CONNECTED")
    ]
    order = ["conv", "middle", "head"]
    assert dtypes == ["float32" if name in in_float else "int8" for name in order]
    result = converters.verify(qat, file, IMAGES)
    if "head" in in_float:
        # Float to the end: no output step. 1e-3 is one of int8's before, through the last layer.
        assert result.outputs[0].max_error < 0.02
    else:
        result.raise_if_above(lsb=1)


@SLOW
def test_distributed_over_two_cpus():
    on_two_cpus("""
        import tfcompress as tfc
        from tfcompress.quantization.fake_quant import fake_quants

        rng = np.random.default_rng(0)
        x = rng.normal(size=(64, 8, 8, 2)).astype("float32")
        y = rng.normal(size=(64, 3)).astype("float32")
        for ranges in ("moving_average", "learned"):
            keras.utils.set_random_seed(0)
            with strategy.scope():
                image = keras.Input((8, 8, 2))
                z = keras.layers.Conv2D(4, 3, use_bias=False)(image)
                z = keras.layers.ReLU()(keras.layers.BatchNormalization()(z))
                z = keras.layers.Dense(3)(keras.layers.Flatten()(z))
                scheme = tfc.QuantizationScheme(ranges=ranges)
                model = tfc.quantize_aware(keras.Model(image, z), scheme=scheme)
                model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
            before = model.get_weights()
            freeze = [tfc.FreezeRanges(epoch=1), tfc.FreezeBatchNorm(epoch=1)]
            options = {"batch_size": 8, "shuffle": False, "verbose": 0}
            model.fit(x, y, epochs=2, callbacks=freeze, **options)
            for variable in model.variables:
                if "moving" in variable.path:
                    continue  # Keras itself lets each replica have its own.
                replicas = [value.numpy() for value in variable.value.values]
                assert len(replicas) == 2
                np.testing.assert_array_equal(*replicas, err_msg=variable.path)
            assert all(np.isfinite(w).all() for w in model.get_weights())
            assert all(layer.frozen for layer in fake_quants(model))
            if ranges == "moving_average":
                # The replicas' mean: each has half of a batch.
                low = high = None
                for start in range(0, 64, 8):
                    halves = x[start : start + 8].reshape(2, -1)
                    down, up = halves.min(1).mean(), halves.max(1).mean()
                    low = down if low is None else 0.99 * low + 0.01 * down
                    high = up if high is None else 0.99 * high + 0.01 * up
                found = next(fake_quants(model)).range()
                np.testing.assert_allclose(found, (low, high), rtol=1e-5)
            tfc.calibrate(model, x)
            found = next(fake_quants(model)).range()
            np.testing.assert_allclose(found, (x.min(), x.max()), rtol=1e-6)
    """)
