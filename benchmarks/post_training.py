"""CIFAR-10: what nets lose when they are quantized after training, by ours and by others.

Each net is trained in float, once, and quantized from the same samples by tfcompress, by the
TensorFlow converter alone, and by litert-quantizer. Accuracy is that of the .tflite on all 10,000
test images; the signal-to-noise ratio is that of its output against Keras' on 1,000 of them;
float MACs are the ops with weights that were left in float; seconds are those from the model, or
for litert-quantizer from the float file, to the file.

The nets: `resnet8` and `mobilenet`; `wide`, the second with channels of uneven ranges (see
qat_cifar10.py); `mobilenet_v2`, with swish and squeeze-and-excite; a small vision `transformer`.

    pip install -e '.[bench]' litert-quantizer
    python benchmarks/post_training.py --cache post --json post.json

It takes an hour on two cores, most of it training. With --cache, nets are trained once. Without
litert-quantizer, its rows are left out. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cifar10
import keras
import numpy as np
import tensorflow as tf
import verdicts
from qat_cifar10 import widen
from rich.console import Console
from rich.table import Table

from tfcompress import converters, edge
from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.int8_coverage import float_ops
from tfcompress.edge.system.machine import machine

FEW, MANY = 64, 500  # calibration samples
FLOAT, INT8, EVEN = "float32", "Int8", "Int8, equalized"
GPTQ, NEAREST, MIXED = "Int4Weights, gptq", "Int4Weights, nearest", "Int4Weights, mixed"
INT16, TENSORFLOW, PEER = "Int16x8", "TensorFlow converter", "litert-quantizer"
MIXED_SHARE = 0.74  # of the int8 file's bytes
DECADES = 1.25  # of the ranges in `wide`
EPOCHS = {"resnet8": 8, "mobilenet": 12, "wide": 12, "mobilenet_v2": 8, "transformer": 8}

console = Console()


@dataclass(frozen=True)
class Result:
    """A file, tested.

    Attributes:
        net: Which net.
        way: How the file was made.
        samples: How many it was calibrated on; 0 for none.
        accuracy: Percent of the test images that it gets right.
        snr_db: Of its output against that of Keras.
        bytes: Of the file.
        float_macs: Ops with weights that compute in float.
        seconds: From model or float file to the file.
    """

    net: str
    way: str
    samples: int
    accuracy: float
    snr_db: float
    bytes: int
    float_macs: int
    seconds: float


@dataclass(frozen=True)
class Case:
    """A net, and what it is quantized and tested with."""

    net: str
    model: keras.Model
    train: cifar10.Split
    test: cifar10.Split
    folder: Path

    def run(self) -> list[Result]:
        """Make and test all files of the net."""
        results = [self.result(FLOAT, 0, lambda path: self.ours(path, converters.Float32()))]
        few, many = self.samples(FEW), self.samples(MANY)
        results += [
            self.result(INT8, FEW, lambda path: self.ours(path, converters.Int8(few))),
            self.result(EVEN, FEW, lambda path: self.ours(path, even(few))),
            self.result(TENSORFLOW, FEW, lambda path: self.converter(path, few)),
            self.result(TENSORFLOW, MANY, lambda path: self.converter(path, many)),
        ]
        if importlib.util.find_spec("litert_quantizer"):
            results.append(self.result(PEER, FEW, lambda path: self.peer(path, few)))
        budget = int(MIXED_SHARE * results[1].bytes)
        for way, precision in (
            (NEAREST, converters.Int4Weights(few, rounding="nearest")),
            (GPTQ, converters.Int4Weights(many)),
            (MIXED, converters.Int4Weights(many, budget=budget)),
            (INT16, converters.Int16x8(few)),
        ):
            count = len(precision.calibration)
            try:
                made = self.result(way, count, lambda path, p=precision: self.ours(path, p))
            except converters.ConversionError as error:  # TFLite lacks ops in 16 bits
                console.print(f"{self.net}, {way}: {error}")
            else:
                results.append(made)
        return results

    def result(self, way: str, samples: int, make: Callable[[Path], None]) -> Result:
        """Make a file, and test it."""
        path = self.folder / f"{self.net} {way} {samples}.tflite"
        started = time.perf_counter()
        make(path)
        seconds = time.perf_counter() - started
        images, labels = self.test
        found = edge.Runner(path)(cifar10.scaled(images))
        exact = self.model.predict(cifar10.scaled(images[:1000]), verbose=0)
        noise = np.mean((found[: len(exact)] - exact) ** 2)
        result = Result(
            net=self.net,
            way=way,
            samples=samples,
            accuracy=100 * float(np.mean(found.argmax(-1) == labels)),
            snr_db=10 * float(np.log10(np.mean(exact**2) / noise)),
            bytes=path.stat().st_size,
            float_macs=0
            if way == FLOAT
            else len(float_ops(converters.inspect(path), partial(layer_at, self.model)).macs),
            seconds=seconds,
        )
        console.print(f"{self.net}, {way}, {samples} samples: {result.accuracy:.2f}%")
        return result

    def samples(self, count: int) -> cifar10.Array:
        """The first training images."""
        return cifar10.scaled(self.train[0][:count])

    def ours(self, path: Path, precision: converters.Precision) -> None:
        """The file that tfcompress makes."""
        converters.convert(self.model, path, precision, batch_size=1)

    def converter(self, path: Path, samples: cifar10.Array) -> None:
        """The file that the TensorFlow converter makes alone."""
        converter = tf.lite.TFLiteConverter.from_keras_model(self.model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())

    def peer(self, path: Path, samples: cifar10.Array) -> None:
        """The file that litert-quantizer makes of our float file."""
        from litert_quantizer import Quantizer, recipe

        source = self.folder / f"{self.net} {FLOAT} 0.tflite"
        [signature] = converters.inspect(source).signatures
        [name] = signature.inputs
        quantizer = Quantizer(str(source), recipe.static_wi8_ai8())
        data = {signature.key: [{name: image[None]} for image in samples]}
        quantizer.quantize(quantizer.calibrate(data), serialize_to_path=str(path))


def even(samples: cifar10.Array) -> converters.Precision:
    """Int8 of the equalized model."""
    return converters.Int8(samples, equalize=True)


def trained(net: str, file: Path, train: cifar10.Split, epochs: int) -> keras.Model:
    """The float net, trained unless it was before."""
    model = cifar10.NETS[net](keras)
    if file.exists():
        model.load_weights(file)
        return model
    keras.utils.set_random_seed(0)
    cifar10.train(model, keras, train, seed=0, epochs=epochs, batch=128)
    if net == "wide":
        widen(model, 0, DECADES)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.weights.h5")
    model.save_weights(part)
    part.replace(file)
    return model


def targets(results: list[Result]) -> list[dict[str, Any]]:
    """The promises, each with what was measured."""
    found = {(r.net, r.way, r.samples): r for r in results}
    checks: list[dict[str, Any]] = []

    def check(target: str, measured: float, passed: bool) -> None:
        checks.append({"target": target, "measured": measured, "passed": passed})

    for net in dict.fromkeys(r.net for r in results):
        exact, even_file = found[net, FLOAT, 0], found[net, EVEN, FEW]
        best = max(found[net, way, FEW].snr_db for way in (INT8, EVEN))
        more = best - found[net, TENSORFLOW, MANY].snr_db
        check(f"{net}: dB above the TensorFlow converter of {MANY} samples", more, more >= 0)
        if (net, PEER, FEW) in found:
            more = best - found[net, PEER, FEW].snr_db
            check(f"{net}: dB above litert-quantizer, at least 5", more, more >= 5)
        if net == "wide":
            lost = exact.accuracy - even_file.accuracy
            check("wide: points that equalized int8 loses, at most 0.3", lost, lost <= 0.3)
        if net == "resnet8":
            whole = found[net, INT8, FEW].bytes
            for way, points, share in ((GPTQ, 0.5, 0.60), (MIXED, 0.1, 0.75)):
                one = found[net, way, MANY]
                lost = exact.accuracy - one.accuracy
                check(f"resnet8: points that {way} loses, at most {points}", lost, lost <= points)
                size = one.bytes / whole
                check(f"resnet8: {way}, share of int8's bytes", size, size <= share)
    return checks


def table(results: list[Result]) -> Table:
    """One row for each file."""
    columns = ("Cal.", "Acc. %", "SNR dB", "Bytes", "Float", "s")
    out = verdicts.new_table("CIFAR-10 test images", "File", *columns)
    for index, one in enumerate(results):
        out.add_row(
            f"{one.net} {one.way}",
            str(one.samples),
            f"{one.accuracy:.2f}",
            f"{one.snr_db:.1f}",
            f"{one.bytes:,}",
            str(one.float_macs),
            f"{one.seconds:.1f}",
            end_section=[r.net for r in results[index : index + 2]] != [one.net] * 2,
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz as cifar10.py reads it")
    parser.add_argument("--nets", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--epochs", type=int, help="of the float training; default: 8 or 12")
    parser.add_argument("--cache", type=Path, help="keep trained nets and files in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument(
        "--smoke", action="store_true", help="some hundred images, no targets: does it run?"
    )
    args = parser.parse_args()

    train, test = cifar10.load(args.data)
    if args.smoke:
        train, test = (tuple(part[:512] for part in split) for split in (train, test))
    epochs = dict.fromkeys(EPOCHS, args.epochs) if args.epochs else EPOCHS
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.cache or Path(temporary)
        cifar10.settle(folder, {"epochs": epochs, "images": len(train[1])})
        for net in args.nets:
            model = trained(net, folder / f"{net}.weights.h5", train, epochs[net])
            results += Case(net, model, train, test, folder).run()
    console.print(table(results))
    checks = targets(results)
    passed = verdicts.show(console, checks)
    if args.json:
        names = ["tensorflow", "keras", "ai-edge-litert"]
        names += [PEER] if importlib.util.find_spec("litert_quantizer") else []
        report = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "versions": {name: version(name) for name in names},
            "epochs": epochs,
            "targets": checks,
            "results": [asdict(result) for result in results],
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if passed or args.smoke else 1


if __name__ == "__main__":
    raise SystemExit(main())
