"""What `quantize_aware` makes of a model, what it refuses, and the way back."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.quantization.fake_quant import FakeQuant, fake_quants
from tfcompress.quantization.wrapper import QuantizeWrapper

RNG = np.random.default_rng(0)
OFFSET = 1.0


def images(count=4):
    return RNG.normal(size=(count, 8, 8, 3)).astype(np.float32)


def normalization(name):
    """Batch normalization that has seen data."""
    return layers.BatchNormalization(name=name, moving_mean_initializer="random_normal")


def residual():
    """Convolution, normalization and ReLU, twice, with a sum around the second."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv_1")(x)
    x = layers.ReLU(6.0, name="relu_1")(normalization("bn_1")(x))
    y = layers.Conv2D(4, 3, padding="same", activation="swish", name="conv_2")(x)
    x = layers.ReLU(name="relu_2")(layers.Add(name="sum")([x, y]))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Dropout(0.5, name="drop")(layers.Flatten(name="flat")(x))
    return keras.Model(image, layers.Dense(5, activation="softmax", name="classes")(x))


def wrappers(model):
    return {
        layer.layer.name: [part.name for part in layer.then]
        for layer in model.layers
        if isinstance(layer, QuantizeWrapper)
    }


def ranged(model):
    """Layers whose outputs a FakeQuant rounds."""
    return [
        layer._inbound_nodes[0].input_tensors[0]._keras_history.operation.name
        for layer in model.layers
        if isinstance(layer, FakeQuant)
    ]


