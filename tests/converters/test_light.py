"""What reads, checks and rewrites files works where neither Keras nor TensorFlow is imported."""

import json
import os
import subprocess
import sys

PROGRAM = """
import json
import sys

from tfcompress import converters
from tfcompress.converters.precisions.registry import registered_precisions

source, target = sys.argv[1:]
found = converters.inspect(source)
check = converters.check_sparse_kernels(found)
small = converters.sparsify(source, target, converters.Sparse(names=False))
light = sorted(registered_precisions())
heavy = sorted({"keras", "tensorflow"} & set(sys.modules))
print(json.dumps([found.bytes, check.kind, small.bytes, light, heavy]))
"""


def test_reading_checking_and_rewriting_import_no_keras(files, tmp_path):
    target = tmp_path / "small.tflite"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, os.fspath(files["int8"]), str(target)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, kind, after, precisions, heavy = json.loads(done.stdout)
    assert (before, kind, after) == (files["int8"].bytes, "safe", target.stat().st_size)
    assert after < before
    assert precisions == [
        "dynamic_int8", "float16", "float32", "int16x8", "int4_weights", "int8", "weight_only",
    ]  # fmt: skip
    assert heavy == []
