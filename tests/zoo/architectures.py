"""The 51 architectures that every training feature must handle, each small enough for a test.

`ARCHITECTURES[name]()` builds a fresh, seeded `Case`. `NAMES` is the same list for
`pytest.mark.parametrize`, with the slow ones marked. The whole nets of `keras.applications` are
`LARGE`: they take an hour, so that CI runs each until all kinds of its blocks have come
(`BEGINNINGS`). `DEEP` is both: those that take long to trace.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import applications, layers, ops

SAMPLES = 4
CLASSES = 10
VOCABULARY = 50


@dataclass(frozen=True)
class Case:
    """A built, uncompiled model with data that it can be trained on.

    Attributes:
        name: Key in `ARCHITECTURES`.
        model: Built `keras.Model`.
        x: `SAMPLES` samples: an array, or a dict by input name when there are several inputs.
        y: Targets: an array, or a dict by output name when there are several outputs.
        loss: For `compile`: a name, or a dict of names by output name.
    """

    name: str
    model: keras.Model
    x: Any
    y: Any
    loss: Any


ARCHITECTURES: dict[str, Callable[[], Case]] = {}
LARGE: set[str] = set()
BEGINNINGS: set[str] = set()

Build = Callable[[], keras.Model]


def architecture(name: str, *, sample: tuple[int, ...] | None = None) -> Callable[[Build], Build]:
    """Register a builder; `sample`: the shape of one input, for a model with no symbolic one."""

    def register(build: Build) -> Build:
        def case() -> Case:
            keras.utils.set_random_seed(0)
            model = build()
            x = _samples(model, sample)
            outputs = model.outputs if sample is None else [model(x)]
            targets = [_target(tuple(t.shape[1:])) for t in outputs]
            y, loss = targets[0]
            if len(targets) > 1:
                y = {n: t for n, (t, _) in zip(model.output_names, targets, strict=True)}
                loss = {n: name for n, (_, name) in zip(model.output_names, targets, strict=True)}
            return Case(name, model, x, y, loss)

        assert name not in ARCHITECTURES, name
        ARCHITECTURES[name] = case
        return build

    return register


def _samples(model: keras.Model, sample: tuple[int, ...] | None) -> Any:
    rng = np.random.default_rng(0)
    if sample is not None:
        return rng.random((SAMPLES, *sample), "float32")
    arrays = {}
    for tensor in model.inputs:
        shape = (SAMPLES, *tensor.shape[1:])
        integer = "int" in tensor.dtype
        arrays[tensor.name] = (
            rng.integers(0, VOCABULARY, shape, "int32") if integer else rng.random(shape, "float32")
        )
    return arrays if len(arrays) > 1 else arrays.popitem()[1]


def _target(shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Class numbers for an output of `CLASSES` probabilities, else an array to regress on."""
    rng = np.random.default_rng(1)
    if shape == (CLASSES,):
        return rng.integers(0, CLASSES, SAMPLES), "sparse_categorical_crossentropy"
    return rng.random((SAMPLES, *shape), "float32"), "mse"


def _image(channels: int = 3) -> Any:
    return keras.Input((16, 16, channels), name="image")


def _sequence(length: int = 12) -> Any:
    return keras.Input((length, 8), name="sequence")


def _softmax(x: Any) -> Any:
    return layers.Dense(CLASSES, activation="softmax", name="classes")(x)


def _pooled(x: Any) -> Any:
    pool = layers.GlobalAveragePooling2D() if len(x.shape) == 4 else layers.GlobalAveragePooling1D()
    return _softmax(pool(x))


def _bn_relu(x: Any, max_value: float | None = None) -> Any:
    return layers.ReLU(max_value)(layers.BatchNormalization()(x))


# Dense layers and convolutions.


@architecture("dense MLP")
def _() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20,), name="features"),
            layers.Dense(32, activation="relu"),
            layers.Dense(16, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


@architecture("sequential CNN")
def _() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


@architecture("conv-bn-relu")
def _() -> keras.Model:
    image = x = _image()
    for filters in (8, 16):
        x = _bn_relu(layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x))
    return keras.Model(image, _pooled(x))


@architecture("conv1d")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(layers.Conv1D(16, 3, activation="relu")(x)))


@architecture("conv1d-bn-relu")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(_bn_relu(layers.Conv1D(16, 3, use_bias=False)(x))))


@architecture("conv2d-transpose")
def _() -> keras.Model:
    image = _image()
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    return keras.Model(image, layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x))


@architecture("conv2d-transpose with bn-relu")
def _() -> keras.Model:
    image = _image()
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", use_bias=False)(x)
    return keras.Model(image, layers.Conv2D(3, 1)(_bn_relu(x)))


@architecture("separable 2d")
def _() -> keras.Model:
    x = _image()
    return keras.Model(x, _pooled(layers.SeparableConv2D(16, 3, activation="relu")(x)))


@architecture("separable 1d")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(layers.SeparableConv1D(16, 3, activation="relu")(x)))


