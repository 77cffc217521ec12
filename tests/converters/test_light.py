"""What reads, checks and rewrites files works where neither Keras nor TensorFlow is imported."""

import json
import os
import subprocess
import sys

PROGRAM = """
import json
import sys

import numpy as np

from tfcompress import converters
from tfcompress.converters.precisions.registry import registered_precisions

source, wide, target = sys.argv[1:]
found = converters.inspect(source)
check = converters.check_sparse_kernels(found)
small = converters.sparsify(source, target, converters.Sparse(names=False))
images = np.random.default_rng(0).random((4, 12, 12, 3), "float32")
made = converters.quantize(wide, target, converters.Int8(images, max_samples=2))
light = sorted(registered_precisions())
heavy = sorted({"keras", "tensorflow"} & set(sys.modules))
print(json.dumps([found.bytes, check.kind, small.bytes, made.bytes, light, heavy]))
"""


def test_reading_checking_rewriting_and_quantizing_import_no_keras(files, tmp_path):
    target = tmp_path / "small.tflite"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, os.fspath(files["int8"]), os.fspath(files["float32"]),
         str(target)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, kind, after, made, precisions, heavy = json.loads(done.stdout)
    assert (before, kind, made) == (files["int8"].bytes, "safe", target.stat().st_size)
    assert after < before < files["float32"].bytes and made < files["float32"].bytes
    assert precisions == [
        "dynamic_int8", "float16", "float32", "int16x8", "int4_weights", "int8", "weight_only",
    ]  # fmt: skip
    assert heavy == []
