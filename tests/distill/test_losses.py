"""The distillation losses and SmoothL0 against NumPy, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tests.support.helpers import as_id
from tfcompress.distill import AttentionMaps, AttentionScores, Features, SoftTargets

RNG = np.random.default_rng(0)
TEACHER, STUDENT = 4 * RNG.normal(size=(2, 16, 5))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def soft_targets(teacher, student, temperature):
    """Hinton et al. 2015, in float64."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))


def model(activation="softmax", *, width=6, classes=5, name="model", dtype=None):
    x = keras.Input((4,), name="x")
    y = layers.Dense(width, "relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(classes, activation, name="o", dtype=dtype)(y), name=name)


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 20.0])
@pytest.mark.parametrize("ends", [("linear", "linear"), ("softmax",) * 2, ("softmax", "linear")])
def test_soft_targets(temperature, ends):
    loss = SoftTargets(temperature)
    loss.validate_model_compatibility(model(ends[0]), model(ends[1]))
    outputs = [
        (softmax(z) if end == "softmax" else z).astype("float32")
        for z, end in zip((TEACHER, STUDENT), ends, strict=True)
    ]
    expected = soft_targets(TEACHER, STUDENT, temperature)
    # float32: the terms of the sum, up to T² times the result, cancel.
    assert float(loss.compute_loss(*outputs)) == pytest.approx(expected, rel=1e-5, abs=2e-5)


def test_soft_targets_through_a_softmax_have_the_gradient_of_the_paper():
    """T (softmax(z / T) - softmax(v / T)), per sample; also where probabilities underflow."""
    teacher = np.concatenate([TEACHER, [[0, -200, 0, 5, 1]]])
    student = np.concatenate([STUDENT, [[90, 0, 0, 10, -300]]])
    z = tf.constant(student, "float32")
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = SoftTargets(4.0, from_logits=False).compute_loss(
            softmax(teacher).astype("float32"), tf.nn.softmax(z)
        )
    gradient = tape.gradient(loss, z).numpy()
    assert np.isfinite(gradient).all()
    expected = 4.0 * (softmax(student / 4.0) - softmax(teacher / 4.0)) / len(student)
    # float32, and two roundings more through the logarithm of a probability.
    np.testing.assert_allclose(gradient[:-1], expected[:-1], atol=1e-5)


def test_soft_targets_agree_with_keras_told_to_take_divergence_of_logits():
    theirs = keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())
    expected = theirs.compute_loss(TEACHER.astype("float32"), STUDENT.astype("float32"))
    ours = SoftTargets(3.0, from_logits=True).compute_loss(TEACHER, STUDENT)
    # Keras cuts probabilities off at 1e-7.
    assert float(ours) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("last", "logits"),
    [
        ([layers.Dense(3)], True),
        ([layers.Dense(3), layers.Activation("linear", dtype="float32")], True),
        ([layers.Dense(3), layers.Softmax()], False),
        ([layers.Conv1D(3, 1, activation="softmax"), layers.Flatten()], False),
        ([layers.Dense(3), layers.Activation("log_softmax")], None),
        ([keras.Sequential([layers.Dense(3), layers.Softmax()])], False),
        ([layers.GlobalAveragePooling1D()], None),
    ],
    ids=as_id,
)
def test_how_a_model_ends_is_read_off(last, logits):
    x = keras.Input((2, 4))
    y = x
    for layer in last:
        y = layer.__class__.from_config(layer.get_config())(y)
    found = keras.Model(x, y)
    loss = SoftTargets()
    if logits is None:
        with pytest.raises(ValueError, match="SoftTargets"):
            loss.validate_model_compatibility(found, found)
        return
    loss.validate_model_compatibility(found, found)
    assert loss._logits == (logits, logits)
    quantized = tfc.quantize_aware(found)
    loss.validate_model_compatibility(found, quantized)
    assert loss._logits == (logits, logits)


def test_attention_maps():
    teacher, student = RNG.normal(size=(3, 4, 5, 6)), RNG.normal(size=(3, 4, 5, 2))

    def attention(features):
        flat = np.sum(np.abs(features) ** 2, axis=-1).reshape(3, -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    expected = np.mean(np.linalg.norm(attention(teacher) - attention(student), axis=1) ** 2)
    loss = AttentionMaps("a", "b")
    # float32 throughout
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)
    assert float(loss.compute_loss(teacher, 1e-4 * student)) == pytest.approx(expected, rel=1e-5)
    dead = tf.zeros(student.shape)
    with tf.GradientTape() as tape:
        tape.watch(dead)
        value = loss.compute_loss(teacher, dead)
    assert float(value) == pytest.approx(1.0)
    np.testing.assert_array_equal(tape.gradient(value, dead), 0)


def test_attention_scores():
    teacher, student = RNG.random((2, 4, 3, 3)), RNG.random((2, 4, 3, 3))
    loss = AttentionScores("a", "b")
    expected = np.mean([np.mean((teacher[:, i] - student[:, i]) ** 2) for i in range(4)])
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)
    expected = np.mean((teacher.mean(axis=1) - student[:, :2].mean(axis=1)) ** 2)
    assert float(loss.compute_loss(teacher, student[:, :2])) == pytest.approx(expected, rel=1e-5)
    grouped = teacher.reshape(2, 2, 2, 3, 3)
    assert float(loss.compute_loss(grouped, student[:, :2])) == pytest.approx(expected, rel=1e-5)


