"""CIFAR-10, small nets for it, and their training: alike in Keras 3 and in Keras 2 (tf_keras)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Split = tuple[Array, Array]

CLASSES = 10


def load(path: str | os.PathLike[str] | None) -> tuple[Split, Split]:
    """Training and test images (uint8) and classes.

    Args:
        path: An .npz file with `x_train`, `y_train`, `x_test`, `y_test`, or with JPEGs end to end
            as `train_jpeg`, `train_offset`, `test_jpeg`, `test_offset`. None lets Keras download
            the original.
    """
    if path is None:
        from keras.datasets import cifar10

        (x, y), (x_test, y_test) = cifar10.load_data()
        return (x, y.ravel()), (x_test, y_test.ravel())
    with np.load(Path(path)) as file:
        return _split(file, "train"), _split(file, "test")


def _split(file: Any, split: str) -> Split:
    import tensorflow as tf

    if f"x_{split}" in file:
        return file[f"x_{split}"], file[f"y_{split}"].ravel()
    content, offset = file[f"{split}_jpeg"].tobytes(), file[f"{split}_offset"]
    images = [
        tf.io.decode_jpeg(content[begin:end], channels=3).numpy()
        for begin, end in itertools.pairwise(offset)
    ]
    return np.stack(images), file[f"y_{split}"].ravel()


def scaled(images: Array) -> Array:
    """Pixels in [-1, 1), as the nets take them.

    By 128, so that the 256 values are those of int8. With the usual 127.5 each would lie halfway
    between two of them, and go up in one runtime and down in the other.
    """
    return images.astype(np.float32) / 128.0 - 1.0


def batches(split: Split, batch: int, seed: int) -> Any:
    """Training batches for one epoch after the other: shuffled, shifted by up to 4 pixels, flipped.

    The order and the shifts follow from the seed alone, so that two frameworks see the same.
    """
    import tensorflow as tf

    def augment(image: Any, label: Any, number: Any) -> Any:
        image = tf.pad(image, [[4, 4], [4, 4], [0, 0]])
        image = tf.image.stateless_random_crop(image, (32, 32, 3), (seed, number))
        image = tf.image.stateless_random_flip_left_right(image, (seed + 1000, number))
        return image, label

    images, labels = split
    data = tf.data.Dataset.from_tensor_slices((scaled(images), labels.astype(np.int32)))
    data = data.shuffle(len(labels), seed=seed).repeat().enumerate()
    data = data.map(lambda n, xy: augment(*xy, n), num_parallel_calls=2, deterministic=True)
    return data.batch(batch, drop_remainder=True).prefetch(2)


def train(
    model: Any,
    keras: Any,
    split: Split,
    *,
    seed: int,
    epochs: int,
    batch: int,
    weight_decay: float = 1e-3,
) -> None:
    """Fit a new model: AdamW, one epoch of warm-up, then a cosine to zero."""
    steps = len(split[1]) // batch
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, max(steps * (epochs - 1), 1), warmup_target=4e-3, warmup_steps=steps
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=weight_decay)
    _fit(model, keras, split, optimizer, seed, epochs, batch)


def fine_tune(
    model: Any,
    keras: Any,
    split: Split,
    *,
    seed: int,
    epochs: int,
    rate: float,
    batch: int,
    weight_decay: float = 0.0,
    callbacks: Sequence[Any] = (),
) -> None:
    """Fit a trained model further with AdamW, the learning rate going from `rate` to zero."""
    steps = len(split[1]) // batch
    decay = keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    optimizer = keras.optimizers.AdamW(decay, weight_decay=weight_decay)
    _fit(model, keras, split, optimizer, seed, epochs, batch, callbacks)


def _fit(
    model: Any,
    keras: Any,
    split: Split,
    optimizer: Any,
    seed: int,
    epochs: int,
    batch: int,
    callbacks: Sequence[Any] = (),
) -> None:
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # on a CPU, XLA makes these steps several times slower
    )
    model.fit(
        batches(split, batch, seed),
        steps_per_epoch=len(split[1]) // batch,
        epochs=epochs,
        verbose=2,
        callbacks=list(callbacks),
    )


def resnet8(keras: Any) -> Any:
    """ResNet-8 of MLPerf Tiny (Banbury et al., 2021), 78,666 parameters."""
    return _resnet(keras, "resnet8", ((16, 1), (32, 2), (64, 2)))


def resnet20(keras: Any) -> Any:
    """ResNet-20 (He et al., 2015), with a 1x1 convolution as shortcut where the width changes."""
    blocks = [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2
    return _resnet(keras, "resnet20", blocks)


def _resnet(keras: Any, name: str, blocks: Sequence[tuple[int, int]]) -> Any:
    """A stem, residual blocks of (filters, strides), and a dense layer."""
    layers = keras.layers

    def conv(x: Any, name: str, filters: int, size: int = 3, strides: int = 1) -> Any:
        return layers.Conv2D(filters, size, strides=strides, padding="same", name=name)(x)

    def conv_bn(x: Any, name: str, filters: int, strides: int = 1) -> Any:
        x = conv(x, name, filters, strides=strides)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)

    def relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=f"{name}_relu")(x)

    image = keras.Input((32, 32, 3), name="image")
    x = relu(conv_bn(image, "stem", 16), "stem")
    for block, (filters, strides) in enumerate(blocks):
        y = relu(conv_bn(x, f"first{block}", filters, strides), f"first{block}")
        y = conv_bn(y, f"second{block}", filters)
        shortcut = conv(x, f"shortcut{block}", filters, 1, strides) if strides > 1 else x
        x = relu(layers.Add(name=f"add{block}")([shortcut, y]), f"add{block}")
    x = layers.Flatten(name="flatten")(layers.AveragePooling2D(8, name="pool")(x))
    return keras.Model(image, layers.Dense(CLASSES, name="class")(x), name=name)


MOBILENET = ((64, 1), (64, 1), (128, 2), (128, 1), (192, 2), (192, 1))


def mobilenet(
    keras: Any,
    max_value: float | None = 6.0,
    blocks: Sequence[tuple[int, int]] = MOBILENET,
    name: str = "mobilenet",
) -> Any:
    """Depthwise separable blocks after MobileNet (Howard et al., 2017), for 32 x 32 pixels."""
    layers = keras.layers

    def bn_relu(x: Any, name: str) -> Any:
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        return layers.ReLU(max_value, name=f"{name}_relu")(x)

    image = keras.Input((32, 32, 3), name="image")
    stem = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem")
    x = bn_relu(stem(image), "stem")
    for block, (filters, strides) in enumerate(blocks):
        deep = layers.DepthwiseConv2D(
            3, strides, padding="same", use_bias=False, name=f"depthwise{block}"
        )
        x = bn_relu(deep(x), f"depthwise{block}")
        point = layers.Conv2D(filters, 1, use_bias=False, name=f"pointwise{block}")
        x = bn_relu(point(x), f"pointwise{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="class")(x), name=name)


def mobilenet_large(keras: Any) -> Any:
    """`mobilenet` with the wide end that MobileNet has, where most of its weights are."""
    blocks = (*MOBILENET[:-2], (256, 2), (512, 1), (512, 1))
    return mobilenet(keras, blocks=blocks, name="mobilenet_large")


def wide(keras: Any) -> Any:
    """`mobilenet` with ReLU for ReLU6, so that a channel can be scaled and scaled back."""
    return mobilenet(keras, max_value=None)


def mobilenet_v2(keras: Any) -> Any:
    """Inverted residuals after MobileNetV2 and V3, with swish and squeeze-and-excite."""
    layers = keras.layers

    def conv_bn(x: Any, name: str, filters: int, size: int = 1, strides: int = 1) -> Any:
        conv = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(conv(x))

    def swish(x: Any, name: str) -> Any:
        return layers.Activation("swish", name=f"{name}_swish")(x)

    def block(x: Any, name: str, filters: int, strides: int) -> Any:
        wide = 4 * x.shape[-1]
        y = swish(conv_bn(x, f"{name}_expand", wide), f"{name}_expand")
        y = layers.DepthwiseConv2D(
            3, strides, padding="same", use_bias=False, name=f"{name}_depthwise"
        )(y)
        y = layers.BatchNormalization(momentum=0.9, name=f"{name}_depthwise_bn")(y)
        y = swish(y, f"{name}_depthwise")
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(y)
        gate = layers.Conv2D(wide // 8, 1, activation="relu", name=f"{name}_reduce")(gate)
        gate = layers.Conv2D(wide, 1, activation="sigmoid", name=f"{name}_gate")(gate)
        y = layers.Multiply(name=f"{name}_excite")([y, gate])
        y = conv_bn(y, f"{name}_project", filters)
        same = strides == 1 and filters == x.shape[-1]
        return layers.Add(name=f"{name}_add")([x, y]) if same else y

    image = keras.Input((32, 32, 3), name="image")
    x = swish(conv_bn(image, "stem", 16, 3, 2), "stem")
    for number, (filters, strides) in enumerate(((16, 1), (24, 2), (24, 1), (40, 2), (40, 1))):
        x = block(x, f"block{number}", filters, strides)
    x = layers.GlobalAveragePooling2D(name="pool")(swish(conv_bn(x, "last", 160), "last"))
    return keras.Model(image, layers.Dense(CLASSES, name="class")(x), name="mobilenet_v2")


def transformer(keras: Any, width: int = 64, depth: int = 2) -> Any:
    """A small vision transformer (Dosovitskiy et al., 2020): 64 patches of 4 x 4 pixels."""
    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(width, 4, 4, name="patches")(image)
    x = layers.Reshape((64, width), name="tokens")(x)
    places = layers.Embedding(64, width, name="places")(np.arange(64)[None])
    x = layers.Add(name="placed")([x, places])
    for number in range(depth):
        y = layers.LayerNormalization(name=f"norm{number}a")(x)
        y = layers.MultiHeadAttention(4, width // 4, name=f"attention{number}")(y, y)
        x = layers.Add(name=f"add{number}a")([x, y])
        y = layers.LayerNormalization(name=f"norm{number}b")(x)
        y = layers.Dense(2 * width, "gelu", name=f"expand{number}")(y)
        x = layers.Add(name=f"add{number}b")([x, layers.Dense(width, name=f"project{number}")(y)])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="class")(x), name="transformer")


NETS = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "mobilenet": mobilenet,
    "wide": wide,
    "mobilenet_v2": mobilenet_v2,
    "transformer": transformer,
}


def named_weights(model: Any) -> dict[str, Array]:
    """Every weight by the name of its layer and its place there; the same in both Kerases."""
    return {
        f"{layer.name}/{place}": weight
        for layer in model.layers
        for place, weight in enumerate(layer.get_weights())
    }


def set_named_weights(model: Any, weights: Mapping[str, Array]) -> None:
    """Give a model what `named_weights` took from another."""
    for layer in model.layers:
        layer.set_weights([weights[f"{layer.name}/{i}"] for i in range(len(layer.get_weights()))])


def settle(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Note a recipe in a cache folder; refuse one that was made by another."""
    file, mine = folder / "recipe.json", json.loads(json.dumps(recipe))
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(mine, indent=2) + "\n")
    elif (theirs := json.loads(file.read_text())) != mine:
        raise SystemExit(
            f"{folder} holds what was made with {theirs}, not with {mine}: take another folder."
        )
