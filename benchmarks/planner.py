"""`compress`: is what is asked for met, how small does it get, and how long does it take?

A net for the digits of scikit-learn, for MNIST or for CIFAR-10 is trained, and `compress` is asked
to make it so many times smaller at one point of accuracy at most. Files are chosen by validation
data alone; the accuracy here is that of the .tflite files on test data.

    python benchmarks/planner.py --minutes 10 --json planner.json
    python benchmarks/planner.py --net mnist --data mnist.npz --minutes 10
    python benchmarks/planner.py --net resnet8 --data cifar10.npz --smaller 10 --minutes 45

Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cifar10
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
EPOCHS = {"digits": 12, "mnist": 4, "resnet8": 60}
VALIDATION = 5_000
CIFAR_BATCH = 128

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


def resnet8(path: Path | None, epochs: int) -> tuple[keras.Model, Any, Any, Any]:
    """ResNet-8, trained; the last 5,000 training images judge. Others are shifted and flipped."""
    (x, y), test = cifar10.load(path)
    split = x[:-VALIDATION], y[:-VALIDATION]
    model = cifar10.resnet8(keras)
    cifar10.train(model, keras, split, seed=0, epochs=epochs, batch=CIFAR_BATCH)
    # That training began with a warm-up, and `compress` takes the rate that a training began with.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, jit_compile=False)
    train = cifar10.batches(split, CIFAR_BATCH, 0).take(len(split[1]) // CIFAR_BATCH)
    judged = cifar10.scaled(x[-VALIDATION:]), y[-VALIDATION:]
    return model, train, judged, (cifar10.scaled(test[0]), test[1])


def trained(net: str, path: Path | None, epochs: int) -> tuple[keras.Model, Any, Any, Any]:
    """A trained net, with training, validation and test data."""
    keras.utils.set_random_seed(0)
    if net == "resnet8":
        return resnet8(path, epochs)
    model, train, judged, test, batch = mnist_digits(path) if net == "mnist" else digits()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
    model.fit(*train, batch_size=batch, epochs=epochs, verbose=0)
    data = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[1]), seed=0).batch(batch)
    return model, data, judged, test


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", choices=EPOCHS, default="digits", help="(default: digits)")
    parser.add_argument(
        "--data", type=Path, help="MNIST or CIFAR-10 as .npz, as those scripts read"
    )
    parser.add_argument("--epochs", type=int, help="of the original")
    parser.add_argument("--minutes", type=float, default=10.0, help="for `compress` (default: 10)")
    parser.add_argument("--smaller", type=float, default=SMALLER, help="times (default: 20)")
    parser.add_argument("--minimize", action="store_true", help="go on for all the minutes")
    parser.add_argument("--storage", type=Path, help="keep what is found in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    args = parser.parse_args()

    if args.net == "mnist" and args.data is None:
        parser.error("--net mnist needs --data")
    model, data, judged, test = trained(args.net, args.data, args.epochs or EPOCHS[args.net])

    # The size of the float32 file, as `compress` will measure it.
    start, processor = time.monotonic(), sum(os.times()[:4])
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
    seconds, processor = time.monotonic() - start, sum(os.times()[:4]) - processor
    console.print(result.table)
    trainings = sum(outcome.recipe.epochs > 0 for outcome in result.outcomes)
    console.print(
        f"{len(result.outcomes)} trials, {trainings} trainings, {seconds:.0f} s, "
        f"{processor:.0f} s of processor time: {result.why}"
    )
    lost = 100 * (float(result.original_test or np.nan) - float(result.best.test or np.nan))
    checks = [
        {
            "target": f"{args.smaller:g} times smaller",
            "measured": result.original.bytes / result.best.figures.bytes,
            "passed": result.original.bytes >= args.smaller * result.best.figures.bytes,
        },
        {"target": "at most 1 point lost on test data", "measured": lost, "passed": lost <= 1.0},
        {
            "target": f"at most {args.minutes:g} minutes",
            "measured": seconds / 60,
            "passed": seconds <= 60 * args.minutes,
        },
    ]
    passed = verdicts.show(console, checks)
    if args.json:
        report = {
            "net": args.net,
            "seconds": seconds,
            "processor": processor,
            "targets": checks,
            **result.to_dict(),
        }
        args.json.write_text(json.dumps(report, indent=2))
    return 0 if passed else 1


def original_bytes(model: keras.Model) -> int:
    """Bytes of the float32 file."""
    with tempfile.TemporaryDirectory() as folder:
        return converters.convert(model, f"{folder}/original.tflite", batch_size=1).bytes


if __name__ == "__main__":
    raise SystemExit(main())
