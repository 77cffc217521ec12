"""CIFAR-10: accuracy of int8 after training, by quantization-aware training, and by tfmot's.

For each net and seed a float model is trained, and goes on in three ways: it is quantized after
training, calibrated on 500 training images; it is trained on with fake quantization
(`quantize_aware`); and it is trained on so by tensorflow-model-optimization, as the same net in
Keras 2, from the same weights, with the same batches and learning rates. As a control, --longer
trains the float model on, with the same batches and learning rates. Accuracy is that of the .tflite
on all 10,000 test images; agreement is the share of them that a file puts in the same class as the
float file does.

The net `wide` is `mobilenet` with its depthwise channels scaled by factors from 1/18 to 18, and
scaled back in the convolution that follows: in float the same function, in int8 too wide a range
for a tensor with one scale.

    pip install -e '.[bench]'
    python benchmarks/qat_cifar10.py --cache cifar10 --json cifar10.json

It takes hours on two cores. With --cache, an interrupted run goes on where it stopped. Without
tensorflow-model-optimization, its rows are left out. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cifar10
import keras
import numpy as np
import verdicts
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.edge.system.machine import machine

BASELINE = "tensorflow-model-optimization"
FLOAT, POST, QAT, TFMOT, LONGER = "float32", "post-training", "QAT", "tfmot QAT", "float32 longer"

TOLERANCE = 0.1  # points that QAT may lose against float, on average over seeds
CLEAR = 5.0  # points that post-training int8 must lose on `wide`
LEFT = 0.25  # share of them that may still be lost after QAT
MAX_LSB = 2.0  # steps of the output between the QAT model and its file

console = Console()


@dataclass(frozen=True)
class Recipe:
    """How everything is trained, and on what."""

    float_epochs: dict[str, int]
    epochs: dict[str, int]
    rate: dict[str, float]
    batch: int = 128
    calibration: int = 500
    decades: float = 1.25
    train_images: int | None = None
    test_images: int | None = None


# What makes up for a wide range is far away.
RATE = {"resnet8": 2e-4, "mobilenet": 2e-4, "wide": 2e-3}
FULL = Recipe(
    float_epochs={"resnet8": 8, "mobilenet": 12},
    epochs={"resnet8": 1, "mobilenet": 2, "wide": 1},
    rate=RATE,
)
SMOKE = Recipe(
    float_epochs={"resnet8": 1, "mobilenet": 1},
    epochs={"resnet8": 1, "mobilenet": 1, "wide": 1},
    rate=RATE,
    calibration=16,
    train_images=512,
    test_images=256,
)


@dataclass(frozen=True)
class Result:
    """A file, tested.

    Attributes:
        net: Which net.
        seed: Of the float training.
        stage: How the file came to be.
        accuracy: Percent of the test images that it gets right.
        agreement: Percent of them that it puts in the same class as the float file.
        bytes: Of the file.
        lsb: Its largest difference from the QAT model, in steps of the output.
    """

    net: str
    seed: int
    stage: str
    accuracy: float
    agreement: float
    bytes: int
    lsb: float | None


@dataclass(frozen=True)
class Case:
    """One net and seed. Each stage writes a .tflite, and is not run again where there is one."""

    net: str
    seed: int
    recipe: Recipe
    folder: Path
    data: Path | None
    train: cifar10.Split
    test: cifar10.Split

    def run(self, stages: list[str]) -> list[Result]:
        """Make the files that are not there yet, and test all."""
        make = {
            FLOAT: self.float32,
            POST: self.post_training,
            QAT: self.quantize_aware,
            TFMOT: self.tfmot,
            LONGER: self.longer,
        }
        for stage in stages:
            if not self.path(stage).exists():
                started = time.perf_counter()
                self.path(stage).parent.mkdir(parents=True, exist_ok=True)
                make[stage](self.path(stage))
                seconds = time.perf_counter() - started
                console.print(f"{self.net}, seed {self.seed}: {stage} made in {seconds:.0f} s")
        return [self.result(stage) for stage in stages]

    def path(self, stage: str) -> Path:
        """Where the stage's file is."""
        return self.folder / f"{self.net}_{self.seed}" / f"{stage.replace(' ', '_')}.tflite"

    def model(self) -> keras.Model:
        """The float model, trained unless it was before."""
        trained = "mobilenet" if self.net == "wide" else self.net
        file = self.folder / "float" / f"{trained}_{self.seed}.keras"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.keras")
            self.trained(trained).save(part)
            part.replace(file)
        model = cifar10.NETS[self.net](keras)
        model.load_weights(file)
        if self.net == "wide":
            widen(model, self.seed, self.recipe.decades)
        return model

    def trained(self, net: str) -> keras.Model:
        """A net, trained from nothing."""
        keras.utils.set_random_seed(self.seed)
        model = cifar10.NETS[net](keras)
        recipe = self.recipe
        cifar10.train(
            model,
            keras,
            self.train,
            seed=self.seed,
            epochs=recipe.float_epochs[net],
            batch=recipe.batch,
        )
        return model

    def fine_tune(self, model: keras.Model) -> keras.Model:
        """Train on; float and fake-quantized models alike."""
        recipe = self.recipe
        keras.utils.set_random_seed(self.seed)
        cifar10.fine_tune(
            model,
            keras,
            self.train,
            seed=self.seed,
            epochs=recipe.epochs[self.net],
            rate=recipe.rate[self.net],
            batch=recipe.batch,
        )
        return model

    def float32(self, path: Path) -> None:
        """The float model as it is."""
        converters.convert(self.model(), path, batch_size=1)

    def longer(self, path: Path) -> None:
        """The float model, trained on without quantization."""
        converters.convert(self.fine_tune(self.model()), path, batch_size=1)

    def post_training(self, path: Path) -> None:
        """The float model in int8."""
        int8 = converters.Int8(calibration=self.samples())
        converters.convert(self.model(), path, int8, batch_size=1, strict=True)

    def quantize_aware(self, path: Path) -> None:
        """The float model, trained on by ours, in int8."""
        trained = path.with_suffix(".keras")
        if not trained.exists():
            model = tfc.quantize_aware(self.model())
            tfc.calibrate(model, self.samples())
            part = path.with_suffix(".part.keras")
            self.fine_tune(model).save(part)
            part.replace(trained)
        model = keras.models.load_model(trained)
        part = path.with_suffix(".part.tflite")
        converters.convert(model, part, converters.Int8(), batch_size=1, strict=True)
        verified = converters.verify(model, part, cifar10.scaled(self.test[0][:1000]))
        path.with_suffix(".json").write_text(json.dumps({"lsb": verified.outputs[0].max_lsb}))
        part.replace(path)

    def tfmot(self, path: Path) -> None:
        """The float model, trained on by theirs, in int8; Keras 2 wants a process of its own."""
        weights = path.with_suffix(".npz")
        np.savez(weights, **cifar10.named_weights(self.model()))
        recipe = self.recipe
        options = {
            "data": self.data,
            "train": recipe.train_images,
            "seed": self.seed,
            "epochs": recipe.epochs[self.net],
            "rate": recipe.rate[self.net],
            "batch": recipe.batch,
        }
        script = Path(__file__).with_name("tfmot_qat.py")
        command = [sys.executable, script, self.net, weights, path]
        for name, value in options.items():
            command += [] if value is None else [f"--{name}", value]
        subprocess.run([str(part) for part in command], check=True)

    def samples(self) -> cifar10.Array:
        """What post-training int8 and QAT calibrate on."""
        return cifar10.scaled(self.train[0][: self.recipe.calibration])

    def result(self, stage: str) -> Result:
        """What the test images say about the stage's file."""
        path, found = self.path(stage), self.classes(stage)
        extra = path.with_suffix(".json")
        return Result(
            net=self.net,
            seed=self.seed,
            stage=stage,
            accuracy=100 * float(np.mean(found == self.test[1])),
            agreement=100 * float(np.mean(found == self.classes(FLOAT))),
            bytes=path.stat().st_size,
            lsb=json.loads(extra.read_text())["lsb"] if extra.exists() else None,
        )

    def classes(self, stage: str) -> cifar10.Array:
        """Of the test images, by the file."""
        file = self.path(stage).with_suffix(".npy")
        if not file.exists():
            np.save(file, edge.Runner(self.path(stage))(cifar10.scaled(self.test[0])).argmax(-1))
        return np.load(file)


