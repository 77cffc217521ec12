import keras
import numpy as np
import pytest
from keras import layers

from tfcompress.model.kernels import kernels
from tfcompress.regularizers.regularize import regularize

L1 = keras.regularizers.L1(0.01)
L2 = keras.regularizers.L2(0.02)


def penalty(model):
    return float(sum(model.losses)) if model.losses else 0.0


def l1(model, paths=None):
    chosen = [k for k in kernels(model, True) if paths is None or k.path in paths]
    return 0.01 * sum(float(np.abs(k.numpy()).sum()) for k in chosen)


def every_layer():
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.SeparableConv2D(4, 3, padding="same", name="separable")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Reshape((8, 32), name="reshape")(layers.Conv2DTranspose(4, 1, name="up")(x))
    x = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    x = layers.GroupQueryAttention(4, 2, 2, name="gqa")(x, x)
    x = layers.EinsumDense("abc,cd->abd", (None, 6), name="einsum")(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(x)
    x = layers.GRU(4, name="gru")(x)
    word = keras.Input((), dtype="int32", name="word")
    y = layers.Embedding(10, 4, name="embedding")(word)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="inside")], name="inner")
    return keras.Model([image, word], inner(layers.Add()([x, y])))


def test_penalty_is_the_sum_over_all_kernels_and_survives(tmp_path):
    model = every_layer()
    regularize(model, L1, depthwise=True)
    # float32 sums in another order
    assert penalty(model) == pytest.approx(l1(model), rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert penalty(loaded) == pytest.approx(penalty(model), rel=1e-5)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    assert penalty(again) == pytest.approx(penalty(model), rel=1e-5)


def test_filters_and_none(mlp):
    regularize(mlp, "l1", "hidden")
    assert penalty(mlp) == pytest.approx(l1(mlp, {"hidden/kernel"}), rel=1e-5)
    regularize(mlp, None)
    assert penalty(mlp) == 0.0
    assert mlp.get_layer("hidden").kernel_regularizer is None


def test_it_replaces_the_layers_own():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer=L2)])
    regularize(model, L1)
    assert penalty(model) == pytest.approx(l1(model), rel=1e-5)


def test_depthwise_only_when_asked():
    model = keras.Sequential([keras.Input((8, 8, 4)), layers.SeparableConv2D(4, 3, name="s")])
    regularize(model, L1)
    assert penalty(model) == pytest.approx(l1(model, {"s/pointwise_kernel"}), rel=1e-5)
    assert model.layers[0].depthwise_regularizer is None


def test_part_of_an_attention_holds_in_this_session():
    x = keras.Input((4, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    regularize(model, L1, "query")
    assert penalty(model) == pytest.approx(l1(model, {"mha/query/kernel"}), rel=1e-5)


def test_a_step_that_was_traced_before_feels_it(mlp, data):
    """SGD on no error at all: only the penalty moves the weights, by its gradient."""
    mlp.compile(keras.optimizers.SGD(1.0), lambda y, p: 0.0 * p, jit_compile=False)
    mlp.fit(*data, batch_size=64, verbose=0)
    assert mlp.evaluate(*data, verbose=0) == 0.0
    before = mlp.get_layer("head").kernel.numpy()
    regularize(mlp, L1, "head")
    mlp.fit(*data, batch_size=64, verbose=0)
    after = mlp.get_layer("head").kernel.numpy()
    # float32: a step of 0.01 off weights of about 1
    np.testing.assert_allclose(after, before - 0.01 * np.sign(before), atol=1e-6)
    assert mlp.evaluate(*data, verbose=0) == pytest.approx(penalty(mlp), rel=1e-5)


def test_wrong_arguments_change_nothing(mlp):
    with pytest.raises(ValueError, match="hidden, head"):
        regularize(mlp, L1, "conv")
    with pytest.raises(TypeError, match=r"regularizers\.Regularizer"):
        regularize(mlp, lambda w: 0.0)
    with pytest.raises(ValueError, match="l3"):
        regularize(mlp, "l3")
    assert penalty(mlp) == 0.0
