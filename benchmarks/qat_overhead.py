"""What quantization-aware training costs: step time of its `fit` against that of the float model.

The net of six convolutions that pruning_overhead.py trains is trained plainly, quantization-aware
with ranges by moving average, with learned ranges, and with frozen ones. The four fits run at once
and take turns, a few steps each, so that they see the same machine. The first turns, in which Keras
traces and compiles, do not count.

    python benchmarks/qat_overhead.py --json qat_overhead.json

With tensorflow-model-optimization (pip install -e '.[bench]') its quantization-aware training is
measured against plain Keras 2, which it needs, in turns in a process of its own.

The images are random: nothing but time is measured. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import interleaved
from interleaved import PLAIN
from rich.console import Console

import tfcompress as tfc

TARGETS = {"QAT": 1.00}
BASELINE = ("tensorflow-model-optimization", "tf-keras")
KERAS3, KERAS2 = "Keras 3", "Keras 2, tfmot"


def ours(jit: bool, batch: int) -> dict[str, interleaved.Variant]:
    """Plain Keras 3, and quantization-aware in three ways."""
    learned = tfc.QuantizationScheme(ranges="learned")
    samples, _ = interleaved.images(batch)

    def quantized(scheme: tfc.QuantizationScheme = tfc.QuantizationScheme()) -> Any:  # noqa: B008 - frozen
        wrap = lambda model: tfc.calibrate(tfc.quantize_aware(model, scheme=scheme), samples)  # noqa: E731
        return interleaved.build(jit, wrap)

    return {
        PLAIN: (interleaved.build(jit), []),
        "QAT": (quantized(), []),
        "QAT, frozen": (quantized(), [tfc.FreezeRanges(epoch=0)]),
        "QAT, learned": (quantized(learned), []),
    }


def theirs(jit: bool) -> dict[str, interleaved.Variant]:
    """Plain Keras 2, and quantization-aware by tfmot."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    wrap = tfmot.quantization.keras.quantize_model
    return {
        PLAIN: (interleaved.build(jit, keras=tf_keras), []),
        "tfmot QAT": (interleaved.build(jit, wrap, tf_keras), []),
    }


def measure_theirs(args: Any) -> dict[str, Any]:
    """In a child process, where TensorFlow's Keras is Keras 2."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, __file__, "--keras2", "--json", str(file)]
        for name in ("rounds", "steps", "batch"):
            command += [f"--{name}", str(getattr(args, name))]
        command += ["--jit"] if args.jit else []
        subprocess.run(command, check=True, env={**os.environ, "TF_USE_LEGACY_KERAS": "1"})
        results: dict[str, Any] = json.loads(file.read_text())["results"]
        return results


def main() -> int:
    """Measure, print, and compare with the targets."""
    title = "Step time of quantization-aware fit, against plain fit"
    parser = interleaved.parser(title)
    parser.add_argument("--keras2", action="store_true", help="measure Keras 2 and tfmot only")
    args = parser.parse_args()
    if args.keras2:
        import tf_keras

        times = interleaved.measure(theirs(args.jit), args, tf_keras)
        interleaved.save(args, interleaved.ratios(times), BASELINE)
        return 0
    results = {KERAS3: interleaved.ratios(interleaved.measure(ours(args.jit, args.batch), args))}
    Console().print(interleaved.table(title, KERAS3, results[KERAS3], TARGETS))
    installed = all(map(importlib.util.find_spec, ("tensorflow_model_optimization", "tf_keras")))
    if installed:
        results[KERAS2] = measure_theirs(args)
        Console().print(interleaved.table(title, KERAS2, results[KERAS2], {}))
    interleaved.save(args, results, BASELINE if installed else ())
    return int(bool(interleaved.missed(results[KERAS3], TARGETS)))


if __name__ == "__main__":
    raise SystemExit(main())
