"""Measure a .tflite file: its outputs, and its latency beside the original's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfcompress import edge
from tfcompress.converters.file_outputs import runner_outputs
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.model.samples import Array

__all__ = ["Device", "outputs_of"]

_BATCH = 64
_RUNS, _SECONDS = 30, 0.3


@dataclass(frozen=True)
class Device:
    """What latencies are measured on.

    Attributes:
        target: The machine.
        delegate: What runs the ops.
        threads: Number of CPU threads; None for the runtime's default, one.
    """

    target: edge.Target
    delegate: str = "xnnpack"
    threads: int | None = None

    @property
    def here(self) -> str:
        """Return the delegate that gives outputs on this machine.

        A machine elsewhere may have delegates that this one lacks; their results are the CPU's.
        """
        return self.delegate if DELEGATES.get(self.delegate).available().available else "xnnpack"

    def latency(
        self, path: Path, original: Path, sample: Mapping[str, Array]
    ) -> tuple[float, float]:
        """Return the median time of one run in milliseconds, and as a share of the original's.

        Args:
            path: The file.
            original: The file to compare with, which takes turns with it.
            sample: One sample by input name.

        Raises:
            ModelRefused: The device cannot run the file.
        """
        files = [original] if path == original else [original, path]
        results = edge.benchmark(
            files,
            self.delegate,
            self.threads,
            min_runs=_RUNS,
            min_seconds=_SECONDS,
            inputs=dict(sample),
            target=self.target,
        )
        for result in results:
            if not result.ok:
                which = "the original" if result is results[0] else "the file"
                raise edge.ModelRefused(
                    f"{which} could not be measured on {self.target.name!r}: {result.status}: "
                    f"{result.reason}"
                )
        last = results[-1]
        return float(last.median_ms or 0.0), 1 / float(last.speedup or 1.0)


def outputs_of(path: Path, x: Mapping[str, Array], delegate: str) -> dict[str, Array]:
    """Run a file on samples, in a child process of this machine.

    Args:
        path: The file.
        x: Samples by input name.
        delegate: What runs the ops.

    Returns:
        The outputs by name, with as many rows as there are samples.

    Raises:
        ModelRefused: The runtime cannot run the file, or died of it.
    """
    with edge.Runner(path, delegate, isolated=True) as runner:
        return runner_outputs(runner, x, _BATCH)
