"""`compress`: is what is asked for met, how small does it get, and how long does it take?

A net for the digits of scikit-learn, or for MNIST, is trained, and `compress` is asked to make it
twenty times smaller at one point of accuracy at most. Files are chosen by validation data alone;
the accuracy here is that of the .tflite files on test data.

    python benchmarks/planner.py --minutes 10 --json planner.json
    python benchmarks/planner.py --data mnist.npz --minutes 10

Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import mnist
import numpy as np
import tensorflow as tf
import verdicts
from rich.console import Console

import tfcompress as tfc
from tfcompress import converters
from tfcompress.demo import load_digits, small_cnn

SMALLER = 20
DROP = 0.01
EPOCHS = {"digits": 12, "mnist": 4}
VALIDATION = 5_000

console = Console()


def digits() -> tuple[keras.Model, Any, Any, Any, int]:
    """The net of the demo, with training, validation and test data, and its batch size."""
    data = load_digits()
    half = len(data.x_test) // 2
    x, y = data.x_test, data.y_test
    train = (data.x_train, data.y_train)
    return small_cnn(), train, (x[:half], y[:half]), (x[half:], y[half:]), 32


def mnist_digits(path: Path) -> tuple[keras.Model, Any, Any, Any, int]:
    """The net of mnist.py; the last 5,000 training images judge."""
    data = mnist.load(path)
    x, y = data.x_train, data.y_train
    train = (x[:-VALIDATION], y[:-VALIDATION])
    judged = (x[-VALIDATION:], y[-VALIDATION:])
    return mnist.cnn(), train, judged, (data.x_test, data.y_test), mnist.BATCH


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="MNIST as .npz; default: scikit-learn's digits")
    parser.add_argument("--minutes", type=float, default=10.0, help="for `compress` (default: 10)")
    parser.add_argument("--smaller", type=float, default=SMALLER, help="times (default: 20)")
    parser.add_argument("--minimize", action="store_true", help="go on for all the minutes")
    parser.add_argument("--storage", type=Path, help="keep what is found in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    name = "digits" if args.data is None else "mnist"
    model, train, judged, test, batch = digits() if args.data is None else mnist_digits(args.data)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
    model.fit(*train, batch_size=batch, epochs=EPOCHS[name], verbose=0)
    data = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[1]), seed=0).batch(batch)

    # The size of the float32 file, as `compress` will measure it.
    start = time.monotonic()
    size = original_bytes(model)
    target = tfc.Target(
        bytes=int(size / args.smaller),
        accuracy_drop=DROP,
        minimize="bytes" if args.minimize else None,
    )
    result = tfc.compress(
        model, data, judged, target, test=test, minutes=args.minutes, storage=args.storage,
        progress=lambda r: console.print(f"{r.seconds:4.0f} s  {r.outcomes[-1].recipe.label()}"),
    )  # fmt: skip
    seconds = time.monotonic() - start
    console.print(result.table)
    trainings = sum(outcome.recipe.epochs > 0 for outcome in result.outcomes)
    console.print(
        f"{len(result.outcomes)} trials, {trainings} trainings, {seconds:.0f} s: {result.why}"
    )
    lost = 100 * (float(result.original_test or np.nan) - float(result.best.test or np.nan))
    checks = [
        {
            "target": f"{args.smaller:g} times smaller",
            "measured": result.original.bytes / result.best.figures.bytes,
            "passed": result.original.bytes >= args.smaller * result.best.figures.bytes,
        },
        {"target": "at most 1 point lost on test data", "measured": lost, "passed": lost <= 1.0},
        {"target": "at most 10 minutes", "measured": seconds / 60, "passed": seconds <= 600},
    ]
    passed = verdicts.show(console, checks)
    if args.json:
        report = {"net": name, "seconds": seconds, "targets": checks, **result.to_dict()}
        args.json.write_text(json.dumps(report, indent=2))
    return 0 if passed else 1


def original_bytes(model: keras.Model) -> int:
    """Bytes of the float32 file."""
    with tempfile.TemporaryDirectory() as folder:
        return converters.convert(model, f"{folder}/original.tflite", batch_size=1).bytes


if __name__ == "__main__":
    raise SystemExit(main())
