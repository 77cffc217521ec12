"""Small float nets, near and far from what XNNPACK's sparse kernels can run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcompress.converters import Inspection, SparseCheck, check_sparse_kernels
from tfcompress.converters.jobs.read import describe

PIXELS = 16


def _image(pixels=PIXELS):
    return keras.Input((pixels, pixels, 3), name="image")


def _stem(x, padding=1):
    if padding == "same":
        return layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(x)
    x = layers.ZeroPadding2D(padding)(x)
    return layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")(x)


def _point(x, name, filters=32, **options):
    return layers.Conv2D(filters, 1, name=name, **options)(x)


def _pooled(x):
    return layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D(name="pool")(x))


def _between(*between):
    """Stem, 1x1 convolution, `between`, 1x1 convolution, mean, Dense."""
    image = _image()
    x = _point(_stem(image), "first")
    for layer in between:
        x = layer(x)
    return image, _pooled(_point(x, "second"))


def _residual():
    image = _image()
    x = _point(_stem(image), "first", activation="hard_swish")
    y = layers.DepthwiseConv2D(5, padding="same", activation="relu")(x)
    return image, _pooled(_point(layers.Add()([x, _point(y, "second")]), "third"))


def _squeeze_and_excite():
    image = _image()
    x = _point(_stem(image), "first")
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = _point(_point(gate, "squeeze", 4, activation="relu"), "excite", activation="sigmoid")
    return image, _pooled(_point(layers.Multiply(name="odd")([x, gate]), "second"))


def _rescaled():
    image = _image()
    return image, _pooled(_point(_stem(layers.Rescaling(2.0, -1.0)(image)), "first"))


def _stem_of(pixels, padding):
    image = _image(pixels)
    return image, _pooled(_point(_stem(image, padding), "first"))


def _no_stem():
    image = _image()
    x = layers.Conv2D(16, 3, padding="same", name="stem")(image)
    return image, _pooled(_point(x, "first"))


def _pooled_stem():
    image = _image()
    return image, _pooled(_point(layers.MaxPooling2D(2)(_stem(image)), "first"))


def _flat():
    image = _image()
    return image, layers.Dense(4)(layers.Flatten(name="flat")(_point(_stem(image), "first")))


def _two_outputs():
    image = _image()
    x = _point(_stem(image), "first")
    return image, [_pooled(_point(x, "second")), x]


def _two_inputs():
    image, other = _image(), keras.Input((PIXELS // 2, PIXELS // 2, 32), name="other")
    x = layers.Concatenate(name="join")([_point(_stem(image), "first"), other])
    return [image, other], _pooled(_point(x, "second"))


def _pooled_convolution():
    image = _image()
    x = layers.GlobalAveragePooling2D(keepdims=True)(_point(_stem(image), "first"))
    return image, layers.Flatten(name="flat")(_point(x, "second"))


def _constant(x):
    return x * np.linspace(0.5, 2, 32, dtype="float32")


ENGAGING = {
    "plain": _between,
    "residual": _residual,
    "rescaled": _rescaled,
    "stride 2": lambda: _between(layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, strides=2)),
    "bilinear": lambda: _between(layers.UpSampling2D(2, interpolation="bilinear")),
}
SAFE = {
    "same stem": lambda: _stem_of(PIXELS, "same"),
    "odd stem": lambda: _stem_of(PIXELS + 1, 1),
    "unpadded stem": lambda: _stem_of(PIXELS + 1, 0),
    "no stem": _no_stem,
    "pooled stem": _pooled_stem,
    "flat": _flat,
}
# Each was seen to give wrong results, or to fail, on the emulated aarch64.
UNSAFE = {
    "max pooling": lambda: _between(layers.MaxPooling2D(2, name="odd")),
    "3x3": lambda: _between(layers.Conv2D(16, 3, name="odd")),
    "same stride 2": lambda: _between(
        layers.DepthwiseConv2D(3, strides=2, padding="same", name="odd")
    ),
    "7x7": lambda: _between(layers.DepthwiseConv2D(7, padding="same", name="odd")),
    "multiplied channels": lambda: _between(
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="odd")
    ),
    "1x1 stride 2": lambda: _between(layers.Conv2D(16, 1, strides=2, name="odd")),
    "norm behind relu": lambda: _between(
        layers.ReLU(), layers.BatchNormalization(name="odd"), layers.Activation("tanh")
    ),
    "constant": lambda: _between(layers.ReLU(), _constant, layers.ReLU(6.0)),
    "softmax": lambda: _between(layers.Softmax(name="odd")),
    "squeeze and excite": _squeeze_and_excite,
    "two outputs": _two_outputs,
    "two inputs": _two_inputs,
    "convolution of a mean": _pooled_convolution,
}
NETS = {**ENGAGING, **SAFE, **UNSAFE}
KINDS = {
    **dict.fromkeys(ENGAGING, "sparse kernels"),
    **dict.fromkeys(SAFE, "safe"),
    **dict.fromkeys(UNSAFE, "unsafe"),
}


def net(name: str, zeros: float = 0.8) -> keras.Model:
    """A net of `NETS` with random weights; of its 1x1 and Dense kernels a share is zero."""
    keras.utils.set_random_seed(0)
    model = keras.Model(*NETS[name](), name="net")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.trainable_variables:
            kernel = variable.name == "kernel"
            values = rng.normal(size=variable.shape, scale=0.5 if kernel else 0.1)
            if kernel and (values.shape[0] == 1 or values.ndim == 2):
                values.flat[rng.permutation(values.size)[: round(zeros * values.size)]] = 0
            variable.assign(values)
    return model


@functools.cache
def converted(name: str, zeros: float = 0.8) -> bytes:
    """The .tflite file of a net of `NETS`."""
    return convert_here(net(name, zeros))


def convert_here(model: keras.Model) -> bytes:
    """A .tflite file, made in this process, as a child for each net would take minutes."""
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def read(content: bytes) -> dict[str, Any]:
    """What `inspect` reads of a file, without the child process."""
    return {**describe(content), "load_error": None}


def check(content: bytes) -> SparseCheck:
    """What `check_sparse_kernels` says of a file, without the child process."""
    return check_sparse_kernels(Inspection.from_description(Path("net.tflite"), read(content)))