def widen(model: keras.Model, seed: int, decades: float) -> None:
    """Spread the ranges of `wide`'s depthwise channels, without changing what it computes.

    ReLU(s x) = s ReLU(x) for s > 0: a channel is scaled in the batch normalization, and scaled back
    in the kernel of the pointwise convolution.

    Args:
        model: The net, in place.
        seed: For the exponents of ten, uniform.
        decades: Bound of the exponents, to either side.
    """
    random = np.random.default_rng(seed)
    weights = cifar10.named_weights(model)
    norms = [la.name for la in model.layers if re.fullmatch(r"depthwise\d+_bn", la.name)]
    for norm in norms:
        gamma, beta = f"{norm}/0", f"{norm}/1"
        kernel = f"{norm.removesuffix('_bn').replace('depthwise', 'pointwise')}/0"
        factors = 10 ** random.uniform(-decades, decades, weights[gamma].shape)
        weights[gamma] = weights[gamma] * factors
        weights[beta] = weights[beta] * factors
        weights[kernel] = weights[kernel] / factors[:, None]
    cifar10.set_named_weights(model, weights)


def targets(results: list[Result]) -> list[dict[str, Any]]:
    """The promises, each with what was measured; points of accuracy are means over seeds."""
    accuracy: dict[tuple[str, str], float] = {}
    for net, stage in dict.fromkeys((r.net, r.stage) for r in results):
        group = [r.accuracy for r in results if (r.net, r.stage) == (net, stage)]
        accuracy[net, stage] = statistics.mean(group)
    checks: list[dict[str, Any]] = []

    def check(target: str, measured: float, passed: bool) -> None:
        checks.append({"target": target, "measured": measured, "passed": passed})

    for net in dict.fromkeys(r.net for r in results):
        lost = {stage: accuracy[net, FLOAT] - a for (n, stage), a in accuracy.items() if n == net}
        if net == "wide":
            check(
                f"wide: points lost after training, at least {CLEAR}",
                lost[POST],
                lost[POST] >= CLEAR,
            )
            bound = LEFT * lost[POST]
            target = f"wide: points lost after QAT, at most {LEFT} of that"
            check(target, lost[QAT], lost[QAT] <= bound)
            continue
        check(
            f"{net}: points that QAT loses, at most {TOLERANCE}", lost[QAT], lost[QAT] <= TOLERANCE
        )
        for other in (POST, TFMOT):
            if other in lost:
                more = lost[QAT] - lost[other]
                check(
                    f"{net}: points that QAT loses more than {other}, at most 0", more, more <= 1e-9
                )
        far = max(r.lsb for r in results if r.net == net and r.lsb is not None)
        check(f"{net}: steps from QAT model to file, at most {MAX_LSB}", far, far <= MAX_LSB)
    return checks


