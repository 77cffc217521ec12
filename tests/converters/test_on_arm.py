"""Sparse files on the aarch64 runtime, which takes kernels that x86 never takes.

It is emulated, by what tests/emulated_pi.sh makes, and slow to start: one process runs all files.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.helpers import need
from tests.zoo.sparse_nets import (
    ENGAGING,
    KINDS,
    NETS,
    SAFE,
    UNSAFE,
    check,
    convert_here,
    converted,
    net,
    read,
)
from tfcompress import converters, prune_weights, separable_net
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.converters.passes.sparse_encoding import rewriting

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("TFCOMPRESS_PI", ROOT / ".pi/python"))
# float32 sums in another order, over at most 100 products each.
ROUNDING = 1e-5
PROGRAM = """
import sys
import numpy as np
from edge import Runner  # the folder alone, as on a device

results = {}
for path in sys.argv[2:]:
    for delegate in ("xnnpack", "reference"):
        rng = np.random.default_rng(0)
        try:
            run = Runner(path, delegate)
            outputs = run([rng.normal(size=(3, *i.shape[1:])).astype("f4") for i in run.inputs])
            outputs = outputs if isinstance(outputs, list) else [outputs]
            result = np.concatenate([output.reshape(3, -1) for output in outputs], axis=1)
        except Exception as error:
            result = np.array(str(error))
        results[f"{path[:-7]} {delegate}"] = result
np.savez(sys.argv[1], **results)
"""

pytestmark = pytest.mark.slow("runs under emulation")


def stored_sparse(content):
    """All weights sparse, also of graphs that `sparsify` leaves dense."""
    model = unpack(content)
    rewriting.rewrite_weights(model, {}, unsafe="")
    return pack(model)


def overflowing():
    """Infinite in a channel that only zeros multiply: only kernels that skip them give a number."""
    model = net("plain")
    kernel, bias = model.get_layer("stem").get_weights()
    kernel[..., 0] = 0
    kernel[1, 1, 0, 0], bias[0] = 3e38, 0
    model.get_layer("stem").set_weights([kernel, bias])
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, :, 0] = 0
    model.get_layer("first").set_weights([kernel, bias])
    return convert_here(model)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(file, delegate) -> outputs `(3, n)` there, or what the runtime says."""
    need(PYTHON.exists(), "no aarch64 runtime; make one with: tests/emulated_pi.sh .pi (Debian)")
    folder = tmp_path_factory.mktemp("arm")

    def file(name):
        return folder / f"{name}.tflite"

    for name, dense in {**{name: converted(name) for name in NETS}, "inf": overflowing()}.items():
        file(f"{name} dense").write_bytes(dense)
        file(f"{name} sparse").write_bytes(stored_sparse(dense))
    model = separable_net((16, 16, 3), 10, stem=16, blocks=((32, 1), (48, 2)))
    prune_weights(model, 0.75)
    calibration = np.random.default_rng(1).normal(size=(20, 16, 16, 3)).astype("f4")
    precisions = {
        "float32": converters.Float32(),
        "float16": converters.Float16(),
        "int8": converters.Int8(calibration=calibration),
    }
    converters.convert_all(model, {file(f"{k} dense"): v for k, v in precisions.items()})
    for name in precisions:
        converters.sparsify(file(f"{name} dense"), file(f"{name} sparse"))
    smallest = converters.Sparse(int8_weights=True)
    converters.sparsify(file("float32 dense"), file("int8 weights sparse"), smallest)
    converters.sparsify(file("max pooling dense"), file("kept sparse"))
    files = sorted(path.name for path in folder.iterdir())
    subprocess.run(
        [PYTHON.resolve(), "-c", PROGRAM, "results.npz", *files],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600, check=True,
    )  # fmt: skip
    with np.load(folder / "results.npz") as found:
        return {tuple(key.rsplit(" ", 1)): found[key] for key in found.files}


def error(found, wanted):
    """The largest error, as a share of the largest output."""
    if found.dtype.kind == "U":
        return np.inf
    return np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))


@pytest.mark.parametrize("name", NETS)
def test_check_sparse_kernels_agrees_on_the_dense_and_the_sparse_file(name):
    dense = converted(name)
    sparse = stored_sparse(dense)
    assert check(dense).kind == KINDS[name]
    assert check(sparse) == check(dense)
    assert "DENSIFY" in read(sparse)["ops"]


@pytest.mark.parametrize("name", SAFE)
def test_safe_is_equal_bit_for_bit(results, name):
    dense, sparse = (results[f"{name} {kind}", "xnnpack"] for kind in ("dense", "sparse"))
    assert dense.dtype == sparse.dtype == "float32"
    np.testing.assert_array_equal(sparse, dense)


@pytest.mark.parametrize("name", [*ENGAGING, "float32", "float16"])
def test_sparse_kernels_are_right(results, name):
    dense, sparse = (results[f"{name} {kind}", "xnnpack"] for kind in ("dense", "sparse"))
    assert error(sparse, dense) < ROUNDING, sparse


def test_sparse_kernels_engage_on_arm(results):
    assert np.isnan(results["inf dense", "xnnpack"]).all()
    assert np.isfinite(results["inf sparse", "xnnpack"]).all()


def test_int8_is_equal_bit_for_bit(results):
    np.testing.assert_array_equal(
        results["int8 sparse", "xnnpack"], results["int8 dense", "xnnpack"]
    )


def test_int8_weights_with_float_compute_are_right(results):
    found, wanted = (results["int8 weights sparse", kind] for kind in ("xnnpack", "reference"))
    assert error(found, wanted) < ROUNDING


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_is_wrong_or_fails(results, name):
    """Else the check would forbid what works."""
    dense, sparse = (results[f"{name} {kind}", "xnnpack"] for kind in ("dense", "sparse"))
    assert error(sparse, dense) > 0.01
    if sparse.dtype.kind == "f":
        reference = results[f"{name} sparse", "reference"]
        assert error(reference, dense) < ROUNDING  # the file is right: XNNPACK is not


def test_sparsify_keeps_an_unsafe_graph_dense(results):
    np.testing.assert_array_equal(
        results["kept sparse", "xnnpack"], results["max pooling dense", "xnnpack"]
    )
