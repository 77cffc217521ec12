"""Two files on the same samples, without Keras; the figures are those of `verify`."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfcompress import converters, edge
from tfcompress.edge.system.tflite import PROBE

X = np.random.default_rng(0).normal(size=(24, 8)).astype("float32")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(4, name="y")]
    model = keras.Sequential([keras.Input((8,), name="x"), *layers])
    folder = tmp_path_factory.mktemp("pair")
    names = {
        folder / "float.tflite": converters.Float32(),
        folder / "int8.tflite": converters.Int8(X, io="int8"),
    }
    return [file.path for file in converters.convert_all(model, names, batch_size=5)]


def test_compare_gives_the_errors_of_the_outputs(files):
    floats, int8 = files
    found = converters.compare(int8, floats, X)
    [error] = found.outputs
    with edge.Runner(int8, isolated=True) as a, edge.Runner(floats, isolated=True) as b:
        filled = np.concatenate([X, X[:1]])
        off = np.abs(a(filled) - b(filled))[:24]
        step = a.outputs[0].scale
    assert error.max_error == pytest.approx(off.max(), rel=1e-6)
    assert error.max_lsb == pytest.approx(off.max() / step, rel=1e-5)
    assert (found.samples, found.against) == (24, "float.tflite")
    assert "int8.tflite on xnnpack against float.tflite" in str(found)
    with pytest.raises(converters.VerificationError, match=r"differs from float\.tflite"):
        found.raise_if_above(max_error=0.0)
    assert converters.compare(floats, floats, X).outputs[0].max_error == 0.0


def test_compare_refuses_files_of_other_shapes(files):
    with pytest.raises(ValueError, match="Samples for input 'x' must have shape"):
        converters.compare(files[0], PROBE, X)


def test_compare_and_evaluate_import_no_keras(files, tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    right = edge.Runner(files[0])(np.concatenate([X, X[:1]])).argmax(axis=1)[:20]
    np.save(tmp_path / "y.npy", right)
    np.save(tmp_path / "x.npy", X[:20])
    (tmp_path / "mine.py").write_text("def half(found, y): return 0.5")
    program = (
        "import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "from tfcompress.cli import main\nmain(sys.argv[1:])"
    )

    def run(*arguments):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Max LSB" in run("compare", files[1], files[0], "--samples", "x.npz")
    assert run("evaluate", files[0], "x.npy", "y.npy") == "accuracy: 100.00%\n"
    said = run("evaluate", files[0], "x.npy", "y.npy", "--metric", "mine:half", "--json")
    assert '"value": 0.5' in said
