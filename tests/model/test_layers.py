import keras
import pytest
from keras import layers

from tfcompress.model.layers import all_layers, children, own_weights, rule_class, trained, walk


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


class WithoutGroups(layers.DepthwiseConv2D):
    """The usual remedy for models saved by older versions of Keras."""

    def __init__(self, *args, groups=1, **kwargs):
        super().__init__(*args, **kwargs)


class Named(WithoutGroups):
    def get_config(self):
        return {**super().get_config(), "more": True}

    def more(self):
        return 1


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


class Halves:
    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] // 2)


class Mixed(Halves, layers.ReLU):
    pass


class Scored(layers.MultiHeadAttention):
    def _compute_attention(self, *args, **kwargs):
        return super()._compute_attention(*args, **kwargs)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(2, 3), layers.Conv2D),
        (layers.SpatialDropout1D(0.5), layers.SpatialDropout1D),
        (WithoutGroups(3), layers.DepthwiseConv2D),
        (Named(3), layers.DepthwiseConv2D),
        (Doubled(2), Doubled),
        (Mixed(), Mixed),
        (Scored(2, 2), Scored),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else value.name,
)
def test_rule_class_is_that_of_keras_unless_a_method_is_replaced(layer, expected):
    assert rule_class(layer) is expected
