"""MNIST: what 80% and 90% zeros and each precision cost in accuracy, bytes and milliseconds.

For each seed a CNN is trained dense, and then goes on in three ways, for the same epochs at the
same learning rates: dense, and pruned to 80% and 90% on a schedule and fine-tuned with its zeros
kept. The zeros are shares of all kernels together. Each model is converted to float32, float16,
dynamic-range and int8. Accuracy is that of the .tflite file on all 10,000 test images; bytes are
those of the file; speed-ups are medians of interleaved rounds, one image at a time on one thread.

    python benchmarks/mnist.py --data mnist.npz --seeds 3 --json mnist.json

Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import verdicts
from keras import layers
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tfcompress import converters, edge
from tfcompress.cost.summary import summary
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune import Prune
from tfcompress.pruning.schedules import Polynomial
from tfcompress.regularizers.regularize import regularize

SPARSITIES = {"dense": 0.0, "80%": 0.8, "90%": 0.9}
EPOCHS = {"dense": 4, "prune": 3, "fine-tune": 1}
BATCH = 128
TOLERANCE = 0.3  # points of accuracy

console = Console()


class Data(NamedTuple):
    """Images `(n, 28, 28, 1)` float32 in [0, 1] and labels `(n,)`."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def load(path: Path | None) -> Data:
    """Keras' MNIST, or an .npz file with the same four arrays."""
    if path is None:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as file:
            x_train, y_train, x_test, y_test = (file[name] for name in Data._fields)
    images = (np.asarray(x[..., None] / 255.0, "float32") for x in (x_train, x_test))
    labels = (np.asarray(y, "int64") for y in (y_train, y_test))
    return Data(*(array for pair in zip(images, labels, strict=True) for array in pair))


