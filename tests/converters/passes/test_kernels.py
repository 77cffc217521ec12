import keras
import pytest
from keras import layers

from tfcompress import converters
from tfcompress.converters.export.layer_names import layer_tree
from tfcompress.converters.passes.flatbuffer import unpack
from tfcompress.converters.passes.graph import graphs
from tfcompress.converters.passes.kernels import find_kernels


@pytest.fixture(scope="module")
def model():
    """Layers whose names in a file look like those of others, and all that may be in the way."""
    image = keras.Input((8, 8, 4), name="image")
    inner = keras.Sequential(
        [keras.Input((8, 8, 8)), layers.Conv2D(8, 1, name="conv2d")], name="inner"
    )
    x = layers.Conv2D(8, 3, padding="same", name="conv2d")(image)
    x = layers.BatchNormalization(name="conv2d_bn")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2d_1")(x)
    x = inner(x)
    x = layers.DepthwiseConv2D(3, name="deep")(x)
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    ids = keras.Input((), dtype="int32", name="ids")
    y = layers.Embedding(9, 8, name="table")(ids)
    y = layers.Add()([layers.GlobalAveragePooling2D()(x), layers.Dense(4, name="conv2d_2")(y)])
    return keras.Model([image, ids], layers.Dense(3, name="dense")(y), name="net")


@pytest.fixture(scope="module")
def kernels(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "net.tflite"
    file = converters.convert(model, path, batch_size=1)
    return find_kernels(graphs(unpack(file.path.read_bytes()))[0], layer_tree(model))


def test_find_kernels_names_the_layers(kernels):
    found = [(kernel.op, kernel.layer) for kernel in kernels]
    assert sorted(found) == [
        ("CONV_2D", "conv2d"), ("CONV_2D", "conv2d_1"),
        ("CONV_2D", "convolution"),  # the grouped one: the converter drops its scope
        ("CONV_2D", "inner/conv2d"), ("DEPTHWISE_CONV_2D", "deep"), ("FULLY_CONNECTED", "conv2d_2"),
        ("FULLY_CONNECTED", "dense"), ("GATHER", "table"), ("TRANSPOSE_CONV", "up"),
    ]  # fmt: skip


def test_find_kernels_says_why_a_kernel_has_no_form_of_4_bits(kernels):
    why = {kernel.layer: kernel.why for kernel in kernels if kernel.why}
    assert set(why) == {"convolution", "deep", "table", "up"}
    assert "grouped convolution" in why["convolution"]
    assert "depthwise" in why["deep"]
    assert "transposed" in why["up"]
