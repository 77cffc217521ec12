"""`batch_norm` against Keras' own BatchNormalization: the same but for the last float32 bits."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress import quantize_aware
from tfcompress.quantization.numerics import fake_quant_kernel
from tfcompress.quantization.ops.batch_norm import batch_norm

SHAPES = [(8, 6, 5, 3), (1, 4, 4, 2), (7, 1, 1, 3), (2, 1, 1, 1), (3, 9, 1, 4)]
# Both sum up to a few hundred float32 in another order; x - mean cancels digits, which the division
# by the deviation, some 0.5 here, carries on.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture
def fused(monkeypatch):
    """How often TensorFlow's fused op was used."""
    calls = []
    op = tf.compat.v1.nn.fused_batch_norm

    def spy(*args, **kwargs):
        calls.append(1)
        return op(*args, **kwargs)

    monkeypatch.setattr(tf.compat.v1.nn, "fused_batch_norm", spy)
    return calls


def sample(shape, seed=0, offset=1.0):
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 2.0, shape[-1])
    return (rng.normal(size=shape) * scales + offset).astype(np.float32)


def layer_for(shape, **options):
    layer = layers.BatchNormalization(**options)
    layer.build((None, *shape[1:]))
    rng = np.random.default_rng(1)
    for variable in layer.variables:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    return layer


def train_step(function, layer, x):
    """Outputs, gradients of x, gamma and beta, and moving statistics."""
    x = tf.convert_to_tensor(x)
    weights = sample(x.shape, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(tf.cast(y, "float32") * weights)
    gradients = tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])
    return [y, *gradients, *[v.value for v in layer.non_trainable_variables]]


def compare(shape, x, how=lambda f: f, tolerance=CLOSE, **options):
    ours, theirs = layer_for(shape, **options), layer_for(shape, **options)
    fused = how(lambda x: batch_norm(ours, x, True))
    keras_own = how(lambda x: theirs(x, training=True))
    for step in range(3):  # Moving statistics move on from where they are.
        step_x = x + tf.cast(step, x.dtype)
        found = train_step(fused, ours, step_x)
        expected = train_step(keras_own, theirs, step_x)
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_allclose(
                tf.cast(left, "float32"), tf.cast(right, "float32"), **tolerance
            )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "momentum": 0.6}])
def test_it_equals_keras(shape, options, fused):
    compare(shape, sample(shape), **options)
    assert fused


def test_scale_and_center_off_and_another_epsilon(fused):
    compare(SHAPES[0], sample(SHAPES[0]), scale=False, center=False, epsilon=0.1)
    assert len(fused) == 3


def test_far_from_zero(fused):
    """Where the mean is 10 deviations, and so a variance of squares loses two digits."""
    x = sample(SHAPES[0], offset=10.0)
    compare(SHAPES[0], x, tolerance={"rtol": 1e-3, "atol": 1e-3})
    assert fused


def test_variance_is_the_batchs_own(fused):
    """Divided by n, not by n - 1 as the fused op has it: with n = 2 that is half."""
    shape = (2, 1, 1, 1)
    layer = layers.BatchNormalization(momentum=0.0)
    layer.build(shape)
    batch_norm(layer, tf.reshape([1.0, 3.0], shape), True)
    np.testing.assert_allclose(layer.moving_mean, [2.0], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [1.0], rtol=1e-6)
    assert fused


@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph_with_a_free_batch(jit):
    def how(function):
        spec = tf.TensorSpec((None, 6, 5, 3))
        return tf.function(function, input_signature=[spec], jit_compile=jit)

    compare((8, 6, 5, 3), tf.constant(sample((8, 6, 5, 3))), how)


def test_mixed_precision(fused):
    """Outputs and inputs in float16, sums and statistics in float32."""
    x = tf.cast(sample(SHAPES[0]), "float16")
    # float16 outputs near 4 are good to 2^-9; Keras and TensorFlow round at different places.
    compare(SHAPES[0], x, tolerance={"rtol": 4e-3, "atol": 4e-3}, dtype="mixed_float16")
    assert fused


@pytest.mark.parametrize(
    ("policy", "dtype"), [("float32", "float16"), ("mixed_float16", "float32")]
)
def test_the_layer_says_what_it_computes_in(policy, dtype):
    """Batch normalization in float32 inside a net in half precision, say."""
    x = tf.cast(sample(SHAPES[0]), dtype)
    compare(SHAPES[0], x, tolerance={"rtol": 4e-3, "atol": 4e-3}, dtype=policy)


@pytest.mark.parametrize("training", [True, False])
def test_inference_and_frozen_layers_use_the_moving_statistics(training, fused):
    layer = layer_for(SHAPES[0])
    layer.trainable = not training
    before = layer.get_weights()
    x = sample(SHAPES[0])
    np.testing.assert_array_equal(batch_norm(layer, x, training), layer(x, training=False))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not fused


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 3), {}),
        ((8, 5, 3), {}),
        ((2, 3, 4, 5, 3), {}),
        ((4, 6, 5, 3), {"axis": 1}),
        ((4, 6, 5, 3), {"epsilon": 1e-6}),
        ((4, 6, 5, 3), {"dtype": "float64"}),
        ((4, 6, 5, 3), {"dtype": "mixed_bfloat16"}),
    ],
    ids=str,
)
def test_what_the_fused_op_cannot_do_is_left_to_keras(shape, options, fused):
    policy = keras.dtype_policies.get(options.get("dtype", "float32"))
    compare(shape, tf.cast(sample(shape), policy.compute_dtype), **options)
    assert not fused


def test_masked_steps_do_not_count(fused):
    shape = (4, 6, 3)
    ours, theirs = layer_for(shape), layer_for(shape)
    x = sample(shape)
    mask = np.arange(6) < np.array([[6], [3], [1], [4]])
    found = batch_norm(ours, x, True, mask=mask)
    np.testing.assert_array_equal(found, theirs(x, training=True, mask=mask))
    np.testing.assert_array_equal(ours.moving_mean, theirs.moving_mean)
    assert not fused


def test_a_whole_model_normalizes_as_keras_does(fused):
    """The wrapper's BatchNormalization against the float model's, where nothing is rounded yet."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    model = keras.Model(image, layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x)))
    qat = quantize_aware(model)
    # Kernels are rounded: give the float model the same ones.
    wrapper = next(layer for layer in qat.layers if layer.name.startswith("quantized_"))
    kernel = model.layers[1].kernel
    kernel.assign(fake_quant_kernel(kernel.value, (3,)))
    for layer in qat.layers:
        if hasattr(layer, "frozen"):
            layer.frozen = True  # and unknown, so that activations pass through
    x = sample((5, 6, 6, 2))
    expected = model(x, training=True)
    np.testing.assert_allclose(qat(x, training=True), expected, **CLOSE)
    ours = {v.name: v for v in wrapper.then[0].variables}
    for variable in model.layers[2].variables:
        np.testing.assert_allclose(ours[variable.name], variable, **CLOSE)
    assert fused
