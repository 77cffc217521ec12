import dataclasses
import json

import numpy as np
import pytest

from tfcompress import edge


def test_with_metrics_adds_plain_numbers():
    result = edge.BenchmarkResult("m", "m.tflite", "xnnpack").with_metrics(accuracy=np.float32(0.5))
    assert result.metrics == {"accuracy": 0.5} and type(result.metrics["accuracy"]) is float
    assert result.with_metrics(zeros=0.8).metrics == {"accuracy": 0.5, "zeros": 0.8}
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.name = "other"
    with pytest.raises(ValueError, match=r"unknown \['nme'\], missing \['name'\]"):
        edge.BenchmarkResult.from_dict({"nme": "m", "path": "m", "delegate": "gpu"})


def test_result_of_a_version_without_targets_ran_here():
    now = edge.BenchmarkResult("m", "m.tflite", "xnnpack", median_ms=1.0, runs=3)
    old = json.loads(json.dumps(now.to_dict()))
    del old["target"]
    assert edge.BenchmarkResult.from_dict(old) == now
    assert now.target == "local"
