"""The result of a measurement."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arguments import refuse
from .engines.base import Placement
from .system.machine import Machine

Metric = float | int | str


@dataclass(frozen=True)
class BenchmarkResult:
    """One file, measured; or the reason why it could not be.

    A field without a value is None or empty: a file that crashed has a size, but no latency.

    >>> from tfcompress import edge
    >>> result = edge.BenchmarkResult("int8", "int8.tflite", "xnnpack", median_ms=1.5)
    >>> result.ok, result.median_ms, result.peak_memory_bytes
    (True, 1.5, None)

    Attributes:
        name: The name in a report.
        path: The file.
        delegate: The delegate that was asked for, or the name of a target that estimates;
            `placement` says what really ran.
        status: `"ok"`; `"refused"` (the file is no model, the delegate cannot run it, or the GPU's
            outputs were wrong); `"crashed"`; `"timeout"`; `"error"`.
        reason: Why the status is not `"ok"`; empty if it is.
        threads: Number of CPU threads that was asked for; None is the runtime's default, one.
        bytes: Size of the file as it ships.
        gzip_bytes: Size of the file after gzip.
        placement: Which ops ran where.
        load_ms: Milliseconds to construct the interpreter and allocate its tensors.
        min_ms: Fastest run, in milliseconds.
        p10_ms: 10th percentile of all runs, in milliseconds.
        median_ms: Median of all runs, in milliseconds.
        p90_ms: 90th percentile of all runs, in milliseconds.
        p99_ms: 99th percentile of all runs, in milliseconds.
        mean_ms: Mean of all runs, in milliseconds.
        std_ms: Standard deviation of all runs, in milliseconds.
        runs: Number of runs measured, without the warm-up.
        speedup: How many times faster than the first file of the measurement: the median over
            rounds of that file's median latency divided by this one's. 1.0 for the first file.
        speedup_p10: 10th percentile of that ratio over the rounds.
        speedup_p90: 90th percentile of that ratio over the rounds.
        speedup_over: Name of that first file.
        peak_memory_bytes: Resident bytes of the whole process at the peak, Python included.
        base_memory_bytes: Resident bytes of the process before it loaded the file.
        memory_method: How the peak was measured.
        input_shapes: Shape of each input in the runs.
        machine: The machine that the file ran on.
        emulated: Whether an emulator or a software GPU ran the file, so that its latency means
            nothing.
        metrics: What others know about the file: accuracy, zeros, parity, ...
        target: Name of the target that the file ran on.
        estimated_by: The program that the figures come from, where no device ran the file; empty
            for figures that were measured.
        measured_by: The program and the device that measured, where it was not this package's
            worker; empty if it was.
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
    target: str = "local"
    estimated_by: str = ""
    measured_by: str = ""

    @property
    def ok(self) -> bool:
        """Return whether the file was measured."""
        return self.status == "ok"

    def with_metrics(self, **metrics: Metric) -> "BenchmarkResult":
        """Return a copy with metrics that were found elsewhere.

        >>> from tfcompress import edge
        >>> result = edge.BenchmarkResult("int8", "int8.tflite", "xnnpack")
        >>> result.with_metrics(accuracy=0.98, zeros=0.8).metrics
        {'accuracy': 0.98, 'zeros': 0.8}

        Args:
            **metrics: Numbers or texts by name. `Report` shows `accuracy` and `zeros` (shares from
                0 to 1) as percentages, and any other under its own name.

        Returns:
            A new result, with the old metrics and these.
        """
        plain = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in metrics.items()
        }
        for name, value in plain.items():
            if not isinstance(value, str | int | float):
                refuse(name, "a number or a text", value, TypeError)
        return dataclasses.replace(self, metrics={**self.metrics, **plain})

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dicts, lists, numbers and texts."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BenchmarkResult":
        """Build a result from what `to_dict` returned.

        Args:
            data: The dict. Fields that an older version did not have take their defaults.

        Returns:
            An equal result.

        Raises:
            ValueError: The dict has a field that this version does not know, or lacks one.
        """
        if not isinstance(data, Mapping):
            refuse("data", "a dict that `to_dict` returned", data, TypeError)
        fields = dict(data)
        unknown = sorted(set(fields) - {item.name for item in dataclasses.fields(cls)})
        missing = sorted({"name", "path", "delegate"} - set(fields))
        if unknown or missing:
            raise ValueError(
                f"The data are no benchmark result: unknown {unknown}, missing {missing}"
            )
        if fields.get("placement") is not None:
            fields["placement"] = Placement(**fields["placement"])
        if fields.get("machine") is not None:
            fields["machine"] = Machine(**fields["machine"])
        return cls(**fields)
