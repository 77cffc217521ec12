"""What `record` says of a `call` at any batch size; reasons are in test_open_layers.py."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress.model.opening.calls import NotOpened
from tfcompress.model.opening.recording import record


class Patches(layers.Layer):
    """Sizes as Python numbers, a token of its own for each sample, a constant for each sample."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.token = self.add_weight((1, 1, 4), "ones", name="token")
        self.positions = layers.Embedding(4, 4, name="positions")
        self.ids = ops.arange(4)

    def call(self, x):
        batch, _, _, channels = ops.shape(x)
        x = self.dense(ops.reshape(x, (batch, -1, channels)))
        mask = ops.broadcast_to(ops.arange(3.0)[None, :, None], (batch, 3, 1))
        x = ops.concatenate([ops.tile(self.token, (batch, 1, 1)), x * mask], axis=1)
        return x + self.positions(self.ids)


def test_a_call_that_needs_sizes_is_opened_for_any_batch(tmp_path):
    inputs = keras.Input((1, 3, 2))
    model = keras.Model(inputs, Patches(name="patches")(inputs))
    model.get_layer("patches").token.assign([[[1.0, 2.0, 3.0, 4.0]]])
    opened = tfc.open_layers(model)
    assert opened.output_shape == (None, 4, 4)
    opened.save(tmp_path / "opened.keras")
    again = keras.models.load_model(tmp_path / "opened.keras")
    for samples in (1, 2, 5):
        x = np.random.default_rng(0).normal(size=(samples, 1, 3, 2)).astype("float32")
        for other in (opened, again):
            np.testing.assert_array_equal(other(x), model(x))


class Unlike(layers.Layer):
    """Divides by the size of the batch, which is no shape."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x) / float(ops.shape(x)[0])


def test_a_call_that_counts_samples_is_not_opened():
    layer = Unlike()
    layer(np.ones((2, 3), "float32"))
    with pytest.raises(NotOpened, match="another batch size"):
        record(layer, (keras.KerasTensor((None, 3)),), {})
    assert record(layer, (keras.KerasTensor((2, 3)),), {}).calls


class Scored(layers.Layer):
    """Gives a tensor, and None in the place of scores, as attention of KerasHub does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.scale = self.add_weight((4,), "ones", name="scale")

    def call(self, x, scores=False):
        return self.dense(x) * self.scale, (x if scores else None)


class Stack(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [Scored(name="first"), Scored(name="second")]

    def call(self, x):
        for part in self.parts:
            x, scores = part(x)
            if scores is not None:
                x = x + scores
        return x


def test_layers_inside_may_give_none(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Stack(name="stack")(inputs))
    model.get_layer("stack").parts[1].scale.assign([1.0, 2.0, 3.0, 4.0])
    opened = tfc.open_layers(model)
    assert {"stack_dense", "stack_dense_1"} <= {layer.name for layer in opened.layers}
    opened.save(tmp_path / "opened.keras")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    for other in (opened, keras.models.load_model(tmp_path / "opened.keras")):
        np.testing.assert_array_equal(other(x), model(x))


class Windows(layers.Layer):
    """Adds a mask of two windows to rows, two of which belong to one sample."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.whole = layers.Identity(dtype=self.dtype_policy, name="whole")

    def call(self, x, mask):
        rows, windows = ops.shape(x)[0], ops.shape(mask)[0]
        x = ops.reshape(self.dense(x), (rows // windows, windows, 4)) + mask
        return self.whole(ops.reshape(x, (-1, 4)))


class Image(layers.Layer):
    """Gives scores that nobody asked for, and repeats a weight for each sample."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.windows = Windows(name="windows")
        self.offset = self.add_weight((1, 4), "ones", name="offset")

    def call(self, x):
        batch = ops.shape(x)[0]
        rows = self.windows(ops.reshape(x, (-1, 4)), ops.convert_to_tensor([[0.0] * 4, [9.0] * 4]))
        rows = ops.reshape(rows, (batch, 8)) + ops.tile(
            ops.repeat(self.offset, batch, axis=0), (1, 2)
        )
        return rows, ops.zeros((0, 4))


def test_windows_of_samples_and_outputs_that_depend_on_nothing_are_opened(tmp_path):
    inputs = keras.Input((8,))
    found, scores = Image(name="image")(inputs)
    model = keras.Model(inputs, {"found": found, "scores": scores})
    assert tfc.composite_layers(model) == {"image": "", "image/windows": ""}
    opened = tfc.open_layers(model)
    opened.save(tmp_path / "opened.keras")
    for samples in (1, 2, 5):
        x = np.random.default_rng(0).normal(size=(samples, 8)).astype("float32")
        for other in (opened, keras.models.load_model(tmp_path / "opened.keras")):
            np.testing.assert_array_equal(other(x)["found"], model(x)["found"])
            assert other(x)["scores"].shape == (0, 4)
