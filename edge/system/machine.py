"""What a measurement ran on."""

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from ..engines.runtime import runtime


@dataclass(frozen=True)
class Machine:
    """The machine and the software of a measurement.

    Attributes:
        cpu: The processor's name; "with AMX" if XNNPACK's int8 can use that.
        cores: Cores that this process may use.
        os: Operating system, its release, and the architecture.
        python: Version of Python.
        runtime: Name and version of the LiteRT runtime.
        date: When, in ISO 8601, UTC, to the second.
    """

    cpu: str
    cores: int
    os: str
    python: str
    runtime: str
    date: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} core{'s' if self.cores != 1 else ''}, {self.os}, "
            f"Python {self.python}, {self.runtime}, {self.date}"
        )


def machine() -> Machine:
    """Describes this machine, now."""
    found = runtime()
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Machine(
        cpu=cpu_name(_cpuinfo()),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        runtime=f"{found.name} {found.version}",
        date=now.isoformat(),
    )


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def cpu_name(cpuinfo: str) -> str:
    """The processor's name, by what Linux says of it."""
    # A Raspberry Pi names the board under "Model", and its cores not at all.
    lines = cpuinfo.splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (li.partition(":") for li in lines)}
    name = (
        entries.get("model name")
        or entries.get("Model")
        or platform.processor()
        or platform.machine()
        or "unknown"
    )
    # With AMX, XNNPACK's int8 convolutions take as long for 16 output channels as for 64.
    return f"{name} with AMX" if "amx_int8" in entries.get("flags", "").split() else name


def reset_peak_memory() -> bool:
    """Starts the count of the peak memory anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory() -> tuple[int | None, int | None, str]:
    """Reads this process's memory.

    Returns:
        Bytes resident now, bytes resident at the peak since `reset_peak_memory` (or, where that is
        not to be had, since the process began), and how the peak was measured.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {
            key: int(value.split()[0])
            for key, _, value in (line.partition(":") for line in lines)
            if key in ("VmRSS", "VmHWM")
        }
        return kib["VmRSS"] * 1024, kib["VmHWM"] * 1024, "VmHWM"
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:
        return None, None, "not available on this system"
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None, peak, "getrusage, since the process began"
