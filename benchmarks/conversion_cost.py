"""What a checked conversion costs: processor time of `convert` against TensorFlow's own converter.

Both make a float32 file of the same model, in turns, after one turn that does not count. Processor
time is that of this process and of the children that `convert` starts, which check the file, too.

    python benchmarks/conversion_cost.py --json conversion_cost.json

The nets have random weights: nothing but time is measured. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfcompress import converters

TARGET = 1.5
"""Most processor time, relative to the plain converter's."""


def mlp() -> keras.Model:
    """Return five dense layers, 14.2 million weights."""
    hidden = [keras.layers.Dense(2048, "relu") for _ in range(4)]
    return keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)], name="mlp")


NETS: dict[str, Callable[[], keras.Model]] = {
    "mlp": mlp,
    "vgg16": lambda: keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(224, 224, 3)
    ),
    "mobilenet_v2": lambda: keras.applications.MobileNetV2(weights=None),
}


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def plain(model: keras.Model, folder: Path) -> None:
    """Convert with TensorFlow alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (folder / "plain.tflite").write_bytes(content)


def checked(model: keras.Model, folder: Path) -> None:
    """Convert with this package."""
    converters.convert(model, folder / "checked.tflite")


def measure(model: keras.Model, rounds: int, folder: Path) -> dict[str, float]:
    """Return the median processor seconds of each way, and their ratio."""
    ways = {"plain": plain, "checked": checked}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = processor_seconds()
            way(model, folder)
            seconds[name].append(processor_seconds() - start)
    medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    return {**medians, "ratio": medians["checked"] / medians["plain"]}


def main() -> int:
    """Measure, print, and compare with the target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=5, help="conversions that count")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    args = parser.parse_args()
    table = Table("net", "weights", "plain, s", "checked, s", "ratio", title="Processor time")
    results = {}
    for name in args.nets:
        model = NETS[name]()
        with tempfile.TemporaryDirectory() as folder:
            found = results[name] = measure(model, args.rounds, Path(folder))
        figures = (f"{found[key]:.2f}" for key in ("plain", "checked", "ratio"))
        table.add_row(name, f"{model.count_params():,}", *figures)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2), "utf-8")
    return int(any(found["ratio"] > TARGET for found in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
