"""Every method on every family of transformers: works, with its figure, or is refused, and why.

The families are KerasHub's, from tiny configs, and transformers written by hand of Keras' own
attention layers. Weights are random, so that the figures say what a method can do, not what a
trained model would lose. Each cell is a figure, or a number that a line below the table explains: a
refusal with its reason, or a failure, after which the script exits with 1.

    pip install -e '.[bench]'
    python benchmarks/keras_hub_matrix.py --families BERT GPT-2 --json matrix.json

All 31 families take about an hour on two cores. What the JSON file holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import verdicts
from rich.console import Console

import tfcompress as tfc
from tfcompress import converters, distill
from tfcompress.model.graph import nodes

sys.path.append(str(Path(__file__).parents[1]))
from tests.channels.test_prune import cut_what_is_silent
from tests.zoo.attention_blocks import BLOCKS, block
from tests.zoo.keras_hub import FAMILIES, family

Array = npt.NDArray[Any]
Cells = dict[str, str]
REFUSALS = (ValueError, converters.ConversionError)
NORMALIZATIONS = ("Norm",)
LEAST = 1024
"""Weights of a kernel from which on a dynamic-range file has it in int8."""

CLOSE = 1e-5
"""Of the largest output: float32's rounding, over the layers of a model."""

console = Console(width=200)


class Wrong(Exception):
    """A method did something, and it is not right."""


def values(model: keras.Model, x: Any) -> Array:
    """All outputs of a model, in one row."""
    outputs = keras.tree.flatten(model(x, training=False))
    return np.concatenate([np.ravel(y) for y in outputs])


def check_equal(found: Array, expected: Array, what: str) -> None:
    """Raise if outputs differ by more than the rounding of float32."""
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not apart <= CLOSE:
        raise Wrong(f"{what} differs by {apart:.2g} of the largest output")


def check_saved(model: keras.Model, x: Any, folder: Path) -> None:
    """Raise if a model is another one after it was saved and loaded."""
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    check_equal(values(again, x), values(model, x), "the model that was saved and loaded")


def macs(model: keras.Model) -> int:
    """The multiply-accumulates of a model."""
    total = tfc.summary(model).total.macs
    if not total:
        raise Wrong("no multiply-accumulates are counted")
    return int(total)


def opened(model: keras.Model, x: Any, folder: Path) -> str:
    """Open what holds layers; keep the function, and save it."""
    kept = {path: why for path, why in tfc.composite_layers(model).items() if why}
    if kept:
        raise ValueError("; ".join(dict.fromkeys(kept.values())))
    plain = tfc.open_layers(model)
    check_equal(values(plain, x), values(model, x), "the opened model")
    check_saved(plain, x, folder)
    return "yes"


def zeros(model: keras.Model, x: Any, folder: Path) -> str:
    """Train one step with half of the weights pruned."""
    before = model.get_weights()
    model.compile("sgd", "mse", jit_compile=False)
    targets = keras.tree.map_structure(np.asarray, model(x))
    prune = tfc.Prune(tfc.schedules.OneShot(0.5))
    model.fit(x, targets, verbose=0, callbacks=[prune])
    kernels = ("Dense", "Conv2D")
    rows = [row for row in tfc.summary(model).layers if row.type.endswith(kernels)]
    share = sum(row.zeros for row in rows) / sum(row.parameters for row in rows)
    check_saved(model, x, folder)
    model.set_weights(before)
    if share < 0.3:
        raise Wrong(f"{share:.0%} of the weights in kernels are zero, where 50% are asked for")
    return f"{share:.2f}"


def channels(attention: str) -> Callable[..., str]:
    """Cut half of everything, and what nothing reads without any change."""

    def cut(model: keras.Model, x: Any, folder: Path) -> str:
        small = tfc.prune_channels(model, 0.5, attention=attention, round_to=1)
        check_saved(small, x, folder)
        share = macs(small) / macs(model)
        before = model.get_weights()
        whole = tfc.channel_groups(model).model
        silent = cut_what_is_silent(whole, attention=attention)
        check_equal(values(silent, x), values(whole, x), "a cut of what nothing reads")
        model.set_weights(before)
        return f"{share:.2f}"

    return cut


def low_rank(model: keras.Model, x: Any, folder: Path) -> str:
    """Factorize at 60% of the energy."""
    small = tfc.factorize(model, energy=0.6)
    check_saved(small, x, folder)
    return f"{macs(small) / macs(model):.2f}"


def quantized(model: keras.Model, x: Any, folder: Path) -> str:
    """Make it quantization-aware, and a file of it; what stays float besides normalizations."""
    qat = tfc.quantize_aware(model)
    tfc.calibrate(qat, x)
    found, expected = values(qat, x), values(model, x)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    check_saved(qat, x, folder)
    file = converters.convert(qat, folder / "qat.tflite", converters.Int8())
    floating = [
        layer
        for layer in tfc.qat_report(qat).floating
        if not any(name in layer.type for name in NORMALIZATIONS)
        and "sums of squares" not in layer.floating
    ]
    unsaid = [
        op
        for op in file.float_macs
        if not any(
            f"{op.layer}/".startswith(f"{layer.path}/") for layer in tfc.qat_report(qat).floating
        )
    ]
    if unsaid:
        raise Wrong(f"float ops that the report calls int8: {', '.join(map(str, unsaid))}")
    listed = ", ".join(f"{layer.path} ({layer.type}: {layer.floating})" for layer in floating)
    return f"{cosine:.3f}" + (f" | float: {listed}" if listed else "")


