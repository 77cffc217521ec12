"""Files that users saved with an earlier version still load, and compute the same."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import tfcompress

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.keras"))


def registered() -> set[str]:
    """Classes that tfcompress registers, by the names that saved files hold."""
    found = keras.saving.get_custom_objects()
    return {name for name in found if name.startswith(f"{tfcompress.__name__}>")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_saved_model_computes_the_same(file):
    model = keras.saving.load_model(file)
    with np.load(file.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    expected, inputs = arrays.pop("outputs"), list(arrays.values())
    outputs = np.asarray(model(inputs[0] if len(inputs) == 1 else inputs, training=False))
    # Another processor adds in another order: in float, an error of 1e-5 of the peak; with
    # rounding to 8 bits, one step of an inner tensor, about 1/255 of the range.
    share = 1 / 100 if b"FakeQuant" in zipfile.ZipFile(file).read("config.json") else 1e-5
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=share * np.abs(expected).max())


def test_saved_schedules_give_the_same_sparsities():
    for entry in json.loads((HERE / "schedules.json").read_text("utf-8")):
        schedule = keras.saving.deserialize_keras_object(entry["object"])
        assert [schedule(step) for step in range(16)] == entry["sparsity"]


def test_every_registered_class_has_a_golden_file():
    texts = [zipfile.ZipFile(file).read("config.json").decode() for file in FILES]
    texts.append((HERE / "schedules.json").read_text("utf-8"))
    missing = {name for name in registered() if not any(f'"{name}"' in text for text in texts)}
    assert not missing, f"write a golden file with tests/golden/make.py for {missing}"
