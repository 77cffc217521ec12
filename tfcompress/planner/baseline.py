"""The original, measured before anything else: as the float32 file that it is without us."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras

from tfcompress.converters.conversion import convert
from tfcompress.converters.output_error import compare
from tfcompress.converters.outputs import keras_outputs
from tfcompress.converters.precisions.float32 import Float32
from tfcompress.model.samples import Array
from tfcompress.model.signature import signature

from .data import Examples
from .estimates import Few, few_of
from .measure import Device, outputs_of
from .metrics import Metric, accuracy, constant
from .target import Figures

__all__ = ["Baseline", "batch_of", "measure_baseline"]

_SAMPLES = 256
_LEAST_SNR = 40.0
"""In dB. Files in float32 have 100 and more, and below 40 one digit in a hundred changes."""


@dataclass(frozen=True)
class Baseline:
    """The original as a float32 file.

    Attributes:
        file: The file.
        figures: What was measured of it.
        chance: Metric of a constant output; None if it has none.
        few: Some of the validation data, to judge untrained files by; None if all of them do.
    """

    file: Path
    figures: Figures
    chance: float | None
    few: Few | None = None


def batch_of(model: keras.Model) -> int | None:
    """Return the batch size to convert with: one sample at a time, unless the model fixes it."""
    fixed = signature(model).inputs[0].shape[0]
    return 1 if fixed is None else None


def measure_baseline(
    model: keras.Model, examples: Examples, metric: Metric, device: Device, path: Path
) -> Baseline:
    """Convert and measure the original, and refuse one that no compression can be judged by.

    Args:
        model: The original.
        examples: The validation data.
        metric: The metric.
        device: What latencies are measured on.
        path: Where to write the file.

    Returns:
        The baseline.

    Raises:
        ValueError: The file gives other outputs than Keras; the metric is no number, or no better
            than that of a constant output.
        ModelRefused: The file cannot be run here or on the device.
        ConversionError: The model cannot be converted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is wrong is said below, with figures
        convert(model, path, Float32(), batch_size=batch_of(model))
    outputs = outputs_of(path, examples.x, "xnnpack")
    _check_same(model, examples, outputs)
    value = metric(outputs, examples.y)
    chance = constant(metric, outputs, examples.y)
    _check_learned(model, metric, value, chance, len(examples))
    milliseconds, _ = device.latency(path, path, examples.first())
    figures = Figures(path.stat().st_size, value, milliseconds, 1.0)
    return Baseline(path, figures, chance, few_of(examples, outputs, metric))


def _check_same(model: keras.Model, examples: Examples, outputs: dict[str, Array]) -> None:
    few = {name: array[:_SAMPLES] for name, array in examples.x.items()}
    expected = keras_outputs(signature(model), few)
    for name, ours in expected.items():
        if not all(map(math.isfinite, (float(ours.min()), float(ours.max())))):
            raise ValueError(
                f"Output '{name}' of model {model.name!r} holds NaN or infinity on the validation "
                "data: training has probably diverged. Go back to an earlier checkpoint."
            )
        found = compare(name, ours, outputs[name][:_SAMPLES], None)
        if found.snr_db < _LEAST_SNR:
            raise ValueError(
                f"The float32 file of model {model.name!r} does not compute what Keras does: "
                f"output '{name}' differs by up to {found.max_error:.3g}, a signal-to-noise ratio "
                f"of {found.snr_db:.0f} dB, where rounding leaves 100 dB or more. Find the layer "
                "with converters.verify(model, file, samples, by_layer=True)."
            )


def _check_learned(
    model: keras.Model, metric: Metric, value: float, chance: float | None, count: int
) -> None:
    if chance is None:
        return
    margin = math.sqrt(chance * (1 - chance) / count) if metric.function is accuracy else 0.0
    better = value > chance + margin if metric.higher_is_better else value < chance - margin
    if not better:
        raise ValueError(
            f"Model {model.name!r} knows no more than chance: its {metric.name} over {count} "
            f"validation samples is {metric.text(value)}, and a constant output has "
            f"{metric.text(chance)}. Check that the samples are scaled as in training and that the "
            "targets fit the outputs. A model with BatchNormalization that trained for a few steps "
            "only may know much in training mode and nothing in inference: train it on."
        )
