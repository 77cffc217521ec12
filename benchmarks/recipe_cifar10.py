"""CIFAR-10: one recipe from a float model to a small int8 file, measured at every stage.

Channels are cut out of a trained float model, down to a share of its multiply-accumulates (MACs),
in one step or two; weights are pruned; it is trained for int8, the zeros kept. In all that, the
model learns from labels and from the original (distillation). Every stage gives a .tflite, and so
does int8 after training, of the original; the last one's zeros are stored sparse.

Accuracy is that of the file on all 10,000 test images. Speed-ups are over the float32 original, on
XNNPACK, one image a run, all files of a net in turns.

With --control, the original is also trained on alone, for as many epochs as all stages together:
what the small file would have to match, had the original had as much training.

With --importances, the float `mobilenet` is cut to half of its MACs by each importance of channels,
and trained on with the same batches, once through half of the training images.

    pip install -e '.[tensorflow]'
    python benchmarks/recipe_cifar10.py --importances --cache recipe --json recipe.json

It takes hours on two cores. With --cache, an interrupted run goes on where it stopped. Exits with 1
if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cifar10
import importances_cifar10 as importances
import keras
import numpy as np
import verdicts
from importances_cifar10 import Comparison
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.edge.system.machine import machine

FLOAT, POST = "float32", "int8 after training"
CUT, CUT_AGAIN, ZEROS, QAT = "channels cut", "cut again", "zeros", "zeros, int8"
CONTROL = "float32, trained on"
THREADS = (1, 2)
SALTS = {CUT: 2, CUT_AGAIN: 3, ZEROS: 4, QAT: 5, CONTROL: 6}  # so that batches differ

console = Console()


@dataclass(frozen=True)
class Cut:
    """Which channels go, by one of two shares.

    Attributes:
        macs: What is left of the float model's MACs; the channels are ranked over all layers.
        channels: What each layer loses of its channels.
        filters: Layers that lose some; None for all that can.
    """

    macs: float | None = None
    channels: float | None = None
    filters: str | None = None

    def of(self, model: keras.Model, original: keras.Model, round_to: int) -> keras.Model:
        """The model, made smaller; `original` is the float model."""
        amount = self.channels
        if self.macs is not None:
            amount = tfc.budgets.Macs(int(self.macs * macs(original)))
        return tfc.prune_channels(model, amount, filters=self.filters, round_to=round_to)


@dataclass(frozen=True)
class Recipe:
    """How a net is trained, and made smaller.

    Attributes:
        float_epochs: Of the training from nothing.
        cuts: Of channels, one or two.
        round_to: What is left of channels is a multiple of this, as XNNPACK's kernels like it.
        pruned: Layers whose weights are pruned.
        zeros: Share of them.
        epochs: Of the training after each cut, with pruning, and for int8.
        rates: Learning rates that these begin with.
        weight_decay: Of each training (AdamW).
        structure: How the zeros lie; None for anywhere.
        temperature: Of the teacher's probabilities.
        batch: Images in a batch.
        calibration: Training images that give the ranges of int8.
        train_images: Number of training images to use; None for all.
        test_images: Number of test images to use; None for all.
    """

    float_epochs: int
    cuts: dict[str, Cut]
    round_to: int
    pruned: str
    zeros: float
    epochs: dict[str, int]
    rates: dict[str, float]
    weight_decay: dict[str, float]
    structure: tfc.masks.Structure = None
    temperature: float = 3.0
    batch: int = 128
    calibration: int = 500
    train_images: int | None = None
    test_images: int | None = None

    @property
    def stages(self) -> list[str]:
        """All that leave a file, in order, but the control."""
        return [FLOAT, POST, *self.cuts, ZEROS, QAT]


RATES = {CUT: 3e-3, CUT_AGAIN: 2e-3, ZEROS: 1e-3, QAT: 3e-4}
WEIGHT_DECAY = {FLOAT: 1e-3, CUT: 0.0, CUT_AGAIN: 0.0, ZEROS: 0.0, QAT: 0.0}
RECIPES = {
    "mobilenet": Recipe(
        float_epochs=12,
        cuts={CUT: Cut(macs=0.484), CUT_AGAIN: Cut(macs=0.3)},
        round_to=16,
        pruned="pointwise",
        zeros=0.4,
        epochs={CUT: 24, CUT_AGAIN: 32, ZEROS: 5, QAT: 3},
        rates=RATES,
        weight_decay=WEIGHT_DECAY,
    ),
    "resnet8": Recipe(
        float_epochs=8,
        cuts={CUT: Cut(macs=0.37), CUT_AGAIN: Cut(macs=0.34)},
        round_to=8,
        pruned="first|second|shortcut",
        zeros=0.4,
        epochs={CUT: 18, CUT_AGAIN: 6, ZEROS: 2, QAT: 1},
        rates=RATES,
        weight_decay=WEIGHT_DECAY,
    ),
    "resnet20": Recipe(
        float_epochs=28,
        # Inside the blocks, and the first stage, which has 36% of the MACs and 5% of the weights.
        cuts={CUT: Cut(channels=0.5, filters="stem|first|second[012]")},
        round_to=8,
        pruned="first|second|shortcut",
        zeros=0.48,
        epochs={CUT: 36, ZEROS: 12, QAT: 3},
        rates=RATES | {ZEROS: 2e-3},
        weight_decay=WEIGHT_DECAY | {FLOAT: 0.05, CUT: 0.05, ZEROS: 0.05},
        structure=tfc.masks.SMALL_FILE,
    ),
}


@dataclass(frozen=True)
class Result:
    """A file, tested.

    Attributes:
        net: Which net.
        seed: Of the float training.
        stage: How the file came to be.
        accuracy: Percent of the test images that it gets right.
        macs: Multiply-accumulates for an image.
        parameters: Of the model.
        zeros: Share of them that is zero.
        bytes: Of the file.
        gzip_bytes: Of the file after gzip.
        latency: By number of threads: milliseconds (the median), and speed-up over the float32
            original (median of rounds, and its 10th and 90th percentile).
    """

    net: str
    seed: int
    stage: str
    accuracy: float
    macs: int
    parameters: int
    zeros: float
    bytes: int
    gzip_bytes: int
    latency: dict[int, dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One net and seed. A stage that left its files is not run again."""

    net: str
    seed: int
    recipe: Recipe
    folder: Path
    train: cifar10.Split
    test: cifar10.Split

    def file(self, stage: str, suffix: str = ".tflite") -> Path:
        """Where a stage's file is."""
        name = stage.replace(",", "").replace(" ", "_")
        return self.folder / self.net / f"seed{self.seed}" / f"{name}{suffix}"

    def model(self, stage: str) -> keras.Model:
        """What the stage made, now or before."""
        file = self.file(stage, ".keras")
        if not file.exists():
            make = {
                FLOAT: self.float32,
                CUT: lambda: self.cut(CUT, after=FLOAT),
                CUT_AGAIN: lambda: self.cut(CUT_AGAIN, after=CUT),
                ZEROS: self.prune,
                QAT: self.quantize_aware,
                CONTROL: self.train_on,
            }[stage]
            started = time.perf_counter()
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.keras")
            make().save(part)
            part.replace(file)
            seconds = time.perf_counter() - started
            console.print(f"{self.net}, seed {self.seed}: {stage}, made in {seconds:.0f} s")
        return keras.models.load_model(file, compile=False)

    def float32(self) -> keras.Model:
        """The original, trained from nothing."""
        keras.utils.set_random_seed(self.seed)
        model = cifar10.NETS[self.net](keras)
        cifar10.train(
            model,
            keras,
            self.train,
            seed=self.seed,
            epochs=self.recipe.float_epochs,
            batch=self.recipe.batch,
            weight_decay=self.recipe.weight_decay[FLOAT],
        )
        return model

    def train_on(self) -> keras.Model:
        """The original, trained on for as long as what is made of it."""
        model, epochs = self.model(FLOAT), sum(self.recipe.epochs.values())
        self.fine_tune(model, CONTROL, like=CUT, epochs=epochs)
        return model

    def cut(self, stage: str, after: str) -> keras.Model:
        """Fewer channels."""
        cut, round_to = self.recipe.cuts[stage], self.recipe.round_to
        small = cut.of(self.model(after), self.model(FLOAT), round_to)
        return self.distill(small, stage)

    def prune(self) -> keras.Model:
        """Fewer weights that are not zero."""
        steps = len(self.train[1]) // self.recipe.batch * self.recipe.epochs[ZEROS]
        schedule = tfc.schedules.Polynomial(
            0.0, self.recipe.zeros, begin=0, end=steps // 2, frequency=max(steps // 40, 1)
        )
        callback = tfc.Prune(schedule, filters=self.recipe.pruned, structure=self.recipe.structure)
        return self.distill(self.model(list(self.recipe.cuts)[-1]), ZEROS, [callback])

    def quantize_aware(self) -> keras.Model:
        """Fewer bits."""
        model = tfc.quantize_aware(self.model(ZEROS))
        tfc.calibrate(model, self.samples())
        return self.distill(model, QAT, [tfc.KeepZeros()])

    def distill(
        self, student: keras.Model, stage: str, callbacks: Sequence[Any] = ()
    ) -> keras.Model:
        """Train a student on labels and on what the original gives."""
        soft = tfc.distill.SoftTargets(self.recipe.temperature)
        distiller = tfc.Distiller(self.model(FLOAT), student, soft)
        self.fine_tune(
            distiller, stage, like=stage, epochs=self.recipe.epochs[stage], callbacks=callbacks
        )
        return student

    def fine_tune(
        self, model: Any, stage: str, *, like: str, epochs: int, callbacks: Sequence[Any] = ()
    ) -> None:
        """Train on: batches of the stage's own, rate and weight decay of the stage `like`."""
        recipe, seed = self.recipe, self.seed + 100 * SALTS[stage]
        keras.utils.set_random_seed(seed)
        cifar10.fine_tune(
            model,
            keras,
            self.train,
            seed=seed,
            epochs=epochs,
            rate=recipe.rates[like],
            batch=recipe.batch,
            weight_decay=recipe.weight_decay[like],
            callbacks=callbacks,
        )

    def samples(self) -> cifar10.Array:
        """What int8 calibrates on."""
        return cifar10.scaled(self.train[0][: self.recipe.calibration])

    def convert(self, stage: str) -> Path:
        """The stage's .tflite, written now or before."""
        file = self.file(stage)
        model = self.model(FLOAT if stage == POST else stage)
        precision = {
            POST: converters.Int8(calibration=self.samples()),
            QAT: converters.Int8(),
        }.get(stage, converters.Float32())
        if not file.exists():
            # Without the names of tensors, and zeros in the sparse encoding where that is smaller.
            sparse = converters.Sparse(names=False) if stage == QAT else False
            converters.convert(model, file, precision, batch_size=1, strict=True, sparse=sparse)
        return file

    def accuracy(self, stage: str) -> float:
        """Of the stage's file, in percent."""
        answers = self.file(stage, ".npy")
        if not answers.exists():
            logits = edge.Runner(self.file(stage))(cifar10.scaled(self.test[0]))
            np.save(answers, logits.argmax(-1))
        return 100 * float(np.mean(np.load(answers) == self.test[1]))

    def compare(self, names: Sequence[str]) -> list[Comparison]:
        """The original, cut by each importance."""
        return importances.compare(
            names,
            lambda: self.model(FLOAT),
            self.train,
            self.test,
            seed=self.seed,
            batch=self.recipe.batch,
            file=lambda name: self.file(f"importance {name}", ".json"),
        )

    def run(self, seconds: float, rounds: int, control: bool) -> list[Result]:
        """Make what is not there yet, and test and measure all of it."""
        stages = [*self.recipe.stages, *([CONTROL] if control else [])]
        files = [self.convert(stage) for stage in stages]
        measured = {
            threads: edge.benchmark(files, threads=threads, min_seconds=seconds, rounds=rounds)
            for threads in THREADS
        }
        results = []
        for index, stage in enumerate(stages):
            total = tfc.summary(self.model(FLOAT if stage == POST else stage)).total
            runs = {threads: measured[threads][index] for threads in THREADS}
            fields = ("median_ms", "speedup", "speedup_p10", "speedup_p90")
            results.append(
                Result(
                    net=self.net,
                    seed=self.seed,
                    stage=stage,
                    accuracy=self.accuracy(stage),
                    macs=total.macs,
                    parameters=total.parameters,
                    zeros=total.sparsity,
                    bytes=runs[1].bytes,
                    gzip_bytes=runs[1].gzip_bytes,
                    latency={t: {f: getattr(run, f) for f in fields} for t, run in runs.items()},
                )
            )
        return results