@architecture("depthwise-bn-relu6")
def _() -> keras.Model:
    image = _image()
    x = _bn_relu(layers.Conv2D(8, 3, use_bias=False)(image), 6.0)
    x = _bn_relu(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), 6.0)
    x = _bn_relu(layers.Conv2D(16, 1, use_bias=False)(x), 6.0)
    return keras.Model(image, _pooled(x))


@architecture("conv3d")
def _() -> keras.Model:
    volume = keras.Input((6, 8, 8, 2), name="volume")
    x = layers.Conv3D(8, 3, activation="relu")(volume)
    return keras.Model(volume, _softmax(layers.GlobalAveragePooling3D()(x)))


# Attention.


def _transformer_block(x: Any) -> Any:
    normal = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(normal, normal)])
    hidden = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    return layers.Add()([x, layers.Dropout(0.1)(layers.Dense(8)(hidden))])


@architecture("MHA")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(layers.MultiHeadAttention(2, 4)(x, x)))


@architecture("LayerNorm")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(layers.LayerNormalization()(layers.Dense(16)(x))))


@architecture("transformer block")
def _() -> keras.Model:
    x = _sequence()
    return keras.Model(x, _pooled(_transformer_block(x)))


# Nested models.


@architecture("nested model")
def _() -> keras.Model:
    block = keras.Sequential(
        [layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(8, 3, activation="relu")],
        name="block",
    )
    x = _image()
    return keras.Model(x, _pooled(block(x)))


@architecture("nested MobileNetV2 backbone with a new head")
def _() -> keras.Model:
    backbone = applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    image = keras.Input((32, 32, 3), name="image")
    return keras.Model(image, _pooled(layers.Dropout(0.2)(backbone(image))))


# Recurrence, embeddings, wrappers, and operations that are no layers.


def _recurrent(layer: layers.Layer) -> keras.Model:
    x = _sequence(6)
    return keras.Model(x, _softmax(layer(x)))


@architecture("LSTM")
def _() -> keras.Model:
    return _recurrent(layers.LSTM(16))


@architecture("GRU")
def _() -> keras.Model:
    return _recurrent(layers.GRU(16))


@architecture("BiLSTM")
def _() -> keras.Model:
    return _recurrent(layers.Bidirectional(layers.LSTM(8)))


@architecture("embedding")
def _() -> keras.Model:
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    return keras.Model(tokens, _pooled(layers.Embedding(VOCABULARY, 16)(tokens)))


@architecture("TimeDistributed")
def _() -> keras.Model:
    frames = keras.Input((3, 16, 16, 3), name="frames")
    x = layers.TimeDistributed(layers.Conv2D(8, 3, activation="relu"))(frames)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(frames, _pooled(x))


@architecture("Lambda")
def _() -> keras.Model:
    features = keras.Input((20,), name="features")
    x = layers.Lambda(lambda t: t * 2.0, output_shape=(20,))(layers.Dense(20)(features))
    return keras.Model(features, _softmax(x))


@architecture("raw ops on Keras tensors")
def _() -> keras.Model:
    x = _sequence()
    keys = layers.Dense(8)(x)
    weights = ops.softmax(ops.matmul(x, ops.transpose(keys, (0, 2, 1))) / 8.0)
    return keras.Model(x, _softmax(ops.mean(ops.einsum("bij,bjc->bic", weights, x), axis=1)))


