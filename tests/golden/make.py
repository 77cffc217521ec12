"""Write the golden files: one model for each class that tfcompress registers with Keras.

Run it only to add a file for a new class: `python tests/golden/make.py NAME ...`. A file that is
already there is a promise to users, and stays as it is.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

import tfcompress
from tfcompress import distill, schedules

HERE = Path(__file__).parent
NETS: dict[str, Callable[[], keras.Model]] = {}


def golden(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Register a builder under the name of its function."""
    NETS[build.__name__] = build
    return build


def samples(model: keras.Model) -> list[np.ndarray]:
    """Inputs of the model: four samples, token ids where it takes integers."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 5, (4, *tensor.shape[1:])).astype("int32")
        if "int" in tensor.dtype
        else rng.normal(size=(4, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]


def quantized(
    model: keras.Model, scheme: tfcompress.QuantizationScheme | None = None
) -> keras.Model:
    """The model made quantization-aware, with the ranges of its samples."""
    options = {} if scheme is None else {"scheme": scheme}
    qat = tfcompress.quantize_aware(model, **options)
    inputs = samples(model)
    names = [tensor.name for tensor in model.inputs]
    tfcompress.calibrate(qat, dict(zip(names, inputs, strict=True)))
    return qat


def mlp(**options) -> keras.Sequential:
    return keras.Sequential(
        [keras.Input((6,), name="x"), layers.Dense(4, "relu", name="hidden", **options),
         layers.Dense(3, "softmax", name="head")]
    )  # fmt: skip


@golden
def quantize_wrapper() -> keras.Model:
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.SeparableConv2D(4, 3, activation="swish", name="separable")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return quantized(keras.Model(image, layers.Dense(3, "sigmoid", name="head")(x)))


@golden
def quantize_wrapper_attention() -> keras.Model:
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(5, 8, name="embedding")(tokens)
    x = layers.Add(name="sum")([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Bidirectional(layers.LSTM(3, unroll=True, name="lstm"), name="both")(x)
    return quantized(keras.Model(tokens, layers.Dense(2, name="head")(x)))


@golden
def fake_quant() -> keras.Model:
    return quantized(mlp(), tfcompress.QuantizationScheme(ranges="learned"))


@golden
def group_lasso() -> keras.Model:
    return mlp(kernel_regularizer=tfcompress.GroupLasso(1e-3))


@golden
def smooth_l0() -> keras.Model:
    return mlp(kernel_regularizer=tfcompress.SmoothL0(1e-3))


class WithToken(layers.Layer):
    """Puts a token of its own before the others."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4, name="dense")
        self.token = self.add_weight((1, 1, 4), "glorot_uniform", name="token")

    def call(self, x):
        token = keras.ops.tile(self.token, (keras.ops.shape(x)[0], 1, 1))
        return keras.ops.concatenate([token, self.dense(x)], axis=1)


@golden
def opened_layers() -> keras.Model:
    sequence = keras.Input((5, 6), name="sequence")
    return tfcompress.open_layers(keras.Model(sequence, WithToken(name="block")(sequence)))


def distilled(model: keras.Model, loss: keras.distillation.DistillationLoss) -> keras.Model:
    """A compiled distiller of the model into another of its kind."""
    teacher = keras.models.clone_model(model)
    distiller = tfcompress.Distiller(teacher, model, loss)
    distiller.compile("sgd", "mse", jit_compile=False)
    x = samples(model)[0]
    distiller.fit(x, np.zeros_like(distiller(x)), epochs=1, verbose=0)
    return distiller


@golden
def soft_targets() -> keras.Model:
    return distilled(mlp(), distill.SoftTargets(temperature=3.0))


@golden
def features() -> keras.Model:
    return distilled(mlp(), distill.Features("hidden", "hidden"))


@golden
def attention_maps() -> keras.Model:
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(2, name="head")(x))
    return distilled(model, distill.AttentionMaps("conv", "conv"))


@golden
def attention_scores() -> keras.Model:
    sequence = keras.Input((5, 6), name="sequence")
    x = layers.MultiHeadAttention(2, 3, name="attention")(sequence, sequence)
    model = keras.Model(sequence, layers.Dense(2, name="head")(x))
    return distilled(model, distill.AttentionScores("attention", "attention"))


def write_schedules() -> None:
    """Serialize one schedule of each kind, with the sparsities that it gives."""
    made = [
        schedules.Constant(0.5, begin=2, end=9, frequency=3),
        schedules.OneShot(0.75, step=4),
        schedules.Polynomial(0.1, 0.9, begin=2, end=12, frequency=2),
        schedules.Exponential(0.0, 0.8, begin=1, end=11, frequency=5),
    ]
    entries = [
        {
            "object": keras.saving.serialize_keras_object(schedule),
            "sparsity": [schedule(step) for step in range(16)],
        }
        for schedule in made
    ]
    (HERE / "schedules.json").write_text(json.dumps(entries, indent=1) + "\n", "utf-8")


def write_language_model() -> None:
    """Convert a small language model, with the logits that Keras gives for a few tokens."""
    from tests.zoo.language_models import ROOM, VOCABULARY, by_hand

    model, file = by_hand(), HERE / "language_model.tflite"
    tfcompress.converters.convert_generator(
        model, file, max_tokens=ROOM, prefill=(4, 8), prefill_logits=True
    )
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, ROOM)).astype("int32")
    np.savez(file.with_suffix(".npz"), tokens=tokens, logits=np.asarray(model(tokens)))


def main(names: list[str]) -> None:
    """Write the files of these names; all of them if there are none."""
    others = {"schedules": write_schedules, "language_model": write_language_model}
    for name in names or [*NETS, *others]:
        if name in others:
            others[name]()
            continue
        keras.utils.set_random_seed(0)
        model = NETS[name]()
        inputs = samples(getattr(model, "student", model))
        outputs = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        model.save(HERE / f"{name}.keras")
        np.savez(HERE / f"{name}.npz", *inputs, outputs=np.asarray(outputs))


if __name__ == "__main__":
    main(sys.argv[1:])
