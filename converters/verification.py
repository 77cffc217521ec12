"""`verify`: a Keras model and its .tflite file on the same samples."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.file.read import inspect
from tfcompress.edge import Runner
from tfcompress.model.checks import check_built
from tfcompress.model.samples import Array, load_samples, whole_batches
from tfcompress.model.signature import Signature, signature
from tfcompress.model.tables import as_text, new_table

from .errors import VerificationError
from .output_error import OutputError, compare

# Enough to keep a CPU busy; few enough for the activations of a large model to fit in memory.
_BATCH = 64


@dataclass(frozen=True)
class Verification:
    """The comparison of a .tflite file with the Keras model that it was made from.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     done = converters.verify(model, file, np.ones((8, 4), "float32"))
    >>> done.samples, done.outputs[0].max_error < 1e-5
    (8, True)

    Attributes:
        path: The file.
        delegate: The delegate that ran the file.
        samples: Number of samples compared.
        outputs: The errors of each output, in Keras' order.
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
        """Raise if an output is further from Keras than allowed.

        A bound on a figure that an output does not have is an error too: it would check nothing.

        Args:
            lsb: Largest allowed `max_lsb`, in steps of the quantized output. Defaults to None, no
                bound.
            max_error: Largest allowed `max_error`. Defaults to None, no bound.
            mean_error: Largest allowed `mean_error`. Defaults to None, no bound.
            snr_below: Smallest allowed `snr_db`, in dB. Defaults to None, no bound.
            cosine_below: Smallest allowed `cosine`. Defaults to None, no bound.
            top1_below: Smallest allowed `top1`, from 0 to 1. Defaults to None, no bound.

        Returns:
            The verification itself.

        Raises:
            VerificationError: An output is beyond a bound; the message names every such output.
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
                # In this form, NaN fails.
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
        """Return plain values; infinities become None, which JSON can hold."""
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
        figures = ["Max error", "Mean error", "Max LSB", "SNR dB", "Cosine", "Top-1"]
        table = new_table(
            ["Output", *figures],
            numbers=figures,
            title=f"{self.path.name} on {self.delegate} against Keras, {self.samples} sample(s)",
        )
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
    """Compare the outputs of a .tflite file with those of its Keras model.

    Keras runs in inference mode and in the precision of the model, the file in a child process.
    Outputs are matched by name.

    >>> import keras, numpy as np, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     found = converters.verify(model, file, np.eye(4, dtype="float32"))
    >>> found.raise_if_above(max_error=1e-6)["y"].top1
    1.0

    Args:
        model: The model that the file was made from.
        path: The file.
        samples: An array (for one input), a dict of arrays by input name, a generator or
            `tf.data.Dataset` of either, or the path of an .npz file. All samples are used.
        delegate: "xnnpack", "reference" or "gpu". Defaults to "xnnpack".
        threads: CPU threads. Defaults to None, the choice of the runtime.

    Returns:
        The errors of each output.

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ModelRefused: The runtime cannot run the file, or died of it.
        ValueError: The samples do not fit the model, or the file was made from another model.
    """
    model = check_built(model)
    call = signature(model)
    arrays = load_samples(samples, call.inputs)
    found = inspect(path)
    count = len(next(iter(arrays.values())))
    with Runner(path, delegate=delegate, threads=threads, isolated=True) as runner:
        _check_inputs(call, runner, found.path)
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


def _check_inputs(call: Signature, runner: Runner, path: Path) -> None:
    wanted, given = {s.name for s in call.inputs}, {info.name for info in runner.inputs}
    if wanted != given:
        raise ValueError(
            f"{path} is not a file of this model: its inputs are {sorted(given)}, the model's are "
            f"{sorted(wanted)}"
        )


def _keras_outputs(call: Signature, arrays: Mapping[str, Array], count: int) -> dict[str, Array]:
    # A model with a fixed batch runs whole batches only.
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
    # Quantized inputs take real numbers.
    real = {
        info.name: filled[info.name].astype("float32") if info.quantized else filled[info.name]
        for info in runner.inputs
    }
    outputs = runner.named(real, batch_size=None if fixed else _BATCH)
    return {name: np.asarray(value)[:count] for name, value in outputs.items()}


def _output_scales(found: Inspection) -> dict[str, float]:
    """Return the step of every quantized output, also of one that the file dequantizes."""
    producers = {node.outputs[0]: node for node in found.nodes if node.op == "DEQUANTIZE"}
    scales = {}
    for name, place in found.signatures[0].outputs.items() if found.signatures else ():
        tensor = found.tensors[place]
        if place in producers:
            tensor = found.tensors[producers[place].inputs[0]]
        if len(tensor.scales) == 1:
            scales[name] = tensor.scales[0]
    return scales
