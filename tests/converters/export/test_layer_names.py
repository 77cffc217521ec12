import keras
import pytest
import tensorflow as tf
from keras import layers

from tfcompress.converters.export.layer_names import layer_at


@pytest.fixture(scope="module")
def model():
    """Names that are easily mistaken for one another's second call."""
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="dense"), layers.Dense(3, name="dense_1")],
        name="inner",
    )
    shared = layers.Dense(3, name="dense")
    x = start = keras.Input((3,))
    for layer in (inner, shared, shared, layers.Dense(3, name="dense_1"), inner):
        x = layer(x)
    x = layers.Dense(3, name="dense_1_1")(x)
    return keras.Model(start, x, name="net")


def test_every_matmul_leads_to_the_layer_whose_weights_it_reads(model):
    owner = {}
    for prefix, parent in (("", model), ("inner/", model.get_layer("inner"))):
        for layer in parent.layers:
            if isinstance(layer, layers.Dense):
                owner[layer.kernel.value.handle.ref()] = prefix + layer.name

    call = tf.function(lambda x: model(x, training=False))
    graph = call.get_concrete_function(tf.TensorSpec((None, 3))).graph
    captured = {inner.name: owner.get(outer.ref()) for outer, inner in graph.captures}
    found = [
        (layer_at(model, op.name), captured[op.inputs[1].op.inputs[0].name])
        for op in graph.get_operations()
        if op.type == "MatMul"
    ]
    assert len(found) == 8
    assert [layer for layer, _ in found] == [truth for _, truth in found]


def test_joined_and_foreign_names(model):
    assert layer_at(model, "net_1/nothing/Relu;net_1/inner_1/dense_1_1/MatMul") == "inner/dense_1"
    assert layer_at(model, "StatefulPartitionedCall:0") is None
    assert layer_at(model, "") is None
