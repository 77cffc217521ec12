"""What zeros, their pattern and shared values are worth in a .tflite file, on trained models.

Each net is trained dense, and then trained on with pruning: to 80% zeros, from there to 90%; to 80%
in blocks of 4 weights; and with 16 values for each kernel of the 80%. The shares are of all kernels
together but depthwise ones; in blocks, of those that divide into such. Each model is converted to
float32, float16 and int8, and these files to sparse ones without the names of tensors; "int8
weights" is the float32 file with its weights in int8.

Accuracy is that of the sparse file on all 10,000 test images. Smaller means: than the dense model's
file of the same precision, as `convert` writes it; for int8 weights, than its float32 file.
Clustering has no sparse form: what it saves shows in the column of gzip bytes alone.

At last, the speed of Dense layers that skip blocks of 1 x 4 zeros, one image a run, on one thread.

    python benchmarks/sparse_files.py --mnist mnist.npz --cache sparse --json sparse.json

With --cache, an interrupted run goes on where it stopped. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cifar10
import keras
import mnist
import numpy as np
import verdicts
from keras import layers
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
from tfcompress import converters, edge, masks
from tfcompress.edge.system.machine import machine

DENSE, SOME, MOST = "dense", "80% zeros", "90% zeros"
BLOCKS, MORE_BLOCKS, SHARED = "80% in blocks", "90% in blocks", "80%, 16 values"
AFTER = {SOME: DENSE, MOST: SOME, BLOCKS: DENSE, MORE_BLOCKS: BLOCKS, SHARED: SOME}
SPARSITY = {SOME: 0.8, MOST: 0.9, BLOCKS: 0.8, MORE_BLOCKS: 0.9}
SKIPPED = "90% skipped"
FLOAT32, FLOAT16, INT8, INT8_WEIGHTS = "float32", "float16", "int8", "int8 weights"

console = Console()


@dataclass(frozen=True)
class Recipe:
    """How a net is trained and pruned.

    Attributes:
        blocks: The pattern of the zeros that come in blocks.
        in_blocks: The layers that get those.
        epochs: Of training, by stage.
        rate: Learning rate that training after the first begins with.
        train_images: Number of training images to use; None for all.
        test_images: Number of test images to use; None for all.
    """

    blocks: masks.Block
    in_blocks: str
    epochs: dict[str, int]
    rate: float
    train_images: int | None = None
    test_images: int | None = None


RECIPES = {
    "mlp": Recipe(
        masks.FAST_DENSE,
        "",
        {DENSE: 2, SOME: 1, MOST: 1, BLOCKS: 1, MORE_BLOCKS: 1, SHARED: 1},
        rate=1e-3,
    ),
    "cnn": Recipe(
        masks.SMALL_FILE,
        "conv|dense",
        {DENSE: 2, SOME: 1, MOST: 1, BLOCKS: 1, SHARED: 1},
        rate=1e-3,
    ),
    "mobilenet_large": Recipe(
        masks.SMALL_FILE,
        "stem|pointwise",
        {DENSE: 12, SOME: 6, MOST: 3, BLOCKS: 6, SHARED: 1},
        rate=2e-3,
    ),
}


def mlp() -> keras.Model:
    """Four dense layers: 2.9 million parameters, more than a cache holds."""
    hidden = [layers.Dense(1024, activation="relu", name=f"hidden{n}") for n in range(3)]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Flatten(),
            *hidden,
            layers.Dense(10, name="digit"),
        ],
        name="mlp",
    )


class Digits:
    """MNIST, for `mlp` and `cnn`."""

    def __init__(self, net: str, recipe: Recipe, path: Path | None) -> None:
        data = mnist.load(path)
        train, test = recipe.train_images, recipe.test_images
        self.data = mnist.Data(
            *(a[:n] for a, n in zip(data, (train, train, test, test), strict=True))
        )
        self.build: Callable[[], keras.Model] = mlp if net == "mlp" else mnist.cnn
        self.recipe = recipe
        self.steps = -(-len(self.data.y_train) // mnist.BATCH)
        self.calibration = self.data.x_train[:500]
        self.test = self.data.x_test, self.data.y_test

    def train(self, seed: int) -> keras.Model:
        """The dense net, from nothing."""
        model = self.build()
        mnist.train(model, self.data, self.recipe.epochs[DENSE], (2e-3, 1e-4))
        return model

    def train_on(
        self, model: keras.Model, dense: keras.Model, stage: str, seed: int, callback: Any
    ) -> None:
        """A trained net, with a callback."""
        rates = (self.recipe.rate, self.recipe.rate / 100)
        mnist.train(model, self.data, self.recipe.epochs[stage], rates, callback)


class Pictures:
    """CIFAR-10, for `mobilenet_large`; what is trained on learns from the dense net, too."""

    def __init__(self, recipe: Recipe, path: Path | None) -> None:
        train, (images, labels) = cifar10.load(path)
        self.split = tuple(part[: recipe.train_images] for part in train)
        self.recipe = recipe
        self.steps = len(self.split[1]) // 128
        self.calibration = cifar10.scaled(self.split[0][:500])
        few = recipe.test_images
        self.test = cifar10.scaled(images[:few]), labels[:few]

    def train(self, seed: int) -> keras.Model:
        """The dense net, from nothing."""
        model = cifar10.mobilenet_large(keras)
        epochs = self.recipe.epochs[DENSE]
        cifar10.train(model, keras, self.split, seed=seed, epochs=epochs, batch=128)
        return model

    def train_on(
        self, model: keras.Model, dense: keras.Model, stage: str, seed: int, callback: Any
    ) -> None:
        """A trained net, with a callback."""
        cifar10.fine_tune(
            tfc.Distiller(dense, model, tfc.distill.SoftTargets(3.0)),
            keras,
            self.split,
            seed=seed,
            epochs=self.recipe.epochs[stage],
            rate=self.recipe.rate,
            batch=128,
            callbacks=[callback],
        )


@dataclass(frozen=True)
class Result:
    """A sparse file, tested.

    Attributes:
        net: Which net.
        stage: How its model came to be.
        form: Its precision, or int8 weights.
        zeros: Share of zeros in all kernels of the model.
        accuracy: Percent of the test images that the file gets right.
        dense_bytes: Of the file that it was made of.
        dense_gzip: The same after gzip.
        bytes: Of the sparse file.
        gzip_bytes: The same after gzip.
        smaller: How many times it is smaller than the dense model's file.
    """

    net: str
    stage: str
    form: str
    zeros: float
    accuracy: float
    dense_bytes: int
    dense_gzip: int
    bytes: int
    gzip_bytes: int
    smaller: float


@dataclass(frozen=True)
class Case:
    """One net and seed. A stage that left its model is not run again."""

    net: str
    seed: int
    task: Digits | Pictures
    folder: Path

    def file(self, stage: str, suffix: str) -> Path:
        """Where something of a stage is."""
        return self.folder / f"{stage.replace('%', '').replace(',', '').replace(' ', '_')}{suffix}"

    def model(self, stage: str) -> keras.Model:
        """What the stage made, now or before."""
        file = self.file(stage, ".keras")
        if not file.exists():
            started = time.perf_counter()
            keras.utils.set_random_seed(self.seed)
            model = self.task.train(self.seed) if stage == DENSE else self.made(stage)
            part = file.with_suffix(".part.keras")
            model.save(part)
            part.replace(file)
            seconds = time.perf_counter() - started
            console.print(f"{self.net}, seed {self.seed}: {stage}, trained in {seconds:.0f} s")
        return keras.models.load_model(file, compile=False)

    def made(self, stage: str) -> keras.Model:
        """Prune or cluster, and train on."""
        model, recipe = self.model(AFTER[stage]), self.task.recipe
        steps = self.task.steps * recipe.epochs[stage]
        if stage == SHARED:
            console.print(tfc.cluster_weights(model, 16))
            callback = tfc.KeepClusters()
        else:
            first = SPARSITY.get(AFTER[stage], 0.0)
            schedule = tfc.schedules.Polynomial(
                first, SPARSITY[stage], begin=0, end=steps * 2 // 3, frequency=max(steps // 50, 1)
            )
            if stage in (BLOCKS, MORE_BLOCKS):
                callback = tfc.Prune(
                    schedule, recipe.in_blocks, structure=recipe.blocks, scope="global"
                )
            else:
                callback = tfc.Prune(schedule, scope="global")
        self.task.train_on(model, self.model(DENSE), stage, self.seed, callback)
        return model

    def run(self) -> list[Result]:
        """All files of all stages."""
        results: list[Result] = []
        for stage in self.task.recipe.epochs:
            results += self.files(stage)
            console.print(f"{self.net}, seed {self.seed}: {stage}, converted and tested")
        return results

    def files(self, stage: str) -> list[Result]:
        """The files of one stage."""
        model = self.model(stage)
        precisions = (
            converters.Float32(),
            converters.Float16(),
            converters.Int8(calibration=self.task.calibration),
        )
        made = converters.convert_all(
            model, {self.file(stage, f"_{p.name}.tflite"): p for p in precisions}, strict=True
        )
        dense = {file.precision.name: file for file in made}
        forms = {form: (dense[form], False) for form in dense} | {
            INT8_WEIGHTS: (dense[FLOAT32], True)
        }
        weights = [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]
        zeros = 1 - sum(map(np.count_nonzero, weights)) / sum(w.size for w in weights)
        results = []
        for form, (file, int8_weights) in forms.items():
            out = self.file(stage, f"_{form.replace(' ', '_')}_sparse.tflite")
            small = converters.sparsify(
                file, out, converters.Sparse(int8_weights=int8_weights, names=False)
            )
            largest = self.file(DENSE, f"_{FLOAT32 if int8_weights else form}.tflite")
            results.append(
                Result(
                    net=self.net,
                    stage=stage,
                    form=form,
                    zeros=float(zeros),
                    accuracy=accuracy(small, *self.task.test),
                    dense_bytes=small.bytes_before,
                    dense_gzip=small.gzip_bytes_before,
                    bytes=small.bytes,
                    gzip_bytes=small.gzip_bytes,
                    smaller=largest.stat().st_size / small.bytes,
                )
            )
        return results


def accuracy(path: converters.Sparsified, images: np.ndarray[Any, Any], labels: Any) -> float:
    """Percent of the images that a file gets right."""
    runner = edge.Runner(path)
    chunks = np.array_split(images, -(-len(images) // 500))
    classes = np.concatenate([np.argmax(runner(chunk), axis=-1) for chunk in chunks])
    return 100 * float(np.mean(classes == labels))


def speeds(case: Case) -> list[edge.BenchmarkResult]:
    """The MLP: dense, in float32 and int8, and with Dense layers that skip blocks of zeros."""
    dense, blocks = case.model(DENSE), case.model(MORE_BLOCKS)
    int8 = converters.Int8(calibration=case.task.calibration)
    skip = converters.Sparse(skip_zeros=True)
    paths = {
        "dense float32": case.file(DENSE, "_1_float32.tflite"),
        SKIPPED: case.file(MORE_BLOCKS, "_1_float32.tflite"),
        "dense int8": case.file(DENSE, "_1_int8.tflite"),
    }
    converters.convert(dense, paths["dense float32"], batch_size=1)
    converters.convert(blocks, paths[SKIPPED], batch_size=1, sparse=skip)
    converters.convert(dense, paths["dense int8"], int8, batch_size=1)
    return edge.benchmark(list(paths.values()), names=list(paths), threads=1)


def targets(results: list[Result], fast: list[edge.BenchmarkResult]) -> list[dict[str, Any]]:
    """The promises, each with what was measured."""
    checks: list[dict[str, Any]] = []

    def check(target: str, measured: float, passed: bool) -> None:
        checks.append({"target": target, "measured": measured, "passed": passed})

    found = {(r.net, r.stage, r.form): r for r in results}
    for net in dict.fromkeys(r.net for r in results):
        for form, least in ((FLOAT32, 6.0), (INT8, 2.5)):
            times = found[net, MOST, form].smaller
            check(f"{net}, {MOST}, {form}: at least {least:g} times smaller", times, times >= least)
        smallest = found[net, BLOCKS, INT8_WEIGHTS]
        times = smallest.smaller
        check(f"{net}, {BLOCKS}, {INT8_WEIGHTS}: at least 8 times smaller", times, times >= 8.0)
        lost = found[net, DENSE, FLOAT32].accuracy - smallest.accuracy
        check(f"{net}, {BLOCKS}, {INT8_WEIGHTS}: at most 1 point lost", lost, lost <= 1.0 + 1e-9)
    for result in fast:
        if result.name == SKIPPED:
            times = float(result.speedup or 0.0)
            check(f"mlp, {result.name}: at least 2 times faster", times, times >= 2.0)
    return checks


def table(results: list[Result]) -> Table:
    """One row for each sparse file."""
    columns = ("Zeros", "Acc. %", "Dense", "gzip", "Sparse", "gzip", "Smaller")
    out = verdicts.new_table(
        ".tflite files, dense -> sparse, in kB",
        "File",
        *columns,
        caption="Shared values save gzip bytes only.",
    )
    last = None
    for r in results:
        if (r.net, r.stage) != last:
            last = r.net, r.stage
            out.add_section()
            out.add_row(f"[bold]{r.net}, {r.stage}[/]")
        sizes = (r.dense_bytes, r.dense_gzip, r.bytes, r.gzip_bytes)
        out.add_row(
            r.form,
            f"{r.zeros:.1%}",
            f"{r.accuracy:.2f}",
            *(f"{size / 1000:,.0f}" for size in sizes),
            f"{r.smaller:.2f}x",
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, help="an .npz as mnist.py reads it")
    parser.add_argument("--cifar10", type=Path, help="an .npz as cifar10.py reads it")
    parser.add_argument("--nets", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="keep what is finished in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument(
        "--smoke", action="store_true", help="some hundred images, no targets: does it run?"
    )
    args = parser.parse_args()

    results: list[Result] = []
    fast: list[edge.BenchmarkResult] = []
    recipes = {net: smoke(RECIPES[net]) if args.smoke else RECIPES[net] for net in args.nets}
    with tempfile.TemporaryDirectory() as temporary:
        for net, recipe in recipes.items():
            folder = (args.cache or Path(temporary)) / net / f"seed{args.seed}"
            cifar10.settle(folder, asdict(recipe))
            if net == "mobilenet_large":
                task: Digits | Pictures = Pictures(recipe, args.cifar10)
            else:
                task = Digits(net, recipe, args.mnist)
            case = Case(net, args.seed, task, folder)
            results += case.run()
            if net == "mlp":
                fast = speeds(case)
    checks = targets(results, fast)
    console.print(table(results))
    if fast:
        console.print(edge.Report(fast, title="Dense layers that skip zeros").table())
    passed = verdicts.show(console, checks)
    if args.json:
        report = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "recipes": {net: asdict(recipe) for net, recipe in recipes.items()},
            "seed": args.seed,
            "targets": checks,
            "results": [asdict(result) for result in results],
            "speeds": [result.to_dict() for result in fast],
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if passed or args.smoke else 1


def smoke(recipe: Recipe) -> Recipe:
    """The same with next to no training."""
    epochs = dict.fromkeys(recipe.epochs, 1)
    return replace(recipe, epochs=epochs, train_images=512, test_images=256)


if __name__ == "__main__":
    raise SystemExit(main())
