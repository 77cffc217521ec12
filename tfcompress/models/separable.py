"""`separable_net`: a depthwise separable net for XNNPACK's sparse kernels."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tfcompress.edge.arguments import check_each, check_integer, check_text, refuse

__all__ = ["separable_net"]

_MOST_FILTERS = 65_536


def separable_net(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    stem: int = 32,
    blocks: Sequence[tuple[int, int]] = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    kernel_size: int = 3,
    name: str = "separable",
) -> keras.Model:
    """Build a net of depthwise separable blocks, as in MobileNet, for sparse kernels on Arm.

    XNNPACK's sparse kernels need padding on both sides. Keras' own MobileNets do not have it,
    because padding='same' with stride 2 pads one side only. Here `ZeroPadding2D` and
    padding='valid' pad both. Prune the 1x1 convolutions to more than 2/3 zeros and store the file
    sparse (`converters.convert(..., sparse=True)`): on Arm they then skip the zeros, which
    `tfcompress check-sparse` confirms.

    >>> model = separable_net((32, 32, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    Args:
        input_shape: Height, width and 3 channels. Height and width must be even down to the last
            layer with stride 2: multiples of 8 for the default blocks.
        classes: Number of output scores; they have no softmax.
        stem: Filters of the first convolution, which has stride 2. Defaults to 32.
        blocks: For each block, the filters of its 1x1 convolution and the stride of its depthwise
            convolution, 1 or 2. Defaults to five blocks of 64 to 256 filters.
        kernel_size: Kernel size of the depthwise convolutions, 3 or 5. Defaults to 3.
        name: Name of the model. Defaults to "separable".

    Returns:
        A functional model that is not compiled.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The sparse kernels cannot run a net with these arguments.

    Reference:
        Howard et al., 2017, https://arxiv.org/abs/1704.04861; Elsen et al., 2019,
        https://arxiv.org/abs/1911.09723.
    """
    check_integer("classes", classes, 1)
    check_integer("stem", stem, 1, _MOST_FILTERS)
    check_integer("kernel_size", kernel_size, 3, 5)
    check_text("name", name)
    _check_sizes("input_shape", input_shape, 3, "three integers: height, width and channels")
    check_each("blocks", blocks, (list, tuple), "a pair of integers: filters and stride")
    for index, sizes in enumerate(blocks):
        _check_sizes(f"blocks[{index}]", sizes, 2, "a pair of integers: filters and stride")
    strides = [stride for _, stride in blocks]
    if kernel_size not in (3, 5) or not blocks or not set(strides) <= {1, 2}:
        raise ValueError(
            "XNNPACK has sparse kernels for nets of 3x3 or 5x5 depthwise convolutions with stride "
            f"1 or 2. Received: kernel_size={kernel_size}, blocks={blocks}"
        )
    multiple = 2 ** (1 + strides.count(2))
    height, width, channels = input_shape
    if channels != 3 or height % multiple or width % multiple:
        raise ValueError(
            f"With {strides.count(2)} blocks of stride 2 behind the stem, images must have 3 "
            f"channels and be multiples of {multiple} high and wide. "
            f"Received: input_shape={input_shape}"
        )

    image = keras.Input(input_shape, name="image")
    x = layers.ZeroPadding2D(1, name="stem_pad")(image)
    x = layers.Conv2D(stem, 3, strides=2, use_bias=False, name="stem")(x)
    x = _bn_relu(x, "stem")
    for block, (filters, stride) in enumerate(blocks):
        if stride == 2:
            x = layers.ZeroPadding2D(kernel_size // 2, name=f"depthwise{block}_pad")(x)
        x = layers.DepthwiseConv2D(
            kernel_size,
            strides=stride,
            padding="valid" if stride == 2 else "same",
            use_bias=False,
            name=f"depthwise{block}",
        )(x)
        x = _bn_relu(x, f"depthwise{block}")
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"pointwise{block}")(x)
        x = _bn_relu(x, f"pointwise{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, name="scores")(x), name=name)


def _check_sizes(name: str, sizes: object, length: int, wanted: str) -> None:
    """Raise if an argument is no tuple of so many sizes."""
    if not isinstance(sizes, list | tuple) or len(sizes) != length:
        refuse(name, wanted, sizes, TypeError)
    for index, size in enumerate(sizes):
        check_integer(f"{name}[{index}]", size, 1, _MOST_FILTERS)


def _bn_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
