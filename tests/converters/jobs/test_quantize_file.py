import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.support.float_files import float_file, main_graph, run_file
from tfcompress.converters.jobs.quantize_file import job
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.converters.precisions.base import ConverterOptions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 8)).astype("float32")
KERNEL = RNG.normal(size=(8, 4)).astype("float32")


@pytest.fixture
def request_of(tmp_path):
    """What the job is asked for: a dense layer, in a file without a signature."""
    model = unpack(float_file(lambda x: tf.matmul(x, KERNEL), x=(None, 8)))
    name = bytes(model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])].name).decode()
    model.signatureDefs = None
    (tmp_path / "f.tflite").write_bytes(pack(model))
    np.savez(tmp_path / "s.npz", X)
    options = ConverterOptions(optimizations=("DEFAULT",)).to_dict()
    return {
        "path": str(tmp_path / "f.tflite"),
        "out": str(tmp_path / "q.tflite"),
        "options": json.loads(json.dumps(options)),
        "samples": {"path": str(tmp_path / "s.npz"), "names": [name], "batch_size": 1},
        "kernels": None,
    }


def test_a_file_gets_a_signature_with_the_names_of_its_tensors(request_of, tmp_path):
    reply = job(request_of)
    assert (reply["kept_float"], reply["kept_weights"]) == ([], {})
    content = (tmp_path / "q.tflite").read_bytes()
    [signature] = main_graph(content).model.signatureDefs
    [name] = request_of["samples"]["names"]
    assert [bytes(entry.name).decode() for entry in signature.inputs] == [name]
    [found] = run_file(content, Samples({name: X}))
    # Eight bits of input, kernel and output.
    assert np.abs(found - X @ KERNEL).max() < 0.02 * np.abs(X @ KERNEL).max()


def test_without_tensorflow_it_says_what_to_install_and_still_reads(request_of, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'tfcompress[tensorflow]'" in job(request_of)["missing"]
    assert job({**request_of, "samples": None})["file"]["load_error"] is None


def test_a_file_with_an_op_that_nobody_knows_is_refused(request_of, tmp_path):
    model = unpack((tmp_path / "f.tflite").read_bytes())
    for code in model.operatorCodes:
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "MyOwn"
    (tmp_path / "f.tflite").write_bytes(pack(model))
    refused = job(request_of)["refused"]
    assert refused.startswith("the runtime does not load it: ") and "MyOwn" in refused
    assert not (tmp_path / "q.tflite").exists()