def cnn() -> keras.Model:
    """Two convolutions, two dense layers: 166,000 parameters."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(24, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(48, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, name="digit"),
        ],
        name="mnist",
    )


def train(
    model: keras.Model,
    data: Data,
    epochs: int,
    rates: tuple[float, float],
    callback: keras.callbacks.Callback | None = None,
) -> None:
    """Fit with Adam, the learning rate going from the first to the last of `rates`."""
    first, last = rates
    steps = math.ceil(len(data.x_train) / BATCH) * epochs
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(first, steps, last / first)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # on a CPU, XLA makes these steps several times slower
    )
    callbacks = [] if callback is None else [callback]
    model.fit(data.x_train, data.y_train, BATCH, epochs, verbose=0, callbacks=callbacks)


def variants(data: Data, l1: float) -> dict[str, keras.Model]:
    """The dense model and the pruned ones, all trained for the same number of epochs."""
    base = cnn()
    train(base, data, EPOCHS["dense"], (2e-3, 1e-4))
    models = {}
    for name, sparsity in SPARSITIES.items():
        model = models[name] = cnn()
        model.set_weights(base.get_weights())
        end = math.ceil(len(data.x_train) / BATCH) * (EPOCHS["prune"] - 1)
        # One budget for all kernels: the first and the last layer, which are tiny, stay denser.
        prune = Prune(Polynomial(0.0, sparsity, begin=0, end=end, frequency=50), scope="global")
        if l1 and sparsity:
            regularize(model, keras.regularizers.L1(l1))
        train(model, data, EPOCHS["prune"], (1e-3, 3e-4), prune if sparsity else None)
        train(model, data, EPOCHS["fine-tune"], (3e-4, 1e-5), KeepZeros() if sparsity else None)
    return models


def accuracy(path: converters.Converted, data: Data, chunk: int = 500) -> float:
    """Percent of all test images that a file gets right."""
    runner = edge.Runner(path)
    parts = np.array_split(data.x_test, math.ceil(len(data.x_test) / chunk))
    classes = np.concatenate([np.argmax(runner(part), axis=-1) for part in parts])
    return 100 * float(np.mean(classes == data.y_test))


def run(seed: int, data: Data, l1: float, folder: Path) -> list[edge.BenchmarkResult]:
    """One seed: a result for each of the files."""
    keras.utils.set_random_seed(seed)
    started = time.perf_counter()
    models = variants(data, l1)
    console.print(f"seed {seed}: trained in {time.perf_counter() - started:.0f} s")
    calibration = data.x_train[:500]
    files: list[converters.Converted] = []
    metrics: list[dict[str, float | int | str]] = []
    for name, model in models.items():
        precisions = (
            converters.Float32(),
            converters.Float16(),
            converters.DynamicInt8(),
            converters.Int8(calibration=calibration),
        )
        paths: dict[str | os.PathLike[str], converters.Precision] = {
            f"{folder}/{seed}-{name.strip('%')}-{p.name}.tflite": p for p in precisions
        }
        kernels = [v.numpy() for v in model.trainable_variables if v.name == "kernel"]
        zeros = 1 - sum(map(np.count_nonzero, kernels)) / sum(k.size for k in kernels)
        for file in converters.convert_all(model, paths, batch_size=1, runtime="2.17", strict=True):
            files.append(file)
            metrics.append(
                {
                    "model": name,
                    "precision": file.precision.name,
                    "seed": seed,
                    "zeros": float(zeros),
                    "accuracy": accuracy(file, data),
                }
            )
    console.print(f"seed {seed}: converted and tested, {time.perf_counter() - started:.0f} s")
    results = edge.benchmark(files, names=[f"{m['model']} {m['precision']}" for m in metrics])
    console.print(f"seed {seed}: measured, {time.perf_counter() - started:.0f} s")
    return [result.with_metrics(**m) for result, m in zip(results, metrics, strict=True)]


def targets(results: list[edge.BenchmarkResult]) -> list[dict[str, Any]]:
    """The two promises, each with the worst that was seen over seeds and files."""
    found = {(r.metrics["seed"], r.metrics["model"], r.metrics["precision"]): r for r in results}

    def worst(name: str, reference: Any) -> dict[str, Any]:
        losses = {
            key: float(found[other].metrics["accuracy"]) - float(result.metrics["accuracy"])
            for key, result in found.items()
            if (other := reference(*key)) is not None
        }
        key = max(losses, key=lambda key: losses[key])
        return {
            "target": f"{name} within {TOLERANCE} points",
            "worst_loss": losses[key],
            "mean_loss": statistics.mean(losses.values()),
            "worst_at": "seed {}, {} {}".format(*key),
            "passed": losses[key] <= TOLERANCE + 1e-9,
        }

    return [
        worst(
            "90% zeros against dense, same precision,",
            lambda seed, model, precision: (seed, "dense", precision) if model == "90%" else None,
        ),
        worst(
            "int8 against float32, same model,",
            lambda seed, model, precision: (
                (seed, model, "float32") if precision == "int8" else None
            ),
        ),
    ]


def table(results: list[edge.BenchmarkResult]) -> Table:
    """One row for each file, means over seeds; accuracy also at the worst."""
    groups: dict[str, list[edge.BenchmarkResult]] = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)
    columns = ("Zeros", "Acc. %", "Worst", "Bytes", "gzip", "ms", "Speed-up")
    out = verdicts.new_table("MNIST, 10,000 test images", "File", *columns)
    for name, group in groups.items():
        accuracies = [float(r.metrics["accuracy"]) for r in group]

        def mean(field: str, group: list[edge.BenchmarkResult] = group) -> float:
            values = [getattr(r, field) for r in group]
            return math.nan if None in values else statistics.mean(values)

        out.add_row(
            name,
            f"{statistics.mean(float(r.metrics['zeros']) for r in group):.1%}",
            f"{statistics.mean(accuracies):.2f}",
            f"{min(accuracies):.2f}",
            f"{mean('bytes'):,.0f}",
            f"{mean('gzip_bytes'):,.0f}",
            f"{mean('median_ms'):.3f}",
            f"{mean('speedup'):.2f}",
            end_section=name.endswith(" int8"),
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--l1", type=float, default=0.0, help="L1 while pruning (default: 0)")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--keep", type=Path, help="keep the .tflite files in this folder")
    args = parser.parse_args()

    data = load(args.data)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(args.seeds):
            results += run(seed, data, args.l1, folder)
    console.print(table(results))
    checked = targets(results)
    for check in checked:
        verdict = "[green]pass[/]" if check["passed"] else "[red]FAIL[/]"
        console.print(
            f"{verdict} {check['target']}: lost {check['mean_loss']:+.2f} on average, "
            f"{check['worst_loss']:+.2f} at worst ({check['worst_at']})"
        )
    if args.json:
        report = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seeds": args.seeds,
            "l1": args.l1,
            "epochs": EPOCHS,
            "model": summary(cnn()).total.to_dict(),
            "targets": checked,
            "results": [result.to_dict() for result in results],
        }
        args.json.write_text(json.dumps(report, indent=2))
    return 0 if all(check["passed"] for check in checked) else 1


if __name__ == "__main__":
    raise SystemExit(main())
