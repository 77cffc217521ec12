"""`verify`: a Keras model and its .tflite file on the same samples, per output."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from tfcompress.converters.file.read import Inspection, inspect
from tfcompress.edge import Runner
from tfcompress.model.checks import check_built
from tfcompress.model.samples import Array, load_samples, whole_batches
from tfcompress.model.signature import Signature, signature
from tfcompress.model.tables import as_text

from .errors import VerificationError

# Enough to keep a CPU busy, few enough for the activations of a large model to fit in memory.
_BATCH = 64


@dataclass(frozen=True)
class OutputError:
    """How far one output of the file is from Keras'.

    Attributes:
        name: Of the output.
        max_error: Largest absolute difference; infinite if one side is NaN or infinite alone.
        mean_error: Mean absolute difference.
        max_lsb: `max_error` in steps of the quantized output; None if it is not quantized.
        mean_lsb: `mean_error` likewise.
        scale: That step.
        snr_db: 10 log10 of signal power over error power, in dB; infinite if all is equal.
        cosine: Of the angle between the two outputs, taken as one vector each.
        top1: Share of rows (along the last axis) whose largest element is at the same place; None
            for outputs without such an axis.
        nonfinite: Elements that are NaN or infinite on one side, and not the same on the other.
            Where both agree they are left out of all figures.
    """

    name: str
    max_error: float
    mean_error: float
    max_lsb: float | None
    mean_lsb: float | None
    scale: float | None
    snr_db: float
    cosine: float
    top1: float | None
    nonfinite: int = 0


@dataclass(frozen=True)
class Verification:
    """A .tflite file compared with the Keras model that it was made of.

    Attributes:
        path: The file.
        delegate: What ran it.
        samples: How many samples were compared.
        outputs: One entry per output, in Keras' order.
    """

    path: Path
    delegate: str
    samples: int
    outputs: tuple[OutputError, ...]

    def __getitem__(self, name: str) -> OutputError:
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(f"{name!r}; the outputs are {[o.name for o in self.outputs]}")

    def raise_if_above(
        self,
        *,
        lsb: float | None = None,
        max_error: float | None = None,
        mean_error: float | None = None,
        snr_below: float | None = None,
        cosine_below: float | None = None,
        top1_below: float | None = None,
    ) -> Self:
        """Raise if any output is further off than allowed.

        A bound that an output has no figure for is an error too: it would check nothing.

        Args:
            lsb: Largest allowed `max_lsb`, in steps of the quantized output.
            max_error: Largest allowed `max_error`.
            mean_error: Largest allowed `mean_error`.
            snr_below: Smallest allowed `snr_db`, in dB.
            cosine_below: Smallest allowed `cosine`.
            top1_below: Smallest allowed `top1`, from 0 to 1.

        Returns:
            Itself.

        Raises:
            VerificationError: Names every output that is beyond a bound, with its figures.
            ValueError: No bound was given, or an output has no such figure.
        """
        upper = {"max_lsb": lsb, "max_error": max_error, "mean_error": mean_error}
        lower = {"snr_db": snr_below, "cosine": cosine_below, "top1": top1_below}
        bounds = {k: v for k, v in {**upper, **lower}.items() if v is not None}
        if not bounds:
            raise ValueError("Give at least one bound, such as lsb=1 or max_error=1e-4.")
        failed = []
        for output in self.outputs:
            for figure, bound in bounds.items():
                value = getattr(output, figure)
                if value is None:
                    raise ValueError(_missing_figure(output, figure))
                # Written so that NaN fails.
                if not (value <= bound if figure in upper else value >= bound):
                    word = "above" if figure in upper else "below"
                    failed.append(
                        f"output '{output.name}': {figure} is {value:.6g}, {word} {bound:g}"
                    )
            if output.nonfinite:
                failed.append(
                    f"output '{output.name}': {output.nonfinite} element(s) are NaN or infinite on "
                    "one side only"
                )
        if failed:
            raise VerificationError(
                f"{self.path} differs from the Keras model over {self.samples} sample(s): "
                + "; ".join(failed)
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values; infinities become None, which JSON can hold."""
        outputs = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in o.items()}
            for o in map(asdict, self.outputs)
        ]
        return {
            "path": str(self.path),
            "delegate": self.delegate,
            "samples": self.samples,
            "outputs": outputs,
        }

    def __str__(self) -> str:
        from rich.table import Table

        table = Table(
            "output", "max error", "mean error", "max LSB", "SNR dB", "cosine", "top-1",
            title=f"{self.path.name} on {self.delegate} against Keras, {self.samples} sample(s)",
        )  # fmt: skip
        for o in self.outputs:
            table.add_row(
                o.name,
                f"{o.max_error:.3g}",
                f"{o.mean_error:.3g}",
                "" if o.max_lsb is None else f"{o.max_lsb:.2f}",
                f"{o.snr_db:.1f}",
                f"{o.cosine:.6f}",
                "" if o.top1 is None else f"{o.top1:.1%}",
            )
        return as_text(table, width=100)


def _missing_figure(output: OutputError, figure: str) -> str:
    why = {
        "max_lsb": "it is not quantized; use max_error or snr_below",
        "top1": "it has no axis of classes",
    }[figure]
    return f"Output '{output.name}' has no {figure}: {why}."