def randomize(model):
    """Statistics and factors that are not those of a fresh batch normalization."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape))


def test_one_wrapper_per_op_and_a_range_per_tensor():
    qat = tfc.quantize_aware(residual())
    assert wrappers(qat) == {
        "conv_1": ["bn_1", "relu_1"],
        "conv_2": [],
        "sum": [],
        "classes": [],
    }
    # Not after the sum, which its ReLU is fused with; not after pooling, which moves values about.
    assert ranged(qat) == [
        "image",
        "quantized_conv_1",
        "quantized_conv_2",
        "relu_2",
        "quantized_classes",
    ]
    assert qat.get_layer("classes").fixed == (0.0, 255 / 256)
    # What comes before swish and softmax is a tensor, too.
    assert list(qat.get_layer("quantized_conv_2").inner) == ["linear"]
    assert list(qat.get_layer("quantized_classes").inner) == ["linear"]
    assert len(list(fake_quants(qat))) == 6


def test_a_batch_normalization_that_others_read_too_is_not_absorbed():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    z = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(y))
    qat = tfc.quantize_aware(keras.Model(x, layers.Add(name="sum")([y, z])))
    assert wrappers(qat) == {"conv": [], "bn": ["relu"], "sum": []}
    assert "quantized_conv" in ranged(qat)


def test_concatenation_has_one_range_for_all():
    x = keras.Input((8, 8, 3), name="image")
    branches = [layers.Conv2D(2, 3, name=f"conv_{i}")(x) for i in range(3)]
    y = layers.Concatenate(name="joined")(branches)
    qat = tfc.quantize_aware(keras.Model(x, layers.Conv2D(2, 1, name="last")(y)))
    (shared,) = [layer for layer in fake_quants(qat) if layer.calls > 1]
    assert shared.calls == 3
    assert len(list(fake_quants(qat))) == 3


def test_scheme_reaches_every_range():
    scheme = tfc.QuantizationScheme(ranges="learned", momentum=0.5, symmetric_activations=True)
    qat = tfc.quantize_aware(residual(), scheme=scheme)
    found = list(fake_quants(qat))
    assert len(found) == 6
    assert {(f.ranges, f.momentum, f.symmetric) for f in found} == {("learned", 0.5, True)}
    tfc.calibrate(qat, images())
    for layer in found:
        low, high = layer.range()
        np.testing.assert_allclose(low, -high * 128 / 127, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranges": "mean"}, "ranges='mean'"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
    ],
)
def test_schemes_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfc.QuantizationScheme(**arguments)


def test_the_original_stays_as_it_is():
    model = residual()
    randomize(model)
    model.compile("adam", "mse", jit_compile=False)
    config, weights = json.dumps(model.get_config()), model.get_weights()
    x = images()
    expected = model.predict(x, verbose=0)
    qat = tfc.quantize_aware(model)
    qat.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    qat.fit(x, np.arange(4), verbose=0)
    tfc.strip(qat)
    assert json.dumps(model.get_config()) == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    mine = {id(v) for v in model.variables}
    assert not any(id(v) in mine for v in qat.variables)
    # Trained itself, the original does not move the other.
    weights = qat.get_weights()
    model.fit(x, np.zeros((4, 5)), verbose=0)
    for before, after in zip(weights, qat.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_it_computes_nearly_what_the_float_model_does():
    model = residual()
    randomize(model)
    qat = tfc.quantize_aware(model)
    x = images(32)
    tfc.calibrate(qat, x)
    error = np.abs(qat(x) - model(x))
    # Six roundings of half a step at the most, of scores that a softmax flattens.
    assert 0 < error.max() < 0.05
    assert error.mean() < 0.005


# The way back.


def equal_floats(model, qat, x, tolerance=1e-6):
    """`strip` computes what the original does, with the same layers, names and weights."""
    stripped = tfc.strip(qat)
    for left, right in zip(stripped.layers, model.layers, strict=True):
        # Nested sequential models become functional.
        assert type(left) is type(right) or isinstance(right, keras.Sequential)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]
    for left, right in zip(stripped.layers, model.layers, strict=True):
        for mine, theirs in zip(left.variables, right.variables, strict=True):
            assert mine.name == theirs.name
            np.testing.assert_array_equal(mine, theirs)
    found, expected = (keras.tree.flatten(m(x)) for m in (stripped, model))
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
    return stripped


def test_strip_gives_the_float_model_back():
    model = residual()
    randomize(model)
    stripped = equal_floats(model, tfc.quantize_aware(model), images())
    assert stripped.get_layer("conv_2").activation is keras.activations.silu
    assert stripped.count_params() == model.count_params()
    # And again there and back.
    equal_floats(model, tfc.quantize_aware(stripped), images())


@pytest.mark.parametrize(
    "scheme",
    [
        tfc.QuantizationScheme(),
        pytest.param(
            tfc.QuantizationScheme("learned"), marks=pytest.mark.slow("traces learned ranges")
        ),
    ],
    ids=str,
)
def test_strip_has_the_weights_as_trained(tmp_path, scheme):
    qat = tfc.quantize_aware(residual(), scheme=scheme)
    qat.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    qat.fit(images(8), np.arange(8) % 5, verbose=0)
    model = tfc.strip(qat)
    trained = {v.path.rpartition("quantized_")[2]: v.numpy() for v in qat.variables}
    assert model.count_params() > 0
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        layer, _, name = variable.path.rpartition("/")
        matching = [v for path, v in trained.items() if path.endswith(f"{layer}/{name}")]
        assert len(matching) == 1, variable.path
        np.testing.assert_array_equal(variable, matching[0])
    # An ordinary model: nothing of ours is in its file.
    model.save(tmp_path / "model.keras")
    assert "tfcompress" not in json.dumps(keras.saving.serialize_keras_object(model))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images()
    np.testing.assert_array_equal(loaded(x), model(x))


def test_nested_and_shared_layers_stay_so():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same"), layers.ReLU()], name="inner"
    )
    shared = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    image = keras.Input((8, 8, 3))
    x = shared(inner(shared(image)))
    x = layers.Add(name="sum")([inner(x), x])
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="mean")(x))
    qat = tfc.quantize_aware(model)
    # Kernels and biases of two convolutions, each once.
    assert sum("conv" in v.path or "shared" in v.path for v in qat.trainable_variables) == 4
    found = qat.get_layer("inner")
    assert isinstance(found, keras.Model)
    assert any(isinstance(layer, QuantizeWrapper) for layer in found.layers)
    assert len(qat.get_layer("quantized_shared")._inbound_nodes) == 2
    stripped = equal_floats(model, qat, images(), tolerance=1e-5)
    assert len(stripped.get_layer("shared")._inbound_nodes) == 2
    assert stripped.get_layer("inner").count_params() == inner.count_params()


def test_raw_operations_and_structures():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = ops.concatenate([layers.Dense(4, name="dense")(a), b * 2.0], axis=-1)
    y = ops.sum(ops.reshape(ops.relu(x), (-1, 5, 2)), axis=1)
    model = keras.Model({"a": a, "b": b}, {"sums": y, "all": [x, layers.Dense(2, name="last")(y)]})
    qat = tfc.quantize_aware(model)
    data = {"a": RNG.normal(size=(3, 6)), "b": RNG.normal(size=(3, 6))}
    data = {name: array.astype(np.float32) for name, array in data.items()}
    found, expected = qat(data), model(data)
    keras.tree.assert_same_structure(found, expected)
    equal_floats(model, qat, data)


def test_a_lambda_keeps_the_names_around_its_function():
    x = keras.Input((6,))
    y = layers.Lambda(lambda t: ops.abs(t) + OFFSET, name="lambda")(layers.Dense(4)(x))
    model = keras.Model(x, layers.Dense(2)(y))
    qat = tfc.quantize_aware(model)
    equal_floats(model, qat, RNG.normal(size=(16, 6)).astype(np.float32))


def test_a_custom_layer(tmp_path):
    @keras.saving.register_keras_serializable("test_quantize")
    class Scaled(layers.Layer):
        """A kernel of its own."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], self.units), name="matrix")

        def call(self, x):
            return 2.0 * ops.matmul(x, self.matrix)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(2)(Scaled(4, name="scaled")(x)))
    qat = tfc.quantize_aware(model)
    assert "scaled" in wrappers(qat)
    data = RNG.normal(size=(16, 6)).astype(np.float32)
    equal_floats(model, qat, data)
    # Its kernel is rounded where it is read: nothing else is, as long as no range is known.
    matrix = model.get_layer("scaled").matrix.numpy()
    step = np.abs(matrix).max(axis=0) / 127
    inner = keras.Model(qat.input, qat.get_layer("quantized_scaled").output)
    expected = 2 * data @ (np.round(matrix / step) * step)
    np.testing.assert_allclose(inner(data), expected, rtol=1e-5, atol=1e-5)
    tfc.calibrate(qat, data)
    qat.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(loaded(data), qat(data))