def test_attention_that_is_written_out_has_scores_at_its_softmax():
    """Those of one model are those of the other, whose heads are in groups."""

    def attending(name, groups):
        x = keras.Input((3, 8), name="x")
        q = keras.ops.reshape(layers.Dense(8, kernel_initializer="identity")(x), (-1, 3, 2, 4))
        scores = keras.ops.einsum("btnh,bsnh->bnts", q, q)
        scores = keras.ops.reshape(scores, (-1, *groups, 3, 3))
        found = layers.Softmax(name=name)(scores)
        return keras.Model(x, layers.Dense(2)(keras.ops.reshape(found, (-1, 2, 9))))

    plain, other = attending("plain", (2,)), attending("grouped", (1, 2))
    loss = AttentionScores("plain", "grouped")
    distiller = tfc.Distiller(plain, other, loss, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    history = distiller.fit(RNG.normal(size=(4, 3, 8)).astype("float32"), verbose=0).history
    assert history["distillation_loss"][0] == pytest.approx(0, abs=1e-12)


def test_features_are_projected_where_the_widths_differ():
    loss = Features("hidden", "hidden")
    loss.validate_model_compatibility(model(width=6), model(width=4))
    teacher, student = RNG.normal(size=(8, 6)), RNG.normal(size=(8, 4))
    kernel = loss.projection.kernel.numpy()
    expected = np.mean((teacher - student @ kernel) ** 2)
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)
    same = Features("hidden", "hidden", "mae")
    same.validate_model_compatibility(model(), model())
    assert same.projection is None
    expected = np.mean(np.abs(teacher - 2 * teacher))
    assert float(same.compute_loss(teacher, 2 * teacher)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        SoftTargets(2.5, False, "a", "b"),
        Features("a", "b", "mae"),
        Features("a", "b", keras.losses.Huber(0.5)),
        AttentionMaps("a", "b"),
        AttentionScores("a", "b"),
    ],
    ids=as_id,
)
def test_losses_survive_their_config(loss):
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


SHAPES = {
    "exponential": lambda w, epsilon: 1 - np.exp(-np.abs(w) / epsilon),
    "rational": lambda w, epsilon: np.abs(w) / (np.abs(w) + epsilon),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_smooth_l0(shape):
    weights = RNG.normal(size=(7, 9))
    weights[::2] = 0
    penalty = tfc.SmoothL0(0.3, 0.05, shape)
    expected = 0.3 * np.sum(SHAPES[shape](weights, 0.05))
    assert float(penalty(weights.astype("float32"))) == pytest.approx(expected, rel=1e-5)
    # Nearly the count itself, where epsilon is far below the weights. Smallest here: 0.003.
    count = tfc.SmoothL0(1.0, 1e-7, shape)(weights.astype("float32"))
    assert float(count) == pytest.approx(np.count_nonzero(weights), rel=1e-4)
    w = tf.Variable(weights.astype("float32"))
    with tf.GradientTape() as tape:
        value = penalty(w)
    gradient = tape.gradient(value, w).numpy()
    np.testing.assert_array_equal(gradient[::2], 0)
    step = 1e-6
    difference = (SHAPES[shape](weights + step, 0.05) - SHAPES[shape](weights - step, 0.05)) / (
        2 * step
    )
    # Central differences in float64, off by step² at most; the gradient is float32's.
    np.testing.assert_allclose(gradient[1::2], 0.3 * difference[1::2], rtol=1e-4, atol=1e-6)


def test_smooth_l0_is_saved_with_the_kernels_it_is_set_on(tmp_path):
    small = model()
    tfc.regularize(small, tfc.SmoothL0(0.01, shape="rational"), "hidden")
    small.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    kernel = small.get_layer("hidden").kernel.numpy()
    expected = 0.01 * np.sum(SHAPES["rational"](kernel, 0.05))
    assert float(sum(loaded.losses)) == pytest.approx(expected, rel=1e-5)


def attention_model(name="m"):
    x = keras.Input((3, 4))
    return keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(x, x), name=name)


def images(pixels=8, *, name="m"):
    x = keras.Input((pixels, pixels, 1))
    return keras.Model(x, layers.Conv2D(4, 3, strides=pixels // 4, name="conv")(x), name=name)


def pair(one, other):
    return lambda loss: loss.validate_model_compatibility(one(), other())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftTargets(0.0), "temperature=0.0"),
        (lambda: SoftTargets(float("nan")), "temperature=nan"),
        (lambda: SoftTargets(from_logits="no"), "from_logits"),
        (lambda: pair(model, lambda: model("sigmoid"))(SoftTargets()), "student.*'sigmoid'"),
        (lambda: pair(lambda: model(None), model)(SoftTargets(3, False)), "teacher.*in logits"),
        (lambda: pair(model, lambda: model(dtype="float16"))(SoftTargets()), "float32"),
        (lambda: pair(model, model)(Features("hiden", "hidden")), "teacher.*'hiden'.*x, hidden, o"),
        (lambda: pair(images, images)(AttentionMaps("conv", "cnv")), "student 'm'.*'cnv'.*conv"),
        (lambda: pair(images, lambda: images(16))(Features("input_layer", "conv")), "no layer"),
        (
            lambda: pair(images, lambda: images(12))(AttentionMaps("conv", "conv")),
            r"one shape.*\(None, 3, 3, 4\) of the teacher, \(None, 4, 4, 4\)",
        ),
        (lambda: pair(model, model)(AttentionMaps("hidden", "hidden")), "positions"),
        (lambda: pair(attention_model, model)(AttentionScores("mha", "o")), "'o' of the student"),
        (lambda: tfc.SmoothL0(-1.0), "l0=-1.0"),
        (lambda: tfc.SmoothL0(epsilon=0.0), "epsilon=0.0"),
        (lambda: tfc.SmoothL0(shape="cubic"), "cubic"),
    ],
    ids=as_id,
)
def test_what_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_pairs_take_names():
    with pytest.raises(TypeError, match="`student_layer_name` must be a text"):
        AttentionMaps("conv", None)
