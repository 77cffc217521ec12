import copy
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfcompress import converters
from tfcompress.converters import ModelFileError
from tfcompress.converters.jobs import read
from tfcompress.converters.jobs.run import ChildError
from tfcompress.edge.system.tflite import PROBE, sizes


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
    assert (found.ops["MyOwn"], found.custom_ops) == (1, ("MyOwn",))
    assert "MyOwn" in found.load_error
    assert "MyOwn (custom)" in str(found)
    assert "load_error" not in found.to_dict()


def changed(path, out, change):
    """Write a file again with a change to its tables."""
    from tfcompress.converters.passes.flatbuffer import pack, unpack

    model = unpack(Path(path).read_bytes())
    change(model)
    out.write_bytes(pack(model))
    return out


def test_inspect_needs_no_process_and_load_error_needs_one(files, tmp_path, monkeypatch):
    from tfcompress.converters.file import on_demand as module

    jobs = []

    def never(job, request, folder, timeout):
        jobs.append(timeout)
        raise ChildError(f"took longer than {timeout:g} s")

    monkeypatch.setattr(module, "run", never)
    found = converters.inspect(files["int8"], timeout=5)
    assert str(found) and converters.check_sparse_kernels(found).kind == "safe"
    assert jobs == []
    assert found.load_error == found.load_error == "the process that loaded it took longer than 5 s"
    assert jobs == [5]


def test_gzip_bytes_are_those_of_the_file_that_was_read(files, tmp_path):
    file = tmp_path / "m.tflite"
    file.write_bytes(files["float32"].path.read_bytes())
    kept, replaced, gone = (converters.inspect(file) for _ in range(3))
    assert kept.gzip_bytes == sizes(file)[1] == files["float32"].gzip_bytes
    file.write_bytes(files["int8"].path.read_bytes())
    with pytest.raises(ModelFileError, match="changed after it was read"):
        _ = replaced.gzip_bytes
    file.unlink()
    with pytest.raises(ModelFileError, match="cannot be compressed any more: No such file"):
        _ = gone.gzip_bytes
    assert kept.gzip_bytes and str(gone)


def test_inspection_shows_subgraphs_metadata_and_names_without_terminal_escapes(files, tmp_path):
    def change(model):
        model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))
        model.subgraphs[1].name = b"body\x1b]0;owned\x07"
        for tensor in model.subgraphs[0].tensors:
            tensor.name = b"\x1b[31m\xe2\x80\xae" + tensor.name
        model.signatureDefs[0].signatureKey = b"serve\rme"
        model.metadata[0].name = b"notes\x9b"

    found = converters.inspect(changed(files["float32"], tmp_path / "odd.tflite", change))
    assert found.subgraphs[1].name == r"body\x1b]0;owned\x07"
    text = str(found)
    for part in ("Subgraphs", r"body\x1b]0;owned", r"\x1b[31m\u202e", r"serve\rme", "Metadata"):
        assert part in text
    small = converters.sparsify(found.path, tmp_path / "small.tflite")
    checked = str(converters.check_sparse_kernels(found))
    for line in (*text.splitlines(), *str(small).splitlines(), *checked.splitlines()):
        assert line.isprintable(), line


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


def dense(model):
    return model.subgraphs[0].operators[-1]


def kernel(model):
    return model.subgraphs[0].tensors[dense(model).inputs[1]]


def scales(model, **fields):
    kernel(model).quantization = schema.QuantizationParametersT(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.signatureDefs[0].outputs[0], "tensorIndex", 999), "names tensor 999"),
        (lambda m: setattr(dense(m), "outputs", [999]), "names tensor 999"),
        (lambda m: setattr(m.subgraphs[0], "outputs", [-1]), "names tensor -1"),
        (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 7), "wrong"),
        (lambda m: setattr(dense(m), "opcodeIndex", 99), "wrong"),
        (lambda m: vars(m).update(subgraphs=[], signatureDefs=[]), "no graph"),
        (lambda m: setattr(dense(m), "inputs", [0]), "FULLY_CONNECTED takes at least 2 input"),
        (lambda m: setattr(dense(m), "outputs", []), "FULLY_CONNECTED .*gives one output"),
        (lambda m: setattr(m.subgraphs[0].operators[0], "builtinOptions", None), "CONV_2D lacks"),
        (lambda m: setattr(dense(m), "outputs", [dense(m).inputs[1]]), "values from elsewhere"),
        (lambda m: setattr(kernel(m), "shape", [-30, 40]), r"has the shape \[-30, 40\]"),
        (lambda m: scales(m, scale=[np.nan], zeroPoint=[0]), "no finite number"),
        (lambda m: scales(m, scale=[1.0, 2.0, 3.0], zeroPoint=[0, 1]), "3 scale.*2 zero point"),
        (lambda m: scales(m, scale=[1.0] * 30, quantizedDimension=2), "along dimension 2"),
    ],
)
def test_inspect_raises_for_what_does_not_fit_together(files, change, message, tmp_path):
    file = changed(files["float32"], tmp_path / "torn.tflite", change)
    with pytest.raises(ModelFileError, match=rf"torn\.tflite: .*does not fit together.*{message}"):
        converters.inspect(file)


def test_inspect_fills_in_zero_points_that_a_program_left_out(files, tmp_path):
    def change(model):
        scales(model, scale=[1.0] * 30)

    found = converters.inspect(changed(files["float32"], tmp_path / "m.tflite", change))
    assert [len(t.zero_points) for t in found.constants if len(t.scales) > 1] == [30]


def test_inspect_bounds_the_work_that_lengths_can_ask_for(tmp_path):
    """Many graphs that are one and the same in the file, each with all of its tensors."""

    def change(model):
        graph = model.subgraphs[0]
        graph.tensors = graph.tensors * 60
        model.subgraphs = [graph] * 60

    file = changed(PROBE, tmp_path / "bomb.tflite", change)
    assert file.stat().st_size < 3_000
    with pytest.raises(ModelFileError, match="more parts than"):
        converters.inspect(file)


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "dynamic"])
def test_whatever_is_read_of_a_damaged_file_can_be_shown_and_checked(files, name, tmp_path):
    content, rng = files[name].path.read_bytes(), np.random.default_rng(0)
    read = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), rng.integers(1, 9)):
            damaged[place] = rng.integers(0, 256)
        file = tmp_path / "damaged.tflite"
        file.write_bytes(damaged)
        try:
            found = converters.inspect(file)
        except ModelFileError as error:
            assert "damaged.tflite" in str(error)
            continue
        read += 1
        assert 0 <= found.zeros <= 1
        assert str(found) and json.dumps(found.to_dict(), allow_nan=False)
        assert str(converters.check_sparse_kernels(found))
    assert 5 < read < 55


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=8))
@settings(
    max_examples=40,
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
        found = converters.inspect(file)
    except ModelFileError as error:
        assert "damaged.tflite" in str(error)
    else:
        assert found.to_dict()["bytes"] == len(content)
        assert str(found)