def test_losses_of_a_layer_count_once():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1"),
            layers.Dense(2, bias_regularizer="l2"),
        ]
    )
    randomize(model)
    qat = tfc.quantize_aware(model)
    x = RNG.normal(size=(8, 6)).astype(np.float32)
    for each in (model, qat):
        each(x, training=True)
    found, expected = (sorted(float(loss) for loss in m.losses) for m in (qat, model))
    # The activity is that of rounded kernels.
    np.testing.assert_allclose(found, expected, rtol=0.02)


# Bad input.


def dense(**options):
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head", **options)], name="m")


class WithTraining(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x, training=None):
        return self.dense(x)


class NoConfig(layers.Layer):
    def __init__(self, units, secret):
        super().__init__()
        self.dense = layers.Dense(units)
        self.secret = secret

    def call(self, x, training=False):  # A layer whose `call` is read as a graph needs no config.
        return self.dense(2 * x if training else x)


def subclassed():
    model = WithTraining()
    model(np.zeros((1, 4)))
    return model


def with_nan():
    model = dense()
    model.layers[0].kernel.assign(np.full((4, 2), np.nan))
    return model


def strings():
    text = keras.Input((), dtype="string", name="text")
    vectorize = layers.TextVectorization(vocabulary=["a"], output_sequence_length=4)
    return keras.Model(text, layers.Embedding(3, 2)(vectorize(text)))


def without_config():
    x = keras.Input((4,))
    return keras.Model(x, NoConfig(2, object())(x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model.keras", TypeError, r"keras\.Model"),
        (lambda: keras.Sequential([layers.Dense(2)]), ValueError, "not built"),
        (subclassed, ValueError, r"subclassed \(WithTraining\).*functional"),
        (lambda: tfc.quantize_aware(dense()), ValueError, "'m' is quantization-aware.*strip"),
        (with_nan, ValueError, "head/kernel'.*NaN"),
        (strings, ValueError, "'text'.*strings"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), ValueError, "no weights"),
        (without_config, ValueError, r"\(NoConfig\) cannot be copied.*get_config"),
    ],
    ids=["a path", "unbuilt", "subclassed", "twice", "NaN", "strings", "empty", "no config"],
)
def test_refused_models(make, error, message):
    model = make()
    with pytest.raises(error, match=message):
        tfc.quantize_aware(model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"filters": "nothing"}, ValueError, "filters='nothing'.*There are: .*head"),
        ({"exclude": ["head", "tail"]}, ValueError, "'tail' in `exclude`.*head"),
        ({"filters": []}, ValueError, "empty"),
        ({"filters": "(("}, ValueError, "regular expression"),
        ({"exclude": 3}, TypeError, "Received: 3"),
        ({"scheme": "int8"}, TypeError, "QuantizationScheme.*'int8'"),
        ({"scheme": tfc.QuantizationScheme}, TypeError, "QuantizationScheme"),
    ],
    ids=str,
)
def test_refused_arguments(options, error, message):
    with pytest.raises(error, match=message):
        tfc.quantize_aware(dense(), **options)


