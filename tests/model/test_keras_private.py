"""Each function on a small model, so that a Keras that takes a name away fails here first."""

import ast
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfcompress
from tfcompress.model import keras_private

ROOT = Path(tfcompress.__file__).parent


def two_branches():
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    y = dense(x)
    return keras.Model(x, layers.Add(name="add")([y, dense(y)]))


def test_checked_with_is_a_version_not_above_the_installed_one():
    checked, installed = (
        tuple(map(int, version.split(".")[:2]))
        for version in (keras_private.CHECKED_WITH, keras.__version__.partition("rc")[0])
    )
    assert checked <= installed


def test_layers_are_found_below_layers_that_are_no_models():
    inner = layers.Dense(2, name="inner")
    outer = layers.TimeDistributed(layers.TimeDistributed(inner, name="middle"), name="outer")
    outer.build((None, 3, 5, 4))
    names = [layer.name for layer in keras_private.flat_layers(outer)]
    assert sorted(names) == ["inner", "middle", "outer"]
    assert [layer.name for layer in keras_private.child_layers(outer)] == ["middle"]


def test_only_functional_models_have_a_graph():
    sequential = keras.Sequential([layers.Dense(2)])
    assert keras_private.functional_of(sequential) is None
    sequential.build((None, 3))
    assert keras_private.has_graph(keras_private.functional_of(sequential))
    assert keras_private.has_graph(two_branches())
    assert not keras_private.has_graph(sequential)


def test_call_nodes_come_in_an_order_that_can_be_computed():
    model = two_branches()
    calls = keras_private.call_nodes(model)
    assert [call.operation.name for call in calls] == ["x", "dense", "dense", "add"]
    assert [call.is_input for call in calls] == [True, False, False, False]
    made = set()
    for call in calls:
        assert {id(tensor) for tensor in call.input_tensors} <= made
        made.update(id(tensor) for tensor in call.outputs)
    args, kwargs = calls[1].arguments.fill_in({id(calls[0].outputs[0]): "new"})
    assert (args, kwargs) == (("new",), {})


def test_producer_is_the_layer_that_a_tensor_comes_from():
    model = two_branches()
    assert keras_private.producer(model.outputs[0]) is model.get_layer("add")
    assert keras_private.producer(keras.KerasTensor((None, 2))) is None


def test_mask_of_is_the_mask_that_a_layer_hands_on():
    masked = layers.Masking()(np.float32([[[1.0], [0.0]]]))
    np.testing.assert_array_equal(keras_private.mask_of(masked), [[True, False]])
    assert keras_private.mask_of(np.float32([1.0])) is None


def test_calls_are_counted_numbered_and_forgotten():
    model = two_branches()
    dense = model.get_layer("dense")
    calls = [call for call in keras_private.call_nodes(model) if call.operation is dense]
    assert [keras_private.call_index(dense, call) for call in calls] == [0, 1]
    dense(keras.KerasTensor((None, 4)))
    assert keras_private.number_of_calls(dense) == 3
    keras_private.forget_calls(dense, keep=2)
    assert keras_private.number_of_calls(dense) == 2
    assert keras_private.call_index(dense, calls[1]) == 1


@pytest.mark.parametrize(
    "layer",
    [
        layers.MultiHeadAttention(2, 3, dropout=0.25),
        layers.GroupQueryAttention(3, 2, 1, dropout=0.25),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_attention_gives_its_projections_dropout_and_regularizer(layer):
    layer.build((None, 5, 8), (None, 5, 8))
    projections = keras_private.attention_projections(layer)
    kernels = {id(part.kernel) for part in projections}
    assert kernels == {id(v) for v in layer.trainable_variables if v.name == "kernel"}
    assert projections.query.kernel.shape == (8, 2, 3)
    assert projections.output.kernel.shape == (2, 3, 8)
    assert keras_private.attention_dropout(layer).rate == 0.25
    keras_private.set_attention_regularizer(layer, keras.regularizers.L1(0.5))
    assert layer.get_config()["kernel_regularizer"]["config"] == {"l1": 0.5}


def test_renamed_computes_the_same_and_leaves_the_operation_alone():
    x = keras.Input((4,))
    y = keras.ops.roll(x, 1, 1)
    operation = keras_private.producer(y)
    name, calls = operation.name, keras_private.number_of_calls(operation)
    other = keras_private.renamed(operation, "other")
    z = other(x)
    assert (other.name, operation.name) == ("other", name)
    assert keras_private.number_of_calls(operation) == calls
    data = np.arange(8, dtype="float32").reshape(2, 4)
    np.testing.assert_array_equal(keras.Model(x, z)(data), keras.Model(x, y)(data))


class Twice(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)
        self.supports_masking = True

    def call(self, x, training=None):
        return self.dense(self.dense(x) * 2.0)


def test_renamed_layer_shares_weights_and_layers():
    layer = Twice()
    name = layer.name
    layer(np.ones((1, 4), "float32"))
    other = keras_private.renamed(layer, "other")
    layer.dense.kernel.assign(np.eye(4))
    x = np.ones((1, 4), "float32")
    np.testing.assert_array_equal(other(x), layer(x))
    assert (other.name, layer.name) == ("other", name)
    attention = layers.MultiHeadAttention(2, 3)
    plain = keras_private.renamed(Attention(2, 3), "plain", layers.MultiHeadAttention)
    assert type(plain) is type(attention)
    assert plain._call_signature == attention._call_signature


class Attention(layers.MultiHeadAttention):
    def call(self, query, cache):
        raise NotImplementedError


def test_calls_inside_a_layer_are_recorded():
    layer = Twice()
    x = keras.KerasTensor((None, 4))
    layer(keras.Input((4,)))
    keras_private.set_mask(x, keras.KerasTensor((None,), "bool"))
    y = keras_private.call_inside(layer, (x,), {})
    assert keras_private.mask_of(y) is keras_private.mask_of(x)
    calls = keras_private.recorded([y], [x])
    assert [type(call.operation).__name__ for call in calls] == ["Dense", "Multiply", "Dense"]
    assert calls[0].input_tensors == [x]
    assert calls[-1].outputs == [y]
    assert keras_private.number_of_calls(layer) == 1


def test_a_product_with_a_constant_can_be_said_to_be_dense():
    x = keras.Input((4,)) * np.float32(2.0)
    assert x.sparse  # If not, Keras has mended it: take `set_dense` out.
    keras_private.set_dense([x])
    assert not x.sparse


def test_infer_spec_knows_a_size_that_the_config_leaves_free():
    dense = layers.EinsumDense("abc,cd->abd", (None, 3))
    x = keras.KerasTensor((None, 5, 2))
    assert dense(x).shape == (None, None, 3)
    keras_private.infer_spec(dense)
    assert dense(x).shape == (None, 5, 3)


def test_set_call_signature_hands_masks_on():
    class Inner(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, x, mask=None):
            return ops.cast(mask, "float32")

    class Wrapper(layers.Layer):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer
            self.supports_masking = True
            keras_private.set_call_signature(self, inspect.signature(layer.call))

        def call(self, *args, **kwargs):
            return self.layer(*args, **kwargs)

    masked = layers.Masking()(np.float32([[[1.0], [0.0]]]))
    np.testing.assert_array_equal(Wrapper(Inner())(masked), [[1.0, 0.0]])


def test_compiled_loss_is_that_of_the_labels_alone():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(1, kernel_regularizer=keras.regularizers.L1(7.0))]
    )
    model.compile("sgd")
    y, predictions = np.float32([[1.0], [1.0]]), np.float32([[0.0], [2.0]])
    assert keras_private.compiled_loss(model, y, predictions, None) is None
    model.compile("sgd", "mse")
    assert float(keras_private.compiled_loss(model, y, predictions, None)) == 1.0
    assert float(keras_private.compiled_loss(model, y, predictions, np.float32([3.0, 0.0]))) == 1.5


