"""The result of comparing a .tflite file with its model, or with another file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tfcompress.edge.arguments import check_number
from tfcompress.edge.shown import Shown
from tfcompress.model.tables import as_text, new_table

from .errors import VerificationError
from .layer_error import LayerError, layer_table
from .output_error import OutputError


@dataclass(frozen=True)
class Verification(Shown):
    """The comparison of a .tflite file with the Keras model that it was made from, or another file.

    >>> import keras, numpy as np, tempfile
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
        layers: With `by_layer`, the errors of the layers whose outputs are in the file, the worst
            first; else empty.
        against: What the file was compared with. Defaults to "the Keras model".
        notes: What the types in the file mean for its speed on a CPU. Defaults to none.
    """

    path: Path
    delegate: str
    samples: int
    outputs: tuple[OutputError, ...]
    layers: tuple[LayerError, ...] = ()
    against: str = "the Keras model"
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> OutputError:
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(f"{name!r}; the outputs are {[o.name for o in self.outputs]}")

    def raise_if_above(
        self,
        *,
        lsb: float | None = None,
        mean_lsb: float | None = None,
        max_error: float | None = None,
        mean_error: float | None = None,
        snr_below: float | None = None,
        cosine_below: float | None = None,
        top1_below: float | None = None,
        r2_below: float | None = None,
    ) -> Self:
        """Raise if an output is further off than allowed.

        A bound on a figure that an output does not have is an error too: it would check nothing.
        In int8, a single element may be many steps off although the file is sound: a softmax
        multiplies the error of its scores. `mean_lsb`, `top1_below` and `r2_below` are the bounds
        that tell a sound file from a broken one; `lsb` suits an output that nothing multiplies.

        Args:
            lsb: Largest allowed `max_lsb`, in steps of the quantized output. Defaults to None, no
                bound.
            mean_lsb: Largest allowed `mean_lsb`, in steps of the quantized output. Defaults to
                None, no bound.
            max_error: Largest allowed `max_error`. Defaults to None, no bound.
            mean_error: Largest allowed `mean_error`. Defaults to None, no bound.
            snr_below: Smallest allowed `snr_db`, in dB. Defaults to None, no bound.
            cosine_below: Smallest allowed `cosine`. Defaults to None, no bound.
            top1_below: Smallest allowed `top1`, from 0 to 1. Defaults to None, no bound.
            r2_below: Smallest allowed `channel_r2` of any channel, at most 1. Defaults to None, no
                bound.

        Returns:
            The verification itself.

        Raises:
            VerificationError: An output is beyond a bound; the message names every such output.
            ValueError: No bound was given, or an output has no such figure.
        """
        upper = {
            "max_lsb": lsb,
            "mean_lsb": mean_lsb,
            "max_error": max_error,
            "mean_error": mean_error,
        }
        lower = {
            "snr_db": snr_below,
            "cosine": cosine_below,
            "top1": top1_below,
            "worst_r2": r2_below,
        }
        errors = {"lsb": lsb, "mean_lsb": mean_lsb, "max_error": max_error}
        for argument, bound in {**errors, "mean_error": mean_error}.items():
            if bound is not None:
                check_number(argument, bound, 0)
        if snr_below is not None:
            check_number("snr_below", snr_below)
        if cosine_below is not None:
            check_number("cosine_below", cosine_below, -1, 1)
        if top1_below is not None:
            check_number("top1_below", top1_below, 0, 1)
        if r2_below is not None:
            check_number("r2_below", r2_below, most=1)
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
                    place = f", channel {output.worst_channel}" if figure == "worst_r2" else ""
                    failed.append(
                        f"output '{output.name}'{place}: {figure} is {value:.6g}, {word} {bound:g}"
                    )
            if output.nonfinite:
                failed.append(
                    f"output '{output.name}': {output.nonfinite} element(s) are NaN or infinite on "
                    "one side only"
                )
        if failed:
            raise VerificationError(
                f"{self.path} differs from {self.against} over {self.samples} sample(s): "
                + "; ".join(failed)
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; infinities become None, which JSON can hold."""
        outputs, layers = (
            [
                {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row}
                for row in (asdict(error).items() for error in errors)
            ]
            for errors in (self.outputs, self.layers)
        )
        return {
            "path": str(self.path),
            "against": self.against,
            "delegate": self.delegate,
            "samples": self.samples,
            "outputs": outputs,
            "layers": layers,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        steps = ["Max LSB", "Mean LSB"]
        figures = ["Max error", "Mean error", *steps, "SNR dB", "Cosine", "Top-1", "Worst R2"]
        table = new_table(
            ["Output", *figures],
            numbers=figures,
            title=f"{self.path.name} on {self.delegate} against {self.against}, "
            f"{self.samples} sample(s)",
        )
        for o in self.outputs:
            table.add_row(
                o.name,
                f"{o.max_error:.3g}",
                f"{o.mean_error:.3g}",
                "" if o.max_lsb is None else f"{o.max_lsb:.2f}",
                "" if o.mean_lsb is None else f"{o.mean_lsb:.2f}",
                f"{o.snr_db:.1f}",
                f"{o.cosine:.6f}",
                "" if o.top1 is None else f"{o.top1:.1%}",
                "" if o.worst_r2 is None else f"{o.worst_r2:.3f} (channel {o.worst_channel})",
            )
        layers = [layer_table(self.layers)] if self.layers else []
        return as_text(table, *layers, *self.notes, width=120)


def _missing_figure(output: OutputError, figure: str) -> str:
    why = {
        "max_lsb": "it is not quantized; use max_error or snr_below",
        "mean_lsb": "it is not quantized; use mean_error or snr_below",
        "top1": "it has no axis of classes",
        "worst_r2": "none of its channels varies over these samples",
    }[figure]
    return f"Output '{output.name}' has no {figure}: {why}."