def table(results: list[Result]) -> Table:
    """One row for each net and stage, means over seeds; accuracy also at the worst."""
    columns = ("Acc. %", "Worst", "To float", "Agree %", "Bytes", "LSB")
    out = verdicts.new_table("CIFAR-10 test images", "File", *columns)
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.net, result.stage), []).append(result)
    for (net, stage), group in groups.items():
        mean = statistics.mean(r.accuracy for r in group)
        lsb = [r.lsb for r in group if r.lsb is not None]
        out.add_row(
            f"{net} {stage}",
            f"{mean:.2f}",
            f"{min(r.accuracy for r in group):.2f}",
            f"{mean - statistics.mean(r.accuracy for r in groups[net, FLOAT]):+.2f}",
            f"{statistics.mean(r.agreement for r in group):.2f}",
            f"{statistics.mean(r.bytes for r in group):,.0f}",
            f"{max(lsb):.1f}" if lsb else "",
            end_section=(net, stage) == [key for key in groups if key[0] == net][-1],
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz as cifar10.py reads it")
    parser.add_argument("--nets", nargs="+", choices=RATE, default=list(RATE))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--longer", action="store_true", help="train on the float models, too")
    parser.add_argument("--cache", type=Path, help="keep what is finished in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument(
        "--smoke", action="store_true", help="some hundred images, no targets: does it run?"
    )
    args = parser.parse_args()

    recipe = SMOKE if args.smoke else FULL
    stages = [FLOAT, POST, QAT, TFMOT] + [LONGER] * args.longer
    if not importlib.util.find_spec("tensorflow_model_optimization"):
        stages.remove(TFMOT)
        console.print(f"No {BASELINE} here: pip install -e '.[bench]'. Without its rows:")
    results = []
    splits = [
        (images[:count], labels[:count])
        for (images, labels), count in zip(
            cifar10.load(args.data), (recipe.train_images, recipe.test_images), strict=True
        )
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.cache or Path(temporary)
        cifar10.settle(folder, asdict(recipe))
        for net in args.nets:
            for seed in args.seeds:
                case = Case(net, seed, recipe, folder, args.data, *splits)
                results += case.run(stages)
    console.print(table(results))
    checks = targets(results)
    passed = verdicts.show(console, checks)
    if args.json:
        report = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "versions": {
                name: version(name)
                for name in ("tensorflow", "keras", BASELINE, "tf-keras")
                if TFMOT in stages or name in ("tensorflow", "keras")
            },
            "recipe": asdict(recipe),
            "seeds": args.seeds,
            "targets": checks,
            "results": [asdict(result) for result in results],
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if passed or args.smoke else 1


if __name__ == "__main__":
    raise SystemExit(main())
