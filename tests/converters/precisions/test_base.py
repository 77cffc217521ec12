"""A precision of the user's own, in one file: as docs/extending.md tells it."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support.examples import example
from tfcompress import converters


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((16,), name="x"), dense(32, "relu"), dense(4, name="y")])
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    np.savez(folder / "samples.npz", x=x)
    (folder / "int16x8.py").write_text(example("int16x8.py"))
    return folder


def tfcompress(folder, *arguments):
    code = "from tfcompress.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow("starts processes that import TensorFlow")
def test_a_precision_of_one_file_works_on_the_command_line(folder):
    command = ["convert", "model.keras", "own.tflite", "-p", "int16x8"]
    done = tfcompress(
        folder, *command, "--import", "int16x8", "-c", "samples.npz", "--strict", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["float_ops"] == []

    found = converters.inspect(folder / "own.tflite")
    kernels = {tensor.dtype for tensor in found.constants if len(tensor.shape) == 2}
    activations = {found.tensors[n.outputs[0]].dtype for n in found.nodes if n.op != "DEQUANTIZE"}
    assert (kernels, activations) == ({"int8"}, {"int16"})
    # Weights of 8 bits hold 50 dB; rounding activations to 16 bits takes nothing off.
    model = keras.models.load_model(folder / "model.keras")
    verified = converters.verify(model, folder / "own.tflite", folder / "samples.npz")
    verified.raise_if_above(snr_below=40)


@pytest.mark.slow("starts processes that import TensorFlow")
def test_options_of_the_precision_are_checked_on_the_command_line(folder):
    command = ["convert", "model.keras", "never.tflite", "--import", "int16x8", "-p", "int16x8"]
    done = tfcompress(folder, *command, "--io", "int8")
    assert done.returncode == 2
    assert "--io goes with --precision int8." in done.stderr
    done = tfcompress(folder, *command)
    assert done.returncode == 1
    assert "Int16x8 needs samples" in done.stderr
    done = tfcompress(folder, "convert", "model.keras", "never.tflite", "-p", "int16x8")
    assert done.returncode == 2
    assert "'int16x8' is none of" in done.stderr
    assert not (folder / "never.tflite").exists()
