from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfcompress import converters
from tfcompress.converters.passes.flatbuffer import ALIGNMENT, pack, unpack
from tfcompress.edge import Runner


@pytest.fixture(
    scope="module", params=["float32", "float16", "dynamic", "int8", "int8_io", "uint8_io"]
)
def content(request, files):
    return files[request.param].path.read_bytes()


@pytest.fixture(scope="module", params=[True, False], ids=["names", "no-names"])
def packed(request, content):
    return pack(unpack(content), names=request.param)


@pytest.fixture
def pair(content, packed, tmp_path):
    paths = tmp_path / "before.tflite", tmp_path / "after.tflite"
    for path, data in zip(paths, (content, packed), strict=True):
        path.write_bytes(data)
    return paths


def addresses(packed):
    model = schema.Model.GetRootAs(packed)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    fields = [(b, b._tab.Offset(4)) for b in buffers]
    return [b._tab.Vector(field) for b, field in fields if field]


def test_a_packed_file_is_no_larger(content, packed):
    assert len(packed) <= len(content)  # that of a float16 file is packed already


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
def test_a_packed_file_computes_the_same(pair, images, delegate):
    before, after = (Runner(path, delegate) for path in pair)
    assert [(i.name, i.shape, i.dtype) for i in after.inputs + after.outputs] == [
        (i.name, i.shape, i.dtype) for i in before.inputs + before.outputs
    ]
    np.testing.assert_array_equal(after(images), before(images))


def test_a_packed_file_says_the_same(pair):
    before, after = map(converters.inspect, pair)
    assert after.load_error is None
    assert after.nodes == before.nodes
    assert after.signatures == before.signatures
    assert [(t.dtype, t.shape, t.scales, t.zero_points, t.axis, t.constant, t.bytes, t.sparsity)
            for t in after.tensors] == [
        (t.dtype, t.shape, t.scales, t.zero_points, t.axis, t.constant, t.bytes, t.sparsity)
        for t in before.tensors
    ]  # fmt: skip


def test_buffers_begin_where_the_runtime_may_read_them_in_place(packed):
    assert addresses(packed)
    assert all(address % ALIGNMENT == 0 for address in addresses(packed))


def test_names_stay_unless_dropped(content):
    before = {t.name for t in unpack(content).subgraphs[0].tensors}
    assert {t.name for t in unpack(pack(unpack(content))).subgraphs[0].tensors} == before
    graph = unpack(pack(unpack(content), names=False)).subgraphs[0]
    border = {*graph.inputs, *graph.outputs}
    assert [i for i, t in enumerate(graph.tensors) if t.name] == sorted(border)


def test_what_is_equal_is_stored_once(files):
    packed = pack(unpack(Path(files["int8"]).read_bytes()))
    model = unpack(packed)
    contents = [None if b.data is None else b.data.tobytes() for b in model.buffers]
    assert len(set(contents)) == len(contents)
    assert len(set(addresses(packed))) == len(addresses(packed)) == len(contents) - 1
    graph = schema.Model.GetRootAs(packed).Subgraphs(0)
    zero_points = {}
    for i in range(graph.TensorsLength()):
        table = graph.Tensors(i).Quantization()
        if table is not None and not table.ZeroPointIsNone():
            place = table._tab.Vector(table._tab.Offset(10))
            zero_points.setdefault(table.ZeroPointAsNumpy().tobytes(), set()).add(place)
    assert len(zero_points) > 2
    assert all(len(places) == 1 for places in zero_points.values())


def test_an_op_code_that_no_op_has_is_dropped(content):
    model = unpack(content)
    codes = [(code.builtinCode, code.version) for code in model.operatorCodes]
    extra = schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.NEG, version=1)
    model.operatorCodes.insert(0, extra)
    for node in model.subgraphs[0].operators:
        node.opcodeIndex += 1
    found = unpack(pack(model))
    assert [(code.builtinCode, code.version) for code in found.operatorCodes] == codes
    before, after = (m.subgraphs[0].operators for m in (unpack(content), found))
    assert [node.opcodeIndex for node in after] == [node.opcodeIndex for node in before]


def test_packing_twice_changes_nothing(packed):
    assert pack(unpack(packed)) == packed


def test_metadata_that_a_runtime_may_read_stays(content):
    model = unpack(content)
    model.buffers.append(schema.BufferT(data=np.frombuffer(b"11", np.uint8)))
    model.metadata.append(schema.MetadataT(b"ours", len(model.buffers) - 1))
    kept = unpack(pack(model, names=False))
    assert {m.name for m in kept.metadata} <= {b"ours", b"reduced_precision_support"}
    assert kept.metadata[-1].name == b"ours"
    assert kept.buffers[kept.metadata[-1].buffer].data.tobytes() == b"11"


def test_a_present_but_empty_buffer_stays_one(content):
    model = unpack(content)
    model.buffers.append(schema.BufferT(data=np.zeros(0, np.uint8)))
    model.metadata.append(schema.MetadataT(b"empty", len(model.buffers) - 1))
    kept = unpack(pack(model))
    assert kept.buffers[kept.metadata[-1].buffer].data is not None


def test_options_of_custom_ops_behind_the_tables_are_refused(content):
    model = unpack(content)
    model.subgraphs[0].operators[0].largeCustomOptionsOffset = 4096
    model.subgraphs[0].operators[0].largeCustomOptionsSize = 16
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    with pytest.raises(ValueError, match="over 2 GB"):
        unpack(bytes(builder.Output()))