@keras.saving.register_keras_serializable("architectures")
class Scaled(layers.Layer):
    """A dense layer with one more factor per unit."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel"
        )
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        return ops.relu(ops.matmul(inputs, self.kernel) * self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@architecture("custom layer")
def _() -> keras.Model:
    features = keras.Input((20,), name="features")
    return keras.Model(features, _softmax(Scaled(16)(features)))


@architecture("layer used twice")
def _() -> keras.Model:
    x = _image(8)
    conv = layers.Conv2D(8, 3, padding="same", activation="relu")
    return keras.Model(x, _pooled(conv(conv(x))))


@architecture("siamese")
def _() -> keras.Model:
    tower = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8)], name="tower")
    left, right = (keras.Input((20,), name=side) for side in ("left", "right"))
    distance = ops.abs(layers.Subtract()([tower(left), tower(right)]))
    return keras.Model([left, right], layers.Dense(1, activation="sigmoid")(distance))


@architecture("multi-input multi-output")
def _() -> keras.Model:
    image = _image()
    features = keras.Input((20,), name="features")
    a = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(image))
    x = layers.Concatenate()([a, layers.Dense(8, activation="relu")(features)])
    return keras.Model([image, features], [_softmax(x), layers.Dense(1, name="value")(x)])


# Orders of normalization and activation, residuals, resizing, augmentation, precision.


@architecture("BN first")
def _() -> keras.Model:
    x = _image()
    y = layers.Conv2D(8, 3, activation="relu")(layers.BatchNormalization()(x))
    return keras.Model(x, _pooled(y))


@architecture("pre-activation BN-relu-conv")
def _() -> keras.Model:
    image = x = _image()
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, use_bias=False)(_bn_relu(x))
    return keras.Model(image, _pooled(x))


@architecture("dense-BN")
def _() -> keras.Model:
    features = keras.Input((20,), name="features")
    return keras.Model(features, _softmax(_bn_relu(layers.Dense(16, use_bias=False)(features))))


@architecture("residual add-relu")
def _() -> keras.Model:
    image = _image()
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(8, 3, padding="same")(y)
    return keras.Model(image, _pooled(layers.ReLU()(layers.Add()([x, y]))))


@architecture("swish/gelu")
def _() -> keras.Model:
    image = _image()
    x = layers.Activation("swish")(layers.Conv2D(8, 3)(image))
    return keras.Model(image, _pooled(layers.Conv2D(8, 3, activation="gelu")(x)))


@architecture("PReLU/LeakyReLU")
def _() -> keras.Model:
    image = _image()
    x = layers.PReLU(shared_axes=(1, 2))(layers.Conv2D(8, 3)(image))
    return keras.Model(image, _pooled(layers.LeakyReLU(0.1)(layers.Conv2D(8, 3)(x))))


@architecture("bilinear upsampling")
def _() -> keras.Model:
    image = _image()
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(image, layers.Conv2D(3, 3, padding="same")(x))


@architecture("Rescaling + RandomFlip")
def _() -> keras.Model:
    image = _image()
    x = layers.RandomFlip("horizontal")(layers.Rescaling(2.0, offset=-1.0)(image))
    return keras.Model(image, _pooled(layers.Conv2D(8, 3, activation="relu")(x)))


@architecture("mixed_float16")
def _() -> keras.Model:
    image = _image()
    x = layers.Conv2D(8, 3, use_bias=False, dtype="mixed_float16")(image)
    x = layers.BatchNormalization(dtype="mixed_float16")(x)
    x = layers.ReLU(dtype="mixed_float16")(x)
    x = layers.Conv2D(16, 3, activation="relu", dtype="mixed_float16")(x)
    x = layers.GlobalAveragePooling2D(dtype="mixed_float16")(x)
    return keras.Model(image, _softmax(x))


@keras.saving.register_keras_serializable("architectures")
class Classifier(keras.Model):
    """A subclassed model: nothing of it is known before it is called."""

    def __init__(self, filters: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, activation="relu")
        self.pool = layers.GlobalAveragePooling2D()
        self.hidden = [layers.Dense(16, activation="relu") for _ in range(2)]
        self.classes = layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs: Any) -> Any:
        x = self.pool(self.conv(inputs))
        for layer in self.hidden:
            x = layer(x)
        return self.classes(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


@architecture("subclassed model", sample=(16, 16, 3))
def _() -> keras.Model:
    return Classifier()


# keras.applications, at the smallest image that each takes, and MLPerf Tiny.


def _application(name: str, until: str | None = None, size: int = 32, large: bool = False) -> None:
    """Register a net, and its beginning until a layer if it is a large one that has one."""

    def build() -> keras.Model:
        make = getattr(applications, name)
        return make(input_shape=(size, size, 3), weights=None, classes=CLASSES)

    architecture(name)(build)
    if large or until:
        LARGE.add(name)
    if until is None:
        return

    def begin() -> keras.Model:
        net = build()
        return keras.Model(net.input, _pooled(net.get_layer(until).output))

    beginning = f"{name} until {until}"
    architecture(beginning)(begin)
    BEGINNINGS.add(beginning)


_application("MobileNet")
_application("MobileNetV2", "block_4_add")
_application("MobileNetV3Small", "expanded_conv_4_add")
_application("EfficientNetB0", "block3b_add")
_application("EfficientNetV2B0", "block4b_add")
_application("ResNet50", "conv3_block2_out")
_application("ResNet50V2", "conv3_block2_out")
_application("DenseNet121", "conv3_block2_concat")
_application("NASNetMobile", large=True)
_application("ConvNeXtTiny", "convnext_tiny_stage_1_block_0_identity")
_application("InceptionV3", "mixed4", 75)
_application("Xception", "block5_sepconv1_act", 71)
_application("VGG16", "block3_pool")


@architecture("MLPerf Tiny ResNet-8")
def _() -> keras.Model:
    """The image classification reference of MLPerf Tiny (Banbury et al., 2021), 78,666 parameters.

    https://github.com/mlcommons/tiny, `resnet_v1_eembc` with 16 filters; its shortcut convolutions
    have no batch normalization.
    """

    def conv(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
        )(x)

    image = keras.Input((32, 32, 3), name="image")
    x = _bn_relu(conv(image, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = _bn_relu(conv(x, filters, strides=strides))
        y = layers.BatchNormalization()(conv(y, filters))
        shortcut = conv(x, filters, 1, strides) if strides > 1 else x
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(image, _softmax(x))


DEEP = {*LARGE, *BEGINNINGS, "MobileNet", "nested MobileNetV2 backbone with a new head"}


def marks(name: str, quick: Collection[str], why: str = "the other architectures") -> Any:
    """How a test of an architecture is marked; `quick`: those that are tested by default."""
    if name in LARGE:
        return pytest.mark.large
    return () if name in quick else pytest.mark.slow(why)


_SHALLOW = set(ARCHITECTURES) - DEEP
NAMES = [pytest.param(name, marks=marks(name, _SHALLOW, "a deep net")) for name in ARCHITECTURES]