def file_of(precision: Any) -> Callable[..., str]:
    """Convert, and compare with Keras."""

    def convert(model: keras.Model, x: Any, folder: Path) -> str:
        chosen = converters.Int8(calibration=x) if precision == "int8" else precision
        file = converters.convert(model, folder / f"{precision}.tflite", chosen)
        wanted = {"float32": "float32", "float16": "float16"}.get(precision, "int8")
        sizes = [np.prod(variable.shape) for variable in model.trainable_variables]
        small = precision == "dynamic_int8" and max(sizes) < LEAST
        found = {tensor.dtype for tensor in converters.inspect(file).tensors}
        if wanted not in found and not small:
            raise Wrong(f"the file has no {wanted} tensor")
        worst = min(output.snr_db for output in converters.verify(model, file, x).outputs)
        if not worst > 10:
            raise Wrong(f"the signal-to-noise ratio of the file is {worst:.1f} dB")
        return f"{worst:.0f} dB"

    return convert


def distilled(loss: type, find: Callable[[keras.Model], str]) -> Callable[..., str]:
    """Train a smaller model for one step on what is inside the opened one."""

    def train(model: keras.Model, x: Any, folder: Path) -> str:
        teacher = tfc.open_layers(model)
        student = tfc.factorize(model, energy=0.6)
        place = find(teacher)
        distiller = tfc.Distiller(teacher, student, loss(place, place), student_loss_weight=0.0)
        distiller.compile("sgd", jit_compile=False)
        history = distiller.fit(x, verbose=0).history
        if not np.isfinite(history["distillation_loss"][0]):
            raise Wrong(f"the loss is {history['distillation_loss'][0]}")
        check_saved(distiller.student, x, folder)
        return "yes"

    return train


def hidden_states(model: keras.Model) -> str:
    """The last normalization or residual sum that is followed by others."""
    found = [
        node.name
        for node in nodes(model)
        if type(node.operation).__name__.endswith(("Normalization", "LayerNorm", "Add"))
        and None not in node.consumers
        and len(node.tensors[0].shape) > 1
    ]
    if not found:
        raise ValueError("it has no hidden states")
    return found[-1]


def attention(model: keras.Model) -> str:
    """The first layer that gives attention probabilities."""
    own = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    for node in nodes(model):
        softmax = type(node.operation).__name__ == "Softmax" and len(node.tensors[0].shape) >= 4
        if isinstance(node.operation, own) or softmax:
            return str(node.name)
    raise ValueError("it has no attention")


CAPABILITIES: dict[str, Callable[..., str]] = {
    "MACs": lambda model, x, folder: f"{macs(model):,}",
    "opened": opened,
    "Prune": zeros,
    "heads": channels("heads"),
    "head width": channels("width"),
    "low rank": low_rank,
    "QAT int8": quantized,
    "float32": file_of("float32"),
    "float16": file_of("float16"),
    "dynamic": file_of("dynamic_int8"),
    "int8": file_of("int8"),
    "features": distilled(distill.Features, hidden_states),
    "attention": distilled(distill.AttentionScores, attention),
}


def row(name: str, cells: Cells) -> Cells:
    """Try everything on one family that was not tried before."""
    for capability, attempt in CAPABILITIES.items():
        if capability in cells:
            continue
        keras.utils.set_random_seed(0)
        model, x = block(name) if name in BLOCKS else family(name)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                cells[capability] = attempt(model, x, Path(folder))
            except REFUSALS as error:
                cells[capability] = f"refused: {' '.join(str(error).split())}"
            except Exception as error:
                said = " ".join(str(error).split())[:400]
                cells[capability] = f"FAILS: {type(error).__name__}: {said}"
        console.print(f"{name}, {capability}: {cells[capability]}", highlight=False, markup=False)
    return {capability: cells[capability] for capability in CAPABILITIES}


def show(rows: dict[str, Cells]) -> None:
    """Print the table, and below it what its cells cannot hold."""
    table = verdicts.new_table("Methods on families of transformers", "family", *CAPABILITIES)
    notes: dict[str, int] = {}
    for name, cells in rows.items():
        shown = []
        for cell in cells.values():
            figure, _, more = cell.partition(" | ")
            if cell.startswith(("refused", "FAILS")):
                figure, more = cell.partition(":")[0], cell
            shown.append(figure + (f" ({notes.setdefault(more, len(notes) + 1)})" if more else ""))
        table.add_row(name, *shown)
    console.print(table)
    for text, number in notes.items():
        console.print(f"({number}) {text}", highlight=False, markup=False)


def main() -> int:
    """Run the families that are asked for, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    every = [*BLOCKS, *FAMILIES]
    parser.add_argument("--families", nargs="+", choices=every, default=every)
    parser.add_argument("--json", type=Path, help="file of the results, which is added to")
    options = parser.parse_args()
    stored = options.json is not None and options.json.exists()
    rows: dict[str, Cells] = json.loads(options.json.read_text())["families"] if stored else {}
    for name in options.families:
        rows[name] = row(name, rows.get(name, {}))
        if options.json is not None:
            about = {p: version(p) for p in ("keras", "keras-hub", "ai-edge-litert")}
            options.json.write_text(json.dumps({"versions": about, "families": rows}, indent=1))
    chosen = {name: rows[name] for name in options.families}
    show(chosen)
    return int(
        any(cell.startswith("FAILS") for cells in chosen.values() for cell in cells.values())
    )


if __name__ == "__main__":
    raise SystemExit(main())
