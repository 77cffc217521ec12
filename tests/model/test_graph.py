import keras
import pytest
from keras import layers

from tfcompress.model.graph import all_nodes, calls, functional, given_inputs, is_graph, nodes


def model_with_a_shared_layer():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    first = shared(x)
    return keras.Model(x, layers.Add(name="add")([first, shared(first)]), name="net")


def test_nodes_have_their_consumers_and_number_of_calls():
    found = nodes(model_with_a_shared_layer())
    assert [(node.name, node.calls) for node in found] == [
        ("x", 1), ("shared", 2), ("shared", 2), ("add", 1),
    ]  # fmt: skip
    x, first, second, add = found
    assert x.only_consumer() is first
    assert first.only_consumer() is None
    assert {id(node) for node in first.consumers} == {id(second), id(add)}
    assert add.consumers == [None]


def test_functional_rejects_models_without_a_graph():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    subclassed = Subclassed(name="own")
    subclassed.build((None, 2))
    assert not is_graph(subclassed)
    with pytest.raises(ValueError, match="'own' is subclassed"):
        functional(subclassed)
    with pytest.raises(TypeError, match=r"Received: 3 of type int"):
        functional(3)


def test_calls_gives_the_shape_of_each_call_of_a_nested_model():
    head = layers.Dense(2, name="head")
    inner = keras.Sequential([keras.Input((None, 4)), head], name="inner")
    a, b = keras.Input((3, 4)), keras.Input((5, 4))
    model = keras.Model([a, b], [inner(a), inner(b)])
    found = [("/".join(part.name for part in line), shape) for line, shape in calls(model)]
    assert sorted(found) == [("inner/head", (None, 3, 4)), ("inner/head", (None, 5, 4))]


def test_given_inputs_finds_inputs_behind_other_keywords():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    pair = keras.Model([a, b], layers.Add()([a, b]))
    single = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    x, y = keras.Input((4,)), keras.Input((4,))
    assert given_inputs(single, (), {"training": True, "inputs": x}) == [x]
    assert given_inputs(pair, (), {"mask": None, "inputs": [x, y]}) == [x, y]
    assert given_inputs(pair, ({"b": y, "a": x},), {}) == [x, y]


def test_all_nodes_goes_into_each_nested_model_once():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")], name="inner")
    x = keras.Input((4,), name="x")
    names = [node.name for node in all_nodes(keras.Model(x, inner(inner(x))))]
    assert names.count("inner") == 2
    assert names.count("dense") == 1
