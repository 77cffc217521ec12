import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfcompress import converters
from tfcompress.converters import ModelFileError
from tfcompress.converters.jobs import read


def test_inspect_reads_ops_tensors_and_signatures(files):
    found = converters.inspect(files["int8"])
    assert found.bytes == files["int8"].bytes
    for op in ("CONV_2D", "MEAN", "FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE"):
        assert found.ops[op] == 1, op
    assert sum(found.ops.values()) == len(found.nodes)
    (signature,) = found.signatures
    image = found.tensors[signature.inputs["image"]]
    assert (image.dtype, image.shape, image.constant) == ("float32", (None, 12, 12, 3), False)
    assert list(signature.outputs) == ["scores"]
    assert sum(t.bytes for t in found.constants) <= found.constant_bytes < found.bytes
    assert found.load_error is None
    kernel = found.constants[0]
    assert (kernel.dtype, kernel.shape, kernel.bytes) == ("int8", (30, 40), 1200)
    assert "min_runtime_version" in found.metadata


def test_inspect_counts_bytes_by_type(files):
    sizes = {}
    for name in ("float32", "float16", "dynamic"):
        (kernel,) = (t for t in converters.inspect(files[name]).constants if t.shape == (30, 40))
        sizes[name] = {kernel.dtype: kernel.bytes}
    assert sizes == {
        "float32": {"float32": 4800},
        "float16": {"float16": 2400},
        "dynamic": {"int8": 1200},
    }


def test_inspection_becomes_json_and_text(files):
    found = converters.inspect(files["int8_io"])
    restored = json.loads(json.dumps(found.to_dict()))
    assert restored["ops"] == found.ops
    text = str(found)
    for part in ("int8_io.tflite", "CONV_2D", "image", "scores", "30 x 40", "1,200"):
        assert part in text


def test_inspect_reports_a_file_that_the_runtime_does_not_load(files, tmp_path):
    """A custom op that nobody knows: the file is sound and can be read."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromPackedBuf(files["float32"].path.read_bytes(), 0)
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.CONV_2D:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
            code.customCode = "MyOwn"
    builder = Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "custom.tflite").write_bytes(builder.Output())
    found = converters.inspect(tmp_path / "custom.tflite")
    assert found.ops["MyOwn"] == 1
    assert "MyOwn" in found.load_error
    assert "MyOwn" in str(found)


@pytest.mark.parametrize(
    ("kind", "values", "data"),
    [
        ("FLOAT32", [0.0, -0.0, 1, 2], np.array([0.0, -0.0, 1, 2], "<f4")),
        ("FLOAT16", [0, 0, 0, 1], np.array([0, 0, 0, 1], "<f2")),
        ("BFLOAT16", [0, -0.0, 1, 1], np.array([0, 0x8000, 0x3F80, 0x3F80], "<u2")),
        ("INT8", [0, 5, 0, -1], np.array([0, 5, 0, -1], "i1")),
        ("INT4", [0, -1, 7, 0], np.array([0xF0, 0x07], "u1")),
        ("INT2", [0, -1, 1, 0], np.array([0b00011100], "u1")),
    ],
)
def test_sparsity_is_the_share_of_zeros(kind, values, data):
    stored = data.view("u1")
    expected = float(np.mean(np.array(values) == 0))
    assert read._sparsity(stored, kind, [2, 2], [], None, False) == expected
    assert read._bytes(kind, [2, 2]) == len(stored)


def test_sparsity_counts_elements_at_the_zero_point():
    data = np.array([[3, 3, 0], [0, 7, 7]], "i1")
    assert read._sparsity(data.reshape(-1).view("u1"), "INT8", [2, 3], [3, 7], 0, False) == 4 / 6
    assert read._sparsity(data.reshape(-1).view("u1"), "INT8", [2, 3], [3], None, False) == 2 / 6
    odd = np.array([0x10, 0x00], "u1")  # three int4 values, and half a byte of padding
    assert read._sparsity(odd, "INT4", [3], [], None, False) == 2 / 3


def keras_file(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "folder"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"abc"), "3 bytes"),
        (keras_file, r"zip.*\.keras"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "HDF5"),
        (lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)), "not a .tflite"),
    ],
)
def test_inspect_says_what_another_file_looks_like(write, message, tmp_path):
    file = tmp_path / "model.tflite"
    write(file)
    with pytest.raises(ModelFileError, match=rf"model\.tflite: .*{message}"):
        converters.inspect(file)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_inspect_raises_for_a_truncated_file(files, part, tmp_path):
    content = files["int8"].path.read_bytes()
    file = tmp_path / "cut.tflite"
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelFileError, match=r"cut\.tflite: .*truncated or corrupt"):
        converters.inspect(file)


@pytest.mark.parametrize("part", ["signature", "node", "graph"])
def test_inspect_raises_for_a_tensor_that_is_not_there(files, part, tmp_path):
    from tfcompress.converters.passes.flatbuffer import pack, unpack

    model = unpack(files["float32"].path.read_bytes())
    if part == "signature":
        model.signatureDefs[0].outputs[0].tensorIndex = 999
    elif part == "node":
        model.subgraphs[0].operators[0].outputs = [999]
    else:
        model.subgraphs[0].outputs = [999]
    file = tmp_path / "torn.tflite"
    file.write_bytes(pack(model))
    with pytest.raises(ModelFileError, match=r"torn\.tflite: .*does not fit together.*999"):
        converters.inspect(file)


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=8))
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_inspect_of_a_damaged_file_answers_or_raises(files, tmp_path, damage):
    content = bytearray(files["dynamic"].path.read_bytes())
    for place, value in damage:
        content[8 + place % (len(content) - 8)] = value
    file = tmp_path / "damaged.tflite"
    file.write_bytes(content)
    try:
        found = converters.inspect(file, timeout=20)
    except ModelFileError as error:
        assert "damaged.tflite" in str(error)
    else:
        assert found.to_dict()["bytes"] == len(content)
        assert str(found)