def test_integer_inputs_are_fine_where_weights_follow():
    words = keras.Input((5,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4, name="table")(words))
    model = keras.Model(words, layers.Dense(2)(x))
    qat = tfc.quantize_aware(model)
    assert qat.inputs[0].dtype == "int32"
    equal_floats(model, qat, RNG.integers(0, 20, (3, 5)))


def test_export_says_that_nothing_is_known(tmp_path):
    qat = tfc.quantize_aware(residual())
    path = tmp_path / "model.tflite"
    with pytest.raises(converters.ConversionError, match=r"neither.*trained nor calibrated"):
        converters.convert(qat, path, converters.Int8())
    assert not path.exists()
    # A range that training has broken.
    tfc.calibrate(qat, images())
    next(fake_quants(qat)).high.assign(np.nan)
    with pytest.raises(converters.ConversionError, match=r"fake_quant_image/high.*NaN.*diverged"):
        converters.convert(qat, path, converters.Int8())
    assert not path.exists()


def test_tensors_that_are_zero_throughout_have_a_file(tmp_path):
    image = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same")(image)
    below = keras.initializers.Constant(-100.0)
    dead = layers.Conv2D(4, 3, activation="relu", bias_initializer=below)
    zero = layers.BatchNormalization(gamma_initializer="zeros", moving_mean_initializer="ones")
    model = keras.Model(
        image,
        {
            "kernel": layers.Conv2D(2, 1)(layers.Conv2D(4, 3, kernel_initializer="zeros")(image)),
            "relu": layers.Dense(2, bias_initializer="ones")(layers.Flatten()(dead(image))),
            "gamma": layers.Add()([y, zero(y)]),
            "factor": layers.Conv2D(2, 1)(0.0 * y),
            "depthwise": layers.SeparableConv2D(2, 3, depthwise_initializer="zeros")(y),
        },
    )
    x = images(8)
    qat = tfc.calibrate(tfc.quantize_aware(model), x)
    file = converters.convert(qat, tmp_path / "model.tflite", converters.Int8(), batch_size=1)
    for delegate in ("xnnpack", "reference"):
        converters.verify(qat, file, x, delegate=delegate).raise_if_above(lsb=1.01)


@pytest.mark.parametrize("function", [tfc.strip, tfc.qat_report])
def test_what_is_not_quantization_aware(function):
    with pytest.raises(ValueError, match="'m'"):
        function(dense())
    with pytest.raises(TypeError, match=r"keras\.Model"):
        function(None)


# What the layers of a model may be.