def verify(
    model: keras.Model,
    path: str | os.PathLike[str],
    samples: Any,
    delegate: str = "xnnpack",
    threads: int | None = None,
) -> Verification:
    """Compare what a .tflite file computes with what the Keras model computes.

    Keras runs in inference mode and in the model's own precision; outputs are matched by name.

    Example:
    >>> import keras, numpy as np, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     found = converters.verify(model, file, np.eye(4, dtype="float32"))
    >>> found.raise_if_above(max_error=1e-6)["y"].top1
    1.0

    Args:
        model: The model that the file was made of.
        path: The file, or the `Converted`.
        samples: In any form that `Int8(calibration=)` takes; all of them are used.
        delegate: "xnnpack", "reference" or "gpu". Defaults to "xnnpack".
        threads: For the runtime; None leaves it to it.

    Returns:
        Figures per output.

    Raises:
        ModelFileError: The file is not a readable .tflite model.
        ValueError: The samples do not fit the model, or the file is not this model's.
    """
    model = check_built(model)
    call = signature(model)
    arrays = load_samples(samples, call.inputs)
    found = inspect(path)
    runner = Runner(path, delegate=delegate, threads=threads)
    _check_inputs(call, runner, found.path)
    count = len(next(iter(arrays.values())))
    expected = _keras_outputs(call, arrays, count)
    actual = _file_outputs(runner, arrays, count)
    if set(expected) != set(actual):
        raise ValueError(
            f"{found.path} is not a file of model '{model.name}': its outputs are "
            f"{sorted(actual)}, the model's are {sorted(expected)}"
        )
    scales = _output_scales(found)
    return Verification(
        found.path,
        delegate,
        count,
        tuple(
            compare(name, value, actual[name], scales.get(name)) for name, value in expected.items()
        ),
    )


def compare(name: str, expected: Array, actual: Array, scale: float | None) -> OutputError:
    """The figures for one output.

    Example:
    >>> compare("y", np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]), scale=0.25).max_lsb
    2.0

    Args:
        name: Of the output.
        expected: What Keras computes, any shape.
        actual: What the file computes, the same shape, as real numbers.
        scale: Step of a quantized output.

    Returns:
        The figures.

    Raises:
        ValueError: The shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(
            f"Output '{name}' has shape {actual.shape} in the file, {expected.shape} in Keras"
        )
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    nonfinite = int((~same & ~(np.isfinite(a) & np.isfinite(b))).sum())
    finite = np.isfinite(a) & np.isfinite(b)
    x, error = a[finite], np.abs(b[finite] - a[finite])
    y = b[finite]
    largest = math.inf if nonfinite else float(error.max(initial=0.0))
    mean = math.inf if nonfinite else float(error.mean()) if error.size else 0.0
    noise, signal = float(np.sum(error**2)), float(np.sum(x**2))
    if nonfinite:
        snr = -math.inf
    elif noise == 0:
        snr = math.inf
    else:
        snr = 10 * math.log10(signal / noise) if signal else -math.inf
    norm = math.sqrt(signal) * float(np.linalg.norm(y))
    top1 = None
    if a.ndim >= 2 and a.shape[-1] > 1:
        top1 = float(np.mean(a.argmax(-1) == b.argmax(-1)))
    return OutputError(
        name=name,
        max_error=largest,
        mean_error=mean,
        max_lsb=None if scale is None else largest / scale,
        mean_lsb=None if scale is None else mean / scale,
        scale=scale,
        snr_db=snr,
        cosine=float(x @ y) / norm if norm else float(noise == 0),
        top1=top1,
        nonfinite=nonfinite,
    )


def _check_inputs(call: Signature, runner: Runner, path: Path) -> None:
    wanted, given = {s.name for s in call.inputs}, {info.name for info in runner.inputs}
    if wanted != given:
        raise ValueError(
            f"{path} is not a file of this model: its inputs are {sorted(given)}, the model's are "
            f"{sorted(wanted)}"
        )


def _keras_outputs(call: Signature, arrays: Mapping[str, Array], count: int) -> dict[str, Array]:
    # A model that fixes its batch is given whole ones.
    batch = call.inputs[0].shape[0] or _BATCH
    filled = whole_batches(arrays, call.inputs[0].shape[0] or 1)
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(next(iter(filled.values()))), batch):
        rows = {
            name: keras.ops.convert_to_tensor(array[start : start + batch])
            for name, array in filled.items()
        }
        for name, value in call.call(rows).items():
            parts.setdefault(name, []).append(_to_numpy(value))
    return {name: np.concatenate(list_)[:count] for name, list_ in parts.items()}


def _to_numpy(value: Any) -> Array:
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        value = keras.ops.cast(value, "float32")
    return np.asarray(keras.ops.convert_to_numpy(value))


def _file_outputs(runner: Runner, arrays: Mapping[str, Array], count: int) -> dict[str, Array]:
    fixed = {info.shape[0] for info in runner.inputs}.pop()
    filled = whole_batches(arrays, fixed or 1)
    # uint8 pixels of a float model went through load_samples; quantized inputs take real numbers.
    real = {
        info.name: filled[info.name].astype("float32") if info.quantized else filled[info.name]
        for info in runner.inputs
    }
    outputs = runner.named(real, batch_size=None if fixed else _BATCH)
    return {name: np.asarray(value)[:count] for name, value in outputs.items()}


def _output_scales(found: Inspection) -> dict[str, float]:
    """Step of every quantized output, also of one that the file itself turns into float."""
    producers = {node.outputs[0]: node for node in found.nodes if node.op == "DEQUANTIZE"}
    scales = {}
    for name, place in found.signatures[0].outputs.items() if found.signatures else ():
        tensor = found.tensors[place]
        if place in producers:
            tensor = found.tensors[producers[place].inputs[0]]
        if len(tensor.scales) == 1:
            scales[name] = tensor.scales[0]
    return scales
