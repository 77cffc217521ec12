"""What `qat_report` says is what the file does, for layers and operations with a rule and without.

A model has one branch for each case, between two layers that are always int8. A branch of the file
computes in float if an op in it has a float output, other than the float form of an int8 tensor.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.converters.file.dataflow import Dataflow
from tfcompress.converters.file.names import scope_names
from tfcompress.converters.file.read import inspect
from tfcompress.model.graph import nodes

IMAGE, SEQUENCE, VECTOR = (6, 6, 4), (6, 4), (8,)


@keras.saving.register_keras_serializable("test_qat_report")
class Block(layers.Layer):
    """A layer made of layers, as a residual block."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide, self.narrow = layers.Dense(16, activation="relu"), layers.Dense(8)

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 16))
        self.built = True

    def call(self, x):
        return x + self.narrow(self.wide(x))


@keras.saving.register_keras_serializable("test_qat_report")
class OneOp(layers.Layer):
    """A product with a factor that the converter folds into the kernel."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")

    def call(self, x):
        return ops.relu(0.5 * ops.matmul(x, self.matrix))


def both(layer):
    """A merging layer on a tensor and the tensor with its values moved."""
    return lambda x: layer([x, ops.roll(x, 1, 1)])


QUICK = {
    "Block": (VECTOR, Block()),
    "OneOp": (VECTOR, OneOp()),
    "Lambda": (VECTOR, layers.Lambda(lambda x: x * ops.sigmoid(x))),
    "ReLU(max_value=1)": (VECTOR, layers.ReLU(max_value=1.0)),
    "LeakyReLU": (VECTOR, layers.LeakyReLU()),
    "Dense(mish)": (VECTOR, layers.Dense(4, activation="mish")),
    "Dense(silu)": (VECTOR, layers.Dense(4, activation="silu")),
    "LayerNormalization": (VECTOR, layers.LayerNormalization()),
    "square": (VECTOR, ops.square),
    "sin": (VECTOR, ops.sin),
    "exp": (VECTOR, ops.exp),
    "Multiply": (VECTOR, both(layers.Multiply())),
}
LAYERS = {
    **{
        f"Activation({name})": (VECTOR, layers.Activation(name))
        for name in ("elu", "selu", "softplus", "softsign", "mish", "gelu", "hard_sigmoid")
    },
    "ELU": (VECTOR, layers.ELU()),
    "PReLU": (VECTOR, layers.PReLU(alpha_initializer="ones")),
    "ReLU(threshold)": (VECTOR, layers.ReLU(threshold=0.1)),
    "GroupNormalization": (VECTOR, layers.GroupNormalization(2)),
    "RMSNormalization": (VECTOR, layers.RMSNormalization()),
    "UnitNormalization": (VECTOR, layers.UnitNormalization()),
    "Add": (VECTOR, both(layers.Add())),
    "Average": (VECTOR, both(layers.Average())),
    "Maximum": (VECTOR, both(layers.Maximum())),
    "Attention": (SEQUENCE, both(layers.Attention())),
    "Conv1DTranspose": (SEQUENCE, layers.Conv1DTranspose(4, 3)),
    "SimpleRNN": (SEQUENCE, layers.SimpleRNN(3)),
    "TimeDistributed(ELU)": (SEQUENCE, layers.TimeDistributed(layers.ELU())),
    "TimeDistributed(Dense(elu))": (
        SEQUENCE,
        layers.TimeDistributed(layers.Dense(3, activation="elu")),
    ),
    "Resizing": (IMAGE, layers.Resizing(4, 4)),
    "GlobalAveragePooling2D": (IMAGE, layers.GlobalAveragePooling2D()),
    "SeparableConv2D(elu)": (IMAGE, layers.SeparableConv2D(4, 3, activation="elu")),
}
UNARY = (
    *("abs", "ceil", "cos", "elu", "expm1", "floor", "gelu", "hard_silu", "leaky_relu"),
    *("log1p", "log_sigmoid", "log_softmax", "negative", "reciprocal", "relu", "round", "rsqrt"),
    *("sigmoid", "sign", "silu", "softmax", "softplus", "sqrt", "tanh", "tanh_shrink"),
)
OPERATIONS = {
    **{name: (VECTOR, getattr(ops, name)) for name in UNARY},
    "flip": (SEQUENCE, lambda x: ops.flip(x, 1)),
    "x + 1": (VECTOR, lambda x: x + 1.0),
    "1 / x": (VECTOR, lambda x: 1.0 / x),
    "clip": (VECTOR, lambda x: ops.clip(x, 0.1, 0.4)),
    "where": (VECTOR, lambda x: ops.where(x > 0.3, x, 0.0)),
    "split": (VECTOR, lambda x: ops.split(x, 2, -1)[0]),
    "cumsum": (VECTOR, lambda x: ops.cumsum(x, -1)),
    "normalize": (VECTOR, ops.normalize),
    "mean": (IMAGE, lambda x: ops.mean(x, (1, 2))),
    "max": (IMAGE, lambda x: ops.max(x, (1, 2))),
}


def branches(cases):
    """A model with a branch for each case, named after its place."""
    inputs, outputs = {}, []
    for index, (shape, function) in enumerate(cases.values()):
        x = inputs.setdefault(shape, keras.Input(shape, name=f"x_{len(shape)}"))
        # Positive, so that a root or a logarithm has a range.
        kernel = keras.initializers.RandomUniform(0.1, 0.5)
        x = layers.Dense(shape[-1], kernel_initializer=kernel, name=f"in_{index}")(x)
        outputs.append(layers.Dense(2, name=f"out_{index}")(function(x)))
    return keras.Model(list(inputs.values()), outputs)


def float_ops(file, index):
    """The ops that compute in float between the first and the last layer of a branch."""
    flow, found = Dataflow(file, 0), []
    todo, seen = [file.signatures[0].outputs[f"out_{index}"]], set()
    while todo:
        place = flow.producer(todo.pop())
        if place is None or place in seen:
            continue
        seen.add(place)
        node = flow.nodes[place]
        first = any(f"/in_{index}_1/" in name for name in scope_names(node, file))
        if first and node.op == "FULLY_CONNECTED":
            continue
        makes = {file.tensors[output].dtype for output in node.outputs}
        if node.op != "DEQUANTIZE" and "float32" in makes:
            found.append(node.op)
        todo += flow.computed(node)
    return found


def reported(model, qat, index):
    """What the report says of the layers and operations of a branch."""
    rows = {row.path: row.floating for row in tfc.qat_report(qat).layers}
    producers = {key: node for node in nodes(model) for key in node.outputs}
    todo = [key for node in nodes(model) if node.name == f"out_{index}" for key in node.inputs]
    said = []
    while todo:
        node = producers[todo.pop()]
        if node.name != f"in_{index}":
            said.append(rows.get(node.name, ""))
            todo += node.inputs
    return [reason for reason in said if reason]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(QUICK, id="a few"),
        pytest.param(LAYERS, id="layers", marks=pytest.mark.slow("many layers in one model")),
        pytest.param(OPERATIONS, id="operations", marks=pytest.mark.slow("many operations")),
    ],
)
def test_the_report_says_what_the_file_does(cases, tmp_path):
    model = branches(cases)
    qat = tfc.quantize_aware(model)
    rng = np.random.default_rng(0)
    data = {t.name: rng.uniform(0.1, 1.0, (8, *t.shape[1:])).astype("float32") for t in qat.inputs}
    tfc.calibrate(qat, data)
    converters.convert(qat, tmp_path / "qat.tflite", converters.Int8(), batch_size=1)
    file = inspect(tmp_path / "qat.tflite")
    found = {name: float_ops(file, index) for index, name in enumerate(cases)}
    said = {name: reported(model, qat, index) for index, name in enumerate(cases)}
    different = [name for name in cases if bool(found[name]) != bool(said[name])]
    assert not different, {name: (found[name], said[name]) for name in different}
    assert any(said.values())
    assert not all(said.values())
    steps = np.array([step for tensor in file.tensors for step in tensor.scales])
    # float32 holds a step to 6e-8 of it.
    assert not [
        row
        for row in tfc.qat_report(qat).layers
        if row.range is not None
        and not np.isclose(np.ptp(row.range) / 255, steps, rtol=1e-6, atol=0.0).any()
    ]
