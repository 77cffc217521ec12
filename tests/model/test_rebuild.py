import keras
import numpy as np
import pytest
from keras import layers

from tests.model.test_graph import model_with_a_shared_layer
from tfcompress.model.rebuild import copy_layer, rebuild, rebuild_layers


def test_rebuild_with_copies_computes_the_same_and_shares_no_weight():
    model = model_with_a_shared_layer()
    copies = {}

    def call(node, args, kwargs):
        if node.call.is_input:
            return args[0]
        if node.operation not in copies:
            copies[node.operation] = copy_layer(node.operation, args, kwargs)
        return copies[node.operation](*args, **kwargs)

    new = rebuild(model, call, "copy")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(new(x), model(x))
    assert new.name == "copy"
    assert not {id(v) for v in new.variables} & {id(v) for v in model.variables}


def test_rebuild_layers_copies_each_layer_once_in_nested_models_too():
    inner = model_with_a_shared_layer()
    x = keras.Input((4,))
    model = keras.Model(x, [inner(x), inner(2.0 * x)], name="outer")
    made = []

    def copy(node, args, kwargs):
        made.append(node.operation)
        layer = isinstance(node.operation, layers.Layer)
        return copy_layer(node.operation, args, kwargs) if layer else node.operation

    new = rebuild_layers(model, copy)
    data = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for found, wanted in zip(new(data), model(data), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(made) == len(set(made)) > 1
    assert new.name == "outer"
    assert new.count_params() == model.count_params()
    assert not {id(v) for v in new.variables} & {id(v) for v in model.variables}


def test_copy_layer_leaves_no_record_of_the_call_that_builds_the_copy():
    layer = layers.Dense(2, name="head")
    x = keras.Input((4,))
    keras.Model(x, layer(x))
    copy = copy_layer(layer, (x,), {})
    with pytest.raises(AttributeError, match="never been called"):
        _ = copy.output


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_copy_layer_keeps_lambdas_which_keras_loads_from_no_config():
    halve = lambda x: 0.5 * x  # noqa: E731, a lambda is what this is about
    options = dict.fromkeys(("activation", "kernel_constraint", "bias_regularizer"), halve)
    layer = layers.Dense(2, **options, kernel_initializer=lambda shape, dtype: np.ones(shape))
    x = keras.Input((4,))
    layer(x)
    copy = copy_layer(layer, (x,), {})
    assert all(getattr(copy, name) is halve for name in options)
    np.testing.assert_array_equal(copy(np.ones((1, 4))), [[2.0, 2.0]])