def test_layers_in_scope_are_those_that_run_innermost_first():
    seen = []

    class Probe(layers.Layer):
        def call(self, x):
            seen.append([layer.name for layer in keras_private.layers_in_scope()])
            return x

    keras.Sequential([layers.Input((2,)), Probe(name="probe")], name="around")
    assert seen and seen[-1][0] == "probe"
    assert list(keras_private.layers_in_scope()) == []


def test_traced_function_is_the_body_of_a_call():
    inner = tf.function(lambda x: x * 3.0, autograph=False)
    outer = tf.function(lambda x: inner(x), autograph=False)
    graph = outer.get_concrete_function(tf.TensorSpec((2,))).graph
    [call] = [op for op in graph.get_operations() if op.type.endswith("PartitionedCall")]
    body = keras_private.traced_function(graph, call.get_attr("f").name)
    assert "Mul" in {op.type for op in body.get_operations()}


def test_layer_scale_is_the_layer_that_convnext_uses():
    layer = keras_private.LayerScale(0.5, 3)
    layer.build((None, 3))
    np.testing.assert_array_equal(layer(np.ones((1, 3))), [[0.5, 0.5, 0.5]])


def private_names():
    """Private names of what the package meets: models, layers, tensors, callbacks, graphs."""
    model = two_branches()
    model.compile("sgd", "mse")
    attention = layers.MultiHeadAttention(1, 2)
    grouped = layers.GroupQueryAttention(2, 2, 1)
    for layer in (attention, grouped):
        layer.build((None, 3, 4), (None, 3, 4))
    teacher, student = keras.models.clone_model(model), keras.models.clone_model(model)
    distiller = keras.distillation.Distiller(
        teacher, student, keras.distillation.LogitsDistillation()
    )
    objects = (
        model, keras.Sequential([keras.Input((2,)), layers.Dense(1)]), attention, grouped,
        layers.LSTM(2), layers.BatchNormalization(), model.outputs[0], model.optimizer, distiller,
        model.layers[1].kernel, keras.callbacks.History(), tf.Graph(),
    )  # fmt: skip
    found = {name for held in objects for name in dir(held)}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def names_in(tree):
    """Private names that are read or written on other objects, `getattr` and the like included.

    In classes that derive from one of Keras', also methods and attributes of `self`.
    """
    of_keras = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).startswith(("keras.", "layers.")) for base in node.bases)
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not own or id(node) in of_keras:
                yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef) and id(node) in of_keras:
            yield node.lineno, node.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr"):
            yield from ((node.lineno, arg.value) for arg in node.args if hasattr(arg, "value"))


def uses(source, forbidden):
    tree = ast.parse(source)
    found = [(line, name) for line, name in names_in(tree) if name in forbidden]
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.name for alias in node.names]
        if any((name or "").startswith(("keras.src", "tensorflow.python")) for name in names):
            found.append((node.lineno, "keras.src or tensorflow.python"))
    return found


def sources():
    """All modules; converters/ and edge/ may be links, which `rglob` does not follow."""
    for folder in (ROOT, ROOT / "converters", ROOT / "edge"):
        yield from sorted(folder.resolve().rglob("*.py"))


def test_private_names_are_used_in_keras_private_alone():
    forbidden = private_names()
    own = Path(keras_private.__file__)
    assert uses(own.read_text(), forbidden)  # so the search finds what there is
    found = [
        f"{path}:{line}: {name}"
        for path in sources()
        if path != own
        for line, name in uses(path.read_text(), forbidden)
    ]
    assert not found