def test_a_subclass_with_another_constructor_keeps_the_rule():
    class WithoutGroups(layers.DepthwiseConv2D):
        def __init__(self, *args, groups=1, **kwargs):
            super().__init__(*args, **kwargs)

    x = keras.Input((6, 6, 3))
    y = WithoutGroups(3, use_bias=False, name="conv")(x)
    y = layers.ReLU(6.0, name="relu")(layers.BatchNormalization(name="bn")(y))
    model = keras.Model(x, y)
    randomize(model)
    qat = tfc.quantize_aware(model)
    assert wrappers(qat) == {"conv": ["bn", "relu"]}
    equal_floats(model, qat, RNG.normal(size=(2, 6, 6, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "first"),
    [
        ("uint8", lambda: layers.Rescaling(1 / 127.5, offset=-1.0)),
        ("int32", lambda: layers.Normalization(mean=100.0, variance=2500.0, axis=None)),
        ("int32", lambda: layers.Dense(3, kernel_initializer=keras.initializers.Constant(0.01))),
    ],
    ids=["Rescaling", "Normalization", "Dense"],
)
def test_integers_become_floats_before_they_are_rounded(dtype, first):
    x = keras.Input((6,), dtype=dtype, name="bytes")
    model = keras.Model(
        x,
        layers.Dense(2, "relu", kernel_initializer="ones", name="head")(
            layers.ReLU()(first()(inputs=x))
        ),
    )
    data = RNG.integers(0, 256, (32, 6)).astype(dtype)
    qat = tfc.calibrate(tfc.quantize_aware(model), data)
    fixed = qat.get_layer("fake_quant_bytes").fixed
    assert fixed == ((0.0, 255.0) if dtype == "uint8" else None)
    assert qat(data, training=True).shape == (32, 2)
    # Two roundings of half a step, and those of the kernels.
    assert np.abs(qat(data) - model(data)).max() < 0.03 * np.abs(model(data)).max()
    equal_floats(model, qat, data)


def test_an_input_that_is_only_made_categories_of_is_not_rounded():
    x = keras.Input((3,), name="x")
    y = layers.Discretization([0.0, 0.5], output_mode="one_hot", name="bins")(x)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    qat = tfc.quantize_aware(model)
    assert [layer.name for layer in fake_quants(qat) if layer.detached] == ["fake_quant_bins"]
    assert "fake_quant_x" not in [layer.name for layer in qat.layers]


def decayed(x):
    return 0.9 * ops.square(ops.relu(x)) - 0.4


def small(weights):
    return 1e-4 * ops.sum(ops.abs(weights))


class Small(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return small(weights)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "options",
    [
        {"activation": tf.nn.silu},
        {"activation": decayed},
        {"kernel_regularizer": small},
        {"kernel_regularizer": Small()},
        {"kernel_constraint": decayed},
    ],
    ids=lambda options: next(iter(options)),
)
def test_functions_need_no_registration_to_be_copied(options):
    x = keras.Input((6,))
    y = layers.Dense(4, name="pruned")(layers.Dense(4, **options, name="own")(x))
    model = keras.Model(x, layers.Dense(2)(y))
    stripped = equal_floats(model, tfc.quantize_aware(model), images(1).reshape(-1, 6))
    for name, value in options.items():
        found = getattr(stripped.get_layer("own"), name)
        assert found is value or type(found) is type(value)
    cut = tfc.prune_channels(model, 0.5, filters="pruned").get_layer("own")
    assert cut.activation is model.get_layer("own").activation


def test_tied_weights_are_warned_of():
    class Transposed(layers.Layer):
        def __init__(self, other, **kwargs):
            super().__init__(**kwargs)
            self.other = other

        def call(self, x):
            return ops.matmul(x, ops.transpose(self.other.kernel))

        def get_config(self):
            other = keras.saving.serialize_keras_object(self.other)
            return {**super().get_config(), "other": other}

        @classmethod
        def from_config(cls, config):
            other = keras.saving.deserialize_keras_object(config.pop("other"))
            return cls(other, **config)

    x = keras.Input((8,))
    encoder = layers.Dense(4, use_bias=False, name="encoder")
    model = keras.Model(x, Transposed(encoder, name="decoder")(encoder(x)))
    for function in (tfc.quantize_aware, lambda m: tfc.factorize(m, energy=0.5)):
        with pytest.warns(UserWarning, match="'encoder' and 'decoder' share 'encoder/kernel'"):
            function(model)


def test_a_head_that_is_tied_to_a_nested_body_keeps_its_name_and_weights():
    table = layers.ReversibleEmbedding(20, 4, name="tokens")
    words = keras.Input((5,), dtype="int32")
    body = keras.Model(words, layers.Dense(4)(table(words)), name="body")
    outer = keras.Input((5,), dtype="int32")
    model = keras.Model(outer, table(body(outer), reverse=True))
    qat = tfc.quantize_aware(model)
    assert qat.output_names == ["tokens"]
    assert len(qat.trainable_variables) == len(model.trainable_variables)
    equal_floats(model, qat, RNG.integers(0, 20, (3, 5)))


def test_a_normalization_is_not_absorbed_where_another_graph_calls_the_layer():
    conv = layers.Conv2D(3, 1, name="conv")
    x = keras.Input((4, 4, 3))
    body = keras.Model(x, layers.BatchNormalization(name="bn")(conv(x)), name="body")
    outer = keras.Input((4, 4, 3))
    model = keras.Model(outer, conv(body(outer)))
    randomize(model)
    data = RNG.normal(size=(8, 4, 4, 3)).astype(np.float32)
    qat = tfc.calibrate(tfc.quantize_aware(model), data)
    assert np.abs(qat(data) - model(data)).max() < 0.05 * np.abs(model(data)).max()
    equal_floats(model, qat, data, tolerance=1e-5)
