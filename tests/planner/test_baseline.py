import keras
import numpy as np
import pytest

from tfcompress import edge
from tfcompress.model.signature import signature
from tfcompress.planner import baseline
from tfcompress.planner.baseline import measure_baseline
from tfcompress.planner.data import examples
from tfcompress.planner.measure import Device
from tfcompress.planner.metrics import METRICS

ACCURACY, DEVICE = METRICS["accuracy"], Device(edge.Local())


def measure(model, data, path, metric=ACCURACY):
    read = examples("validation", data, signature(model).inputs)
    return measure_baseline(model, read, metric, DEVICE, path)


def test_baseline_is_measured_on_the_file(net, digits, tmp_path):
    found = measure(net, digits[1], tmp_path / "o.tflite")
    expected = np.mean(net.predict(digits[1][0], verbose=0).argmax(-1) == digits[1][1])
    assert found.figures.metric == pytest.approx(expected)
    assert found.figures.bytes == (tmp_path / "o.tflite").stat().st_size
    assert found.figures.milliseconds > 0
    assert 0.09 < found.chance < 0.15


def test_baseline_refuses_a_model_at_chance_with_both_figures(digits, tmp_path):
    fresh = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    fresh.add(keras.layers.Dense(10, kernel_initializer="zeros"))
    with pytest.raises(ValueError, match=r"chance: its accuracy .* is [\d.]+%.*[\d.]+%"):
        measure(fresh, digits[1], tmp_path / "o.tflite")


def test_baseline_refuses_a_file_that_differs_from_keras(net, digits, tmp_path, monkeypatch):
    def outputs(*arguments):
        return {name: 2 * array for name, array in real(*arguments).items()}

    real = baseline.outputs_of
    monkeypatch.setattr(baseline, "outputs_of", outputs)
    with pytest.raises(ValueError, match="does not compute what Keras does: output 'digit'"):
        measure(net, digits[1], tmp_path / "o.tflite")