def macs(model: keras.Model) -> int:
    """Multiply-accumulates for an image."""
    return int(tfc.summary(model).total.macs)


def targets(results: list[Result], comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """The promises, each with what was measured: means over seeds, with one thread."""
    checks: list[dict[str, Any]] = []

    def check(target: str, measured: float, passed: bool) -> None:
        checks.append({"target": target, "measured": measured, "passed": passed})

    def at_most(target: str, most: float, measured: float) -> None:
        check(f"{target}, at most {most:g}", measured, measured <= most + 1e-9)

    def at_least(target: str, least: float, measured: float) -> None:
        check(f"{target}, at least {least:g}", measured, measured >= least)

    for net in dict.fromkeys(r.net for r in results):
        first, cut, last = (means(results, net, stage) for stage in (FLOAT, CUT, QAT))
        at_most(f"{net}, {CUT}: share of the MACs", 0.5, cut["macs"] / first["macs"])
        at_most(f"{net}, {CUT}: points lost", 0.5, first["accuracy"] - cut["accuracy"])
        at_least(f"{net}, {CUT}: times faster", 1.7, cut["x1"])
        at_most(f"{net}, {QAT}: points lost", 1.0, first["accuracy"] - last["accuracy"])
        at_least(f"{net}, {QAT}: times faster", 4.0, last["x1"])
        at_least(f"{net}, {QAT}: times smaller", 10.0, first["bytes"] / last["bytes"])
        ratio = first["gzip_bytes"] / last["gzip_bytes"]
        at_least(f"{net}, {QAT}: times smaller, both gzipped", 10.0, ratio)
    trained = importances.mean(comparisons)
    if importances.BASELINE in trained:
        baseline = trained.pop(importances.BASELINE)
        for name, accuracy in sorted(trained.items()):
            more = accuracy - baseline
            check(f"{name}: points above random, more than 0", more, more > 0)
    return checks


def means(results: list[Result], net: str, stage: str) -> dict[str, float]:
    """Over seeds: all numbers of a result, and the speed-ups as `x1`, `x2`."""
    group = [r for r in results if (r.net, r.stage) == (net, stage)]
    names = ("accuracy", "macs", "parameters", "zeros", "bytes", "gzip_bytes")
    found = {name: statistics.mean(getattr(r, name) for r in group) for name in names}
    for threads in THREADS:
        found[f"x{threads}"] = statistics.mean(r.latency[threads]["speedup"] for r in group)
    return found


def stage_table(results: list[Result]) -> Table:
    """One row for each net and stage, means over seeds."""
    columns = ("Acc. %", "Lost", "MMACs", "Bytes", "gzip", "1 thr.", "2 thr.")
    out = verdicts.new_table(
        "CIFAR-10 test images; speed-up with one and two threads", "File", *columns
    )
    for net in dict.fromkeys(r.net for r in results):
        out.add_row(f"[bold]{net}[/]")
        first = means(results, net, FLOAT)
        stages = list(dict.fromkeys(r.stage for r in results if r.net == net))
        for stage in stages:
            mean = means(results, net, stage)
            out.add_row(
                stage,
                f"{mean['accuracy']:.2f}",
                f"{first['accuracy'] - mean['accuracy']:.2f}",
                f"{mean['macs'] / 1e6:.2f}",
                f"{mean['bytes']:,.0f}",
                f"{mean['gzip_bytes']:,.0f}",
                *(f"{mean[f'x{threads}']:.2f}x" for threads in THREADS),
                end_section=stage == stages[-1],
            )
    return out


def importance_table(comparisons: list[Comparison]) -> Table:
    """One row for each importance, the best first; means over seeds."""
    out = verdicts.new_table("At half the MACs", "Importance", "Cut", "Trained", "Worst")
    cut = importances.mean(comparisons, "cut")
    for name, mean in sorted(importances.mean(comparisons).items(), key=lambda item: -item[1]):
        worst = min(c.trained for c in comparisons if c.importance == name)
        out.add_row(name, f"{cut[name]:.2f}", f"{mean:.2f}", f"{worst:.2f}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz as cifar10.py reads it")
    parser.add_argument("--nets", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--importances",
        nargs="*",
        choices=importances.NAMES,
        help="compare these, too; all if none is named",
    )
    parser.add_argument("--control", action="store_true", help="train the original on, too")
    parser.add_argument("--cache", type=Path, help="keep what is finished in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument(
        "--smoke", action="store_true", help="some hundred images, no targets: does it run?"
    )
    args = parser.parse_args()

    recipes = RECIPES
    if args.smoke:
        recipes = {net: smoke(recipe) for net, recipe in RECIPES.items()}
    train, test = cifar10.load(args.data)
    results: list[Result] = []
    comparisons: list[Comparison] = []

    def write() -> None:
        if args.json:
            report = {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "machine": asdict(machine()),
                "versions": {name: version(name) for name in ("tensorflow", "keras")},
                "recipes": {net: asdict(recipe) for net, recipe in recipes.items()},
                "seeds": args.seeds,
                "targets": targets(results, comparisons),
                "results": [asdict(result) for result in results],
                "importances": [asdict(comparison) for comparison in comparisons],
            }
            args.json.write_text(json.dumps(report, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.cache or Path(temporary)

        def case(net: str, seed: int) -> Case:
            recipe = recipes[net]
            cifar10.settle(folder / net, asdict(recipe))
            few_train = tuple(part[: recipe.train_images] for part in train)
            few_test = tuple(part[: recipe.test_images] for part in test)
            return Case(net, seed, recipe, folder, few_train, few_test)

        for net in args.nets:
            for seed in args.seeds:
                seconds, rounds = (0.1, 2) if args.smoke else (3.0, 20)
                results += case(net, seed).run(seconds, rounds, args.control)
                write()
        for seed in args.seeds if args.importances is not None else []:
            names = args.importances or importances.NAMES
            comparisons += case("mobilenet", seed).compare(names)
            write()
    if results:
        console.print(stage_table(results))
    if comparisons:
        console.print(importance_table(comparisons))
    checks = targets(results, comparisons)
    passed = verdicts.show(console, checks)
    return 0 if passed or args.smoke else 1


def smoke(recipe: Recipe) -> Recipe:
    """The same with next to no training."""
    epochs = dict.fromkeys(recipe.epochs, 1)
    return replace(
        recipe, float_epochs=1, epochs=epochs, calibration=16, train_images=512, test_images=256
    )


if __name__ == "__main__":
    raise SystemExit(main())
