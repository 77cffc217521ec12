"""Which range each tensor gets, and that the file has it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.converters.file.read import inspect

RNG = np.random.default_rng(0)


def requantized(file):
    """Number of QUANTIZE ops from int8 to int8."""
    found = inspect(file)
    return sum(
        node.op == "QUANTIZE" and found.tensors[node.inputs[0]].dtype == "int8"
        for node in found.nodes
    )


def joins():
    """Small tensors that others read, too, joined with large ones and with one of their size."""
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    small = layers.Dense(8, name="small")(a)
    large = layers.Dense(8, name="large")(b)
    moved = layers.Reshape((8,))(small)
    alone = layers.Dense(8, name="alone")(a)
    near = layers.Dense(8, name="near")(a)
    return keras.Model(
        [a, b],
        {
            "small": layers.Dense(3, name="head_small")(small),
            "concatenated": layers.Dense(2, bias_initializer="ones")(ops.hstack([moved, large])),
            "maximum": layers.Maximum(name="maximum")([near, layers.Dense(8)(a)]),
            "near": layers.Dense(2, name="head_near")(near),
            "again": layers.Dense(2)(layers.Concatenate()([small, 40.0 * near])),
            "stacked": ops.stack([alone, layers.Dense(8)(a)], axis=1),
        },
    )


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = joins()
    data = {
        "a": RNG.normal(size=(64, 8)).astype("float32"),
        "b": RNG.uniform(0.0, 1000.0, (64, 8)).astype("float32"),
    }
    qat = tfc.calibrate(tfc.quantize_aware(model), data)
    path = tmp_path_factory.mktemp("joins") / "joins.tflite"
    file = converters.convert(qat, path, converters.Int8(), batch_size=1)
    return model, qat, file, data


def test_an_input_that_others_read_keeps_its_range_if_that_is_finer(joined):
    model, qat, file, data = joined
    for output in converters.verify(model, file, data).outputs:
        assert output.snr_db > 30.0, output.name
    for delegate in ("xnnpack", "reference"):
        converters.verify(qat, file, data, delegate=delegate).raise_if_above(lsb=1.01)
    # `small` before each of two; `near`, which is of the size of the maximum, enters as it is.
    assert requantized(file) == 2


def test_the_report_has_the_ranges_of_the_file(joined):
    _, qat, file, _ = joined
    steps = [step for tensor in inspect(file).tensors for step in tensor.scales]
    rows = [row for row in tfc.qat_report(qat).layers if row.range is not None]
    for row in rows:
        low, high = row.range
        # float32 holds a step to 6e-8 of it.
        assert np.isclose((high - low) / 255, steps, rtol=1e-6, atol=0.0).any(), row.path
    ranges = {row.path: row.range for row in rows}
    assert ranges["near"] == ranges["maximum"]
    # What others read is rounded in its own range, not in the one in which it is joined.
    assert np.ptp(ranges["small"]) < 0.1 * np.ptp(ranges["large"])


def test_joined_ranges_survive_saving_and_stripping(joined, tmp_path):
    model, qat, _, data = joined
    qat.save(tmp_path / "qat.keras")
    again = keras.models.load_model(tmp_path / "qat.keras")
    found, expected = again.predict(data, verbose=0), qat.predict(data, verbose=0)
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)
    stripped = tfc.strip(qat)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]


def test_inputs_that_only_joins_read_have_one_range():
    x = keras.Input((8,), name="x")
    parts = [layers.Dense(4, name=f"part_{i}")(x) for i in range(2)]
    inner = layers.Concatenate(name="inner")(parts)
    model = keras.Model(x, layers.Dense(2)(ops.concatenate([inner, layers.Dense(4)(x)], -1)))
    (shared,) = [f for f in tfc.quantize_aware(model).layers if getattr(f, "calls", 1) > 1]
    assert shared.calls == 3


def test_a_relu_operation_is_one_op_with_the_product_before_it():
    x = keras.Input((8,), name="x")
    y = ops.clip(layers.Dense(4, name="product")(x), 0.0, 6.0)
    z = ops.relu(layers.Dense(4, name="second")(y))
    qat = tfc.quantize_aware(keras.Model(x, layers.Dense(2, name="head")(z)))
    names = {layer.name for layer in qat.layers}
    assert not {"fake_quant_product", "fake_quant_second"} & names
    assert sum("fake_quant" in name for name in names) == 3  # the input, `clip` and `relu`


def test_a_float_layer_behind_operations_that_move_values_gets_its_input_in_float():
    inputs = [keras.Input((1,), name=name) for name in "ab"]
    raw = layers.Concatenate()(inputs)
    y = layers.Dense(4, name="float")(raw)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Reshape((4,))(y)))
    names = [layer.name for layer in tfc.quantize_aware(model, exclude=["float"]).layers]
    assert not {"fake_quant_a", "fake_quant_b"} & set(names)
    assert any("fake_quant_float" in name for name in names)
    # What an int8 layer reads is rounded.
    model = keras.Model(inputs, [model.output, layers.Dense(2)(inputs[0])])
    names = [layer.name for layer in tfc.quantize_aware(model, exclude=["float"]).layers]
    assert {"fake_quant_a", "fake_quant_b"} & set(names) == {"fake_quant_a"}


def test_what_becomes_an_integer_is_not_rounded(tmp_path):
    x = keras.Input((8,), name="x")
    y = layers.Dense(1, name="y")(x)
    index = ops.cast(ops.clip(ops.round(2.0 * y), -4, 4), "int32")
    category = layers.Embedding(9, 1, name="of")(ops.floor(ops.maximum(y, 0.0)))
    model = keras.Model(x, {"y": y, "index": index, "category": category})
    model.get_layer("of").set_weights([np.arange(9.0)[:, None]])
    data = RNG.normal(size=(64, 8)).astype("float32")
    qat = tfc.calibrate(tfc.quantize_aware(model), data)
    file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8(), batch_size=1)
    runner = edge.Runner(file)
    found = dict(zip([output.name for output in runner.outputs], runner(data), strict=True))
    assert np.ptp(found["index"]) > 3
    np.testing.assert_array_equal(found["index"], np.clip(np.round(2 * found["y"]), -4, 4))
    expected = np.floor(np.maximum(found["y"], 0.0))
    assert np.ptp(expected) > 1
    # The table's step is 1/127 of its largest entry.
    np.testing.assert_allclose(found["category"].reshape(-1, 1), expected, atol=0.05)
    floating = {row.type: row.floating for row in tfc.qat_report(qat).floating}
    assert "integer" in floating["Clip"]
