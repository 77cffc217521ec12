"""What a measurement found."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .placement import Placement
from .system.machine import Machine

Metric = float | int | str


@dataclass(frozen=True)
class BenchmarkResult:
    """One file, measured; or the reason why it could not be.

    Everything after `reason` that has no value is None (or empty): a file that crashed has a size,
    but no latency.

    Attributes:
        name: What a report calls it.
        path: The file.
        delegate: The delegate that was asked for; see `placement` for what really ran.
        status: `"ok"`; `"refused"` (no model, or the delegate cannot run it, or the GPU's outputs
            were wrong); `"crashed"`; `"timeout"`; `"error"`.
        reason: Why it is not `"ok"`; empty if it is.
        threads: Threads that were asked for; None is the runtime's default, one.
        bytes: Size of the file as it ships.
        gzip_bytes: Size after `gzip -9`.
        placement: What ran where.
        load_ms: Milliseconds to construct the interpreter and allocate its tensors.
        min_ms: Fastest run, in milliseconds.
        p10_ms: 10th percentile of all runs.
        median_ms: Median of all runs.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        mean_ms: Mean.
        std_ms: Standard deviation.
        runs: Runs measured, without the warm-up.
        speedup: How many times faster than the first file of the measurement: the median over
            rounds of that file's median latency divided by this one's. 1.0 for itself.
        speedup_p10: 10th percentile of that ratio over the rounds.
        speedup_p90: 90th percentile.
        peak_memory_bytes: Resident bytes of the whole process at the peak, Python included.
        base_memory_bytes: Resident bytes of the process before it loaded the file.
        memory_method: How the peak was measured.
        speedup_over: Name of that first file.
        input_shapes: Shape of each input in the runs.
        machine: What it ran on.
        emulated: Whether the latency is an emulator's, or a software GPU's, and so means nothing.
        metrics: What others know about the file: accuracy, zeros, parity, ...
    """

    name: str
    path: str
    delegate: str
    status: str = "ok"
    reason: str = ""
    threads: int | None = None
    bytes: int | None = None
    gzip_bytes: int | None = None
    placement: Placement | None = None
    load_ms: float | None = None
    min_ms: float | None = None
    p10_ms: float | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    std_ms: float | None = None
    runs: int = 0
    speedup: float | None = None
    speedup_p10: float | None = None
    speedup_p90: float | None = None
    speedup_over: str = ""
    peak_memory_bytes: int | None = None
    base_memory_bytes: int | None = None
    memory_method: str = ""
    input_shapes: dict[str, list[int]] = field(default_factory=dict)
    machine: Machine | None = None
    emulated: bool = False
    metrics: dict[str, Metric] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    def with_metrics(self, **metrics: Metric) -> "BenchmarkResult":
        """Adds what is known about the file from elsewhere.

        >>> from tfcompress import edge
        >>> result = edge.BenchmarkResult("int8", "int8.tflite", "xnnpack")
        >>> result.with_metrics(accuracy=0.98, zeros=0.8).metrics
        {'accuracy': 0.98, 'zeros': 0.8}

        Args:
            **metrics: Numbers or texts by name. `Report` shows `accuracy` and `zeros` (shares from
                0 to 1) as percentages, and any other under its own name.

        Returns:
            A new result.
        """
        plain = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in metrics.items()
        }
        return dataclasses.replace(self, metrics={**self.metrics, **plain})

    def to_dict(self) -> dict[str, Any]:
        """Turns the result into plain dicts, lists, numbers and texts."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BenchmarkResult":
        """Builds a result from what `to_dict` gave.

        Args:
            data: The dict.

        Returns:
            An equal result.

        Raises:
            ValueError: The dict has a field that this version does not know, or lacks one.
        """
        fields = dict(data)
        unknown = sorted(set(fields) - {item.name for item in dataclasses.fields(cls)})
        missing = sorted({"name", "path", "delegate"} - set(fields))
        if unknown or missing:
            raise ValueError(f"Not a benchmark result: unknown {unknown}, missing {missing}")
        if fields.get("placement") is not None:
            fields["placement"] = Placement(**fields["placement"])
        if fields.get("machine") is not None:
            fields["machine"] = Machine(**fields["machine"])
        return cls(**fields)
