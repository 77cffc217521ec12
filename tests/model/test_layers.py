import keras
from keras import layers

from tfcompress.model.layers import all_layers, children, own_weights, trained, walk


def nested():
    dense = layers.Dense(2, name="dense")
    outer = layers.TimeDistributed(dense, name="outer")
    return keras.Sequential([keras.Input((3, 4), name="x"), outer], name="net")


def test_walk_gives_paths_and_lineages_depth_first():
    model = nested()
    found = list(walk(model))
    assert [path for path, _ in found] == ["net", "x", "outer", "outer/dense"]
    assert found[0][1] == ()
    assert found[-1][1] == (model.layers[0], model.layers[0].layer)


def test_walk_gives_a_shared_layer_once_at_its_first_place():
    shared = layers.Dense(4, name="shared")
    inner = [keras.Sequential([keras.Input((4,)), shared], name=name) for name in ("a", "b")]
    x = keras.Input((4,), name="x")
    model = keras.Model(x, inner[1](inner[0](x)))
    assert [path for path, _ in walk(model) if path.endswith("shared")] == ["a/shared"]


def test_all_layers_children_and_own_weights_of_a_wrapper():
    outer = nested().layers[0]
    assert {layer.name for layer in all_layers(outer)} == {"outer", "dense"}
    assert [layer.name for layer in children(outer)] == ["dense"]
    assert own_weights(outer) == []
    assert [weight.name for weight in own_weights(outer.layer)] == ["kernel", "bias"]


def test_trained_is_the_student_of_a_distiller():
    teacher, student = (
        keras.Sequential([keras.Input((4,)), layers.Dense(2)], name=name)
        for name in ("teacher", "student")
    )
    losses = keras.distillation.LogitsDistillation()
    distiller = keras.distillation.Distiller(teacher, student, losses)
    assert trained(distiller) is student
    assert trained(student) is student
