"""The check that the GPU computes what the CPU computes.

The GPU delegate computes some sequences of ops wrongly without an error, so its outputs are
compared before any latency of it is reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DelegateMismatch
from ..tensors import Array
from .cpu import CpuEngine


@dataclass(frozen=True)
class Tolerance:
    """How far the GPU may lie from XNNPACK.

    Attributes:
        share: Largest difference, as a share of the largest output.
        steps: Largest difference in quantization steps of the output, used instead of the share
            where the output has steps; None for arithmetics without them.
        reason: Why so much, and how much was seen.
    """

    share: float
    steps: float | None
    reason: str


# "Seen" was on small CNNs and on MobileNetV2, with a software Vulkan driver. A wrong result of the
# delegate is off by as much as the output is large, far beyond any of these.
TOLERANCES = {
    "float32": Tolerance(
        1e-4, None, "float32 sums in another order; seen: 1e-6 of the largest output"
    ),
    "float16": Tolerance(
        2e-2, None, "float16 has 11 significant bits, and each layer rounds; seen: 1e-3"
    ),
    "dynamic": Tolerance(
        1e-1, None, "XNNPACK rounds the activations to 8 bits, the GPU does not; seen: 1e-2"
    ),
    "int8": Tolerance(
        5e-2,
        2.0,
        "the GPU emulates integers in float: off by one in the last layer, and by one more where "
        "an earlier layer was; seen: 1 step",
    ),
    "int16": Tolerance(
        1e-3,
        64.0,
        "steps of 16 bits are 256 times finer than those of 8; seen: 0, or plainly wrong",
    ),
}


def compare(
    path: Path,
    cpu: CpuEngine,
    kind: str,
    expected: Mapping[str, Array],
    received: Mapping[str, Array],
    tolerance: float | None = None,
    place: str = "the GPU",
) -> None:
    """Compare the GPU's outputs with the CPU's, or those of another place.

    Args:
        path: The file, for messages.
        cpu: The file on the CPU.
        kind: The arithmetic of the file, a key of `TOLERANCES`.
        expected: The CPU's outputs by name.
        received: The GPU's outputs by name, with the shapes and types of the CPU's.
        tolerance: Largest difference allowed, as a share of the CPU's largest output; None takes
            the one in `TOLERANCES`. Defaults to None.
        place: Where the outputs come from, for the message. Defaults to `"the GPU"`.

    Raises:
        DelegateMismatch: An output differs by more than the tolerance.
    """
    allowed = TOLERANCES[kind]
    for info in cpu.outputs:
        step = info.scale if info.quantized else cpu.output_step(info)
        want = np.asarray(expected[info.name], np.float64)
        got = np.asarray(received[info.name], np.float64)
        if want.size == 0:
            continue
        peak = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
        unit = "absolute"
        if tolerance is not None:
            limit = tolerance * peak
        elif info.dtype.kind in "iub" and not info.quantized:
            limit = 0.0
        elif allowed.steps is not None and step is not None:
            unit = "steps"
            if not info.quantized:
                want, got, peak = want / step, got / step, peak / step
            # A float output is a multiple of the step only up to rounding.
            limit = allowed.steps + 1e-3
        else:
            limit = allowed.share * peak
        with np.errstate(invalid="ignore"):
            error = np.where(np.isfinite(want) & np.isfinite(got), np.abs(want - got), np.inf)
        error[(want == got) | (np.isnan(want) & np.isnan(got))] = 0.0
        off = int(np.count_nonzero(error > limit))
        if off:
            worst = float(error.max())
            word = " output steps" if unit == "steps" else ""
            why = "given by the caller" if tolerance is not None else f"{kind}: {allowed.reason}"
            advice = (
                " The GPU delegate computes some sequences of ops wrongly without an error. Run "
                "this file with delegate='xnnpack'"
                if place == "the GPU"
                else ""
            )
            raise DelegateMismatch(
                f"{path} on {place} differs from XNNPACK on the same inputs: output {info.name!r} "
                f"is off by up to {worst:.4g}{word}, where it peaks at {peak:.4g} and "
                f"{limit:.4g} is tolerated ({why}); {off} of {want.size} values are beyond "
                f"that.{advice}",
                {
                    "output": info.name,
                    "error": worst,
                    "tolerance": limit,
                    "peak": peak,
                    "unit": unit,
                    "off": off,
                    "size": int(want.size),
                },
            )
