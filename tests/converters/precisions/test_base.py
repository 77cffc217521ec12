"""A precision of the user's own, in one file: as docs/extending.md tells it."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support.examples import example


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((16,), name="x"), dense(32, "relu"), dense(4, name="y")])
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    np.savez(folder / "samples.npz", x=x)
    (folder / "coarse_int8.py").write_text(example("coarse_int8.py"))
    return folder


def tfcompress(folder, *arguments):
    code = "from tfcompress.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow("starts processes that import TensorFlow")
def test_options_of_the_precision_are_checked_on_the_command_line(folder):
    command = [
        "convert",
        "model.keras",
        "never.tflite",
        "--import",
        "coarse_int8",
        "-p",
        "coarse_int8",
    ]
    done = tfcompress(folder, *command, "--io", "int8")
    assert done.returncode == 2
    assert "--io goes with --precision int8 or " in done.stderr
    done = tfcompress(folder, *command)
    assert done.returncode == 1
    assert "CoarseInt8 needs samples" in done.stderr
    done = tfcompress(folder, "convert", "model.keras", "never.tflite", "-p", "coarse_int8")
    assert done.returncode == 2
    assert "'coarse_int8' is none of" in done.stderr
    assert not (folder / "never.tflite").exists()
