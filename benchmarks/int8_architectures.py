"""The architectures of the tests: how close int8 after training comes to Keras, by ours and others.

Each architecture is made int8 by tfcompress with each choice of ranges, by the TensorFlow converter
alone, and by litert-quantizer from our float file: all with a batch of one, all from the first of
the same samples. The signal-to-noise ratio is that of the worst output on 64 other samples; float
MACs are the ops with weights that stayed in float; seconds are those from the model to the file,
for litert-quantizer from the float file. "Input rounded" is the model itself, in float, on samples
that are rounded to 8 bits: a net that loses so much by one rounding multiplies every error.

Nothing is trained. Weights are as Keras initializes them, batch normalization has the statistics of
the 64 samples, and each sample is noise with a mean and a spread of its own. `post_training.py` has
trained nets and real data.

    pip install -e '.[bench,test]' litert-quantizer
    python benchmarks/int8_architectures.py --json int8_architectures.json

It takes an hour on two cores, and several with --large, which adds whole nets of
keras.applications. Exits with 1 if an architecture is below 15 dB or keeps a float MAC of which
TFLite has an int8 kernel.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import verdicts
from rich.console import Console
from rich.table import Table

from tfcompress import converters, edge
from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.int8_coverage import float_ops
from tfcompress.converters.outputs import keras_outputs
from tfcompress.edge.system.machine import machine
from tfcompress.model.layers import walk
from tfcompress.model.signature import signature

sys.path.append(str(Path(__file__).parents[1]))
from tests.zoo.architectures import ARCHITECTURES, BEGINNINGS, LARGE, VOCABULARY

FEW, MANY = 64, 500  # calibration samples
OURS = ("mse", "minmax", "percentile")
TENSORFLOW, PEER = "TensorFlow converter", "litert-quantizer"
ROUNDED = "input rounded"
LEAST = 15.0  # dB
FLOAT_ONLY = ("CONV_3D", "CONV_3D_TRANSPOSE")  # TFLite has no int8 kernels of these

Samples = dict[str, np.ndarray[Any, Any]]
console = Console()


class Alone(converters.Int8):
    """What the TensorFlow converter makes of the graph that we trace."""

    def converter_options(self) -> converters.ConverterOptions:
        """Return options that our own calibration does not take."""
        ops = ("TFLITE_BUILTINS_INT8",)
        return converters.ConverterOptions(optimizations=("DEFAULT",), supported_ops=ops)


@dataclass(frozen=True)
class Result:
    """A file, compared with its model.

    Attributes:
        architecture: Which.
        way: How the file was made.
        samples: How many it was calibrated on.
        snr_db: Of the worst output; None if there is no file.
        float_macs: Ops with weights that compute in float.
        seconds: From model or float file to the file; None if others were made with it.
        error: Why there is no file; "" if there is.
    """

    architecture: str
    way: str
    samples: int
    snr_db: float | None = None
    float_macs: tuple[str, ...] = ()
    seconds: float | None = None
    error: str = ""


def data(model: keras.Model, count: int, seed: int) -> Samples:
    """Noise for the inputs of a model, each sample with a mean and a spread of its own."""
    rng = np.random.default_rng(seed)
    found = {}
    for spec in signature(model, 1).inputs:
        shape = (count, *spec.shape[1:])
        if "int" in spec.dtype:
            found[spec.name] = rng.integers(0, VOCABULARY, shape).astype(spec.dtype)
            continue
        ones = (count, *[1] * (len(shape) - 1))
        values = rng.uniform(0, 1, ones) + rng.uniform(0.2, 1, ones) * rng.uniform(-1, 1, shape)
        found[spec.name] = values.astype(spec.dtype)
    return found


def settle(model: keras.Model, samples: Samples) -> None:
    """Give each batch normalization the statistics of the samples, in one pass."""
    norms = [
        lineage[-1]
        for _, lineage in walk(model)
        if lineage and isinstance(lineage[-1], keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    arrays = list(samples.values())
    model(arrays[0] if len(arrays) == 1 else samples, training=bool(norms))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def measure(name: str, folder: Path) -> list[Result]:
    """Make and compare all files of an architecture."""
    model = ARCHITECTURES[name]().model
    many, test = data(model, MANY, 0), data(model, FEW, 1)
    few = {key: array[:FEW] for key, array in many.items()}
    settle(model, few)
    exact = keras_outputs(signature(model, 1), test)
    results = []

    def result(way: str, samples: int, path: Path, seconds: float | None) -> None:
        left = float_ops(converters.inspect(path), partial(layer_at, model)).macs
        snr = signal_to_noise(exact, edge.Runner(path, isolated=True).named(test))
        done = Result(name, way, samples, snr, tuple(map(str, left)), seconds)
        console.print(f"{name}, {way}, {samples}: {snr:.1f} dB, {len(left)} float", highlight=False)
        results.append(done)

    def attempt(way: str, samples: int, make: Callable[[Path], Any]) -> None:
        path, started = folder / f"{way}.tflite", time.perf_counter()
        try:
            make(path)
        except Exception as error:  # of any of three programs
            text = f"{type(error).__name__}: {error}"
            console.print(f"{name}, {way}, {samples}: {text[:200]}", markup=False)
            results.append(Result(name, way, samples, error=text))
        else:
            result(way, samples, path, time.perf_counter() - started)

    def convert(precision: converters.Precision, path: Path) -> None:
        converters.convert(model, path, precision, batch_size=1)

    wide = folder / "float32.tflite"
    convert(converters.Float32(), wide)
    outputs = keras_outputs(signature(model, 1), rounded(test, few))
    results.append(Result(name, ROUNDED, FEW, signal_to_noise(exact, outputs)))
    for ranges in OURS:
        attempt(ranges, FEW, partial(convert, converters.Int8(few, ranges=ranges)))
    for samples in (few, many):
        count = len(next(iter(samples.values())))
        attempt(TENSORFLOW, count, partial(convert, Alone(samples)))
    if importlib.util.find_spec("litert_quantizer"):
        attempt(PEER, FEW, partial(peer, wide, few))
    return results


def rounded(samples: Samples, seen: Samples) -> Samples:
    """Round float samples to 8 bits over the range of others."""
    found = {}
    for key, array in samples.items():
        step = (seen[key].max() - seen[key].min()) / 255
        whole = array.dtype.kind != "f"
        found[key] = array if whole else (np.rint(array / step) * step).astype(array.dtype)
    return found


def signal_to_noise(exact: Samples, found: Samples) -> float:
    """The ratio of the worst output, in dB; 200 for a difference of nothing."""
    ratios = []
    for key, wanted in exact.items():
        values = wanted.astype(np.float64)
        noise = np.sum((found[key] - values) ** 2)
        signal = np.sum(values**2)
        ratios.append(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-20 * signal, 1e-30)))
    return float(min(ratios))


def peer(source: Path, samples: Samples, path: Path) -> None:
    """The file that litert-quantizer makes of our float file."""
    from litert_quantizer import Quantizer, recipe

    [called] = converters.inspect(source).signatures
    quantizer = Quantizer(str(source), recipe.static_wi8_ai8())
    rows = [{key: array[i : i + 1] for key, array in samples.items()} for i in range(FEW)]
    quantizer.quantize(quantizer.calibrate({called.key: rows}), serialize_to_path=str(path))


def summary(results: list[Result]) -> list[dict[str, Any]]:
    """What each way reaches over all architectures."""
    ways = dict.fromkeys((r.way, r.samples) for r in results)
    best = {r.architecture: r.snr_db for r in results if (r.way, r.samples) == (TENSORFLOW, MANY)}
    rows = []
    for way, samples in ways:
        own = [r for r in results if (r.way, r.samples) == (way, samples)]
        made = [r for r in own if r.snr_db is not None]
        ratios = np.array([r.snr_db for r in made])
        seconds = [r.seconds for r in made if r.seconds is not None]
        rivals = [(r.snr_db, best.get(r.architecture)) for r in made]
        rows.append(
            {
                "way": way,
                "samples": samples,
                "files": len(made),
                "architectures": len(own),
                "median_db": float(np.median(ratios)) if made else None,
                "worst_db": float(ratios.min()) if made else None,
                "at_least_15_db": int((ratios >= LEAST).sum()),
                "at_least_tensorflow_500": sum(b is None or a >= b for a, b in rivals),
                "without_float_macs": sum(not r.float_macs for r in made),
                "median_seconds": float(np.median(seconds)) if seconds else None,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """One row for each way."""
    columns = ("Files", "Median dB", "Worst", ">= 15 dB", ">= TF 500", "No float MAC", "Median s")
    out = verdicts.new_table("int8 after training against Keras", "Way, samples", *columns)
    for row in rows:
        out.add_row(
            f"{row['way']}, {row['samples']}",
            f"{row['files']} of {row['architectures']}",
            *("" if row[k] is None else f"{row[k]:.1f}" for k in ("median_db", "worst_db")),
            *(str(row[k]) for k in ("at_least_15_db", "at_least_tensorflow_500")),
            str(row["without_float_macs"]),
            "" if row["median_seconds"] is None else f"{row['median_seconds']:.1f}",
        )
    return out


def targets(results: list[Result]) -> list[dict[str, Any]]:
    """What our default promises for each architecture."""
    checks: list[dict[str, Any]] = []
    for one in results:
        if one.way == converters.Int8().ranges:
            snr = -np.inf if one.snr_db is None else one.snr_db
            target = f"{one.architecture}: dB, at least 15, and no float MAC"
            left = [op for op in one.float_macs if not op.startswith(FLOAT_ONLY)]
            passed = bool(snr >= LEAST and not left)
            checks.append({"target": target, "measured": snr, "passed": passed})
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=ARCHITECTURES, help="default: all but large")
    parser.add_argument("--large", action="store_true", help="whole nets for their beginnings")
    parser.add_argument("--json", type=Path, help="write all results here, after each architecture")
    args = parser.parse_args()

    without = BEGINNINGS if args.large else LARGE
    names = args.nets or [name for name in ARCHITECTURES if name not in without]
    packages = ["tensorflow", "keras", "ai-edge-litert"]
    packages += [PEER] if importlib.util.find_spec("litert_quantizer") else []
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine()),
        "versions": {name: version(name) for name in packages},
    }
    results: list[Result] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of poor files, which are what is measured
            results += measure(name, Path(folder))
        keras.backend.clear_session()
        if args.json:
            found = [asdict(result) for result in results]
            whole = {"summary": summary(results), "targets": targets(results), "results": found}
            args.json.write_text(json.dumps({**report, **whole}, indent=2) + "\n")
    console.print(table(summary(results)))
    passed = verdicts.show(console, [check for check in targets(results) if not check["passed"]])
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
