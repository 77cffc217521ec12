import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress.converters.export.saved_model import save_model
from tfcompress.converters.jobs import whole_converter as module
from tfcompress.converters.jobs.converter import SERVING
from tfcompress.converters.jobs.lower import _FLOAT as FLOAT
from tfcompress.model.signature import signature


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,), name="x"), layers.Dense(3, "relu"), layers.Dense(2)]
    )
    folder = tmp_path / "saved_model"
    save_model(model, signature(model, 2), folder)
    return str(folder)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("calibrated", [False, True])
def test_convert_writes_the_file_of_the_converters_own_method(saved, calibrated):
    """Byte for byte, metadata included. A release without the methods that it needs fails here."""
    assert module._QUICK
    files = []
    public = tf.lite.TFLiteConverter.from_saved_model(saved)
    for made, convert in ((public, lambda c: c.convert()),
                          (module._from_saved_model(saved, SERVING), module._run)):  # fmt: skip
        if calibrated:
            x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
            made.optimizations = [tf.lite.Optimize.DEFAULT]
            made.representative_dataset = lambda x=x: iter([{"x": x}])
        files.append(bytes(convert(made)))
    assert files[0] == files[1]
    assert files[0][4:8] == b"TFL3"


def test_convert_of_a_release_that_lacks_a_method(saved, monkeypatch):
    monkeypatch.setattr(module, "_QUICK", False)
    content = module.convert(saved, FLOAT, None)
    assert bytes(content[4:8]) == b"TFL3"
