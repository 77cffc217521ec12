"""The machine of a measurement, and the memory of this process."""

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from .runtime import runtime


@dataclass(frozen=True)
class Machine:
    """The machine and the software of a measurement.

    Attributes:
        cpu: The processor's name, with "with AMX" if XNNPACK can use that for int8.
        cores: Number of cores that this process may use.
        os: Operating system, its release, and the architecture.
        python: Version of Python.
        runtime: Name and version of the LiteRT runtime.
        date: When the measurement began, in ISO 8601, UTC, to the second.
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
    """Describe this machine, and the time."""
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
    """Return the processor's name from the text of /proc/cpuinfo."""
    # A Raspberry Pi names the board under "Model", and does not name its cores.
    lines = cpuinfo.splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (li.partition(":") for li in lines)}
    name = (
        entries.get("model name")
        or entries.get("Model")
        or platform.processor()
        or platform.machine()
        or "unknown"
    )
    # With AMX, XNNPACK's int8 convolutions take as long with 16 output channels as with 64.
    return f"{name} with AMX" if "amx_int8" in entries.get("flags", "").split() else name


def reset_peak_memory() -> bool:
    """Set the peak memory to the current one; return False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory() -> tuple[int | None, int | None, str]:
    """Read the memory of this process.

    Returns:
        Bytes resident now; bytes resident at the peak since `reset_peak_memory`, or since the
        process began where the system cannot reset it; and how the peak was measured. None for
        bytes that the system does not tell.
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
