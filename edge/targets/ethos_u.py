"""An Arm Ethos-U NPU as a target: Vela, Arm's compiler for it, in a child process."""

import csv
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..arguments import check_choice, check_seconds, refuse
from ..engines.base import Placement
from ..errors import ModelRefused
from ..system import tflite
from ..system.child import ChildFailure, environment, exit_text
from ..system.scratch import scratch_folder
from .base import TARGETS, Estimate

ACCELERATORS = (
    "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256",
    "ethos-u65-512", "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024",
    "ethos-u85-2048",
)  # fmt: skip
INSTALL = (
    "Vela is not installed. It is in tfcompress[ethos-u]:\n    pip install 'tfcompress[ethos-u]'"
)
PROGRAM = (
    "import sys; from importlib.metadata import version; from ethosu.vela.vela import main; "
    "print('Vela', version('ethos-u-vela'), flush=True); sys.exit(main(sys.argv[1:]))"
)
REASON = re.compile(r"^Warning \(supported operators\) operator: (\S+?),.*\nReason: (.+)$", re.M)


@dataclass(frozen=True)
class EthosU:
    """An Arm Ethos-U NPU, as Vela estimates it when it compiles a file.

    Vela is Arm's compiler. Its cycles and times are estimates of its own, in its default system
    configuration for the accelerator; Arm advises to measure the compiled file on hardware. An int8
    file that also takes and gives int8 (`Int8(io="int8")`) leaves no conversion to the CPU.

    The metrics are `"NPU"`, the share of ops that it takes, as Vela counts them (it makes several
    ops of one); `"cycles"`; `"SRAM bytes"`; `"flash bytes"`; and `"left on the CPU"`, with reasons.

    >>> from tfcompress import edge
    >>> edge.EthosU("ethos-u55-256").name
    'ethos-u55-256'

    Args:
        accelerator: `"ethos-u55-32"`, `-64`, `-128` or `-256`; `"ethos-u65-256"` or `-512`;
            `"ethos-u85-128"` to `-2048`. The number is that of multiply-accumulates in a cycle.
            Defaults to `"ethos-u55-128"`.
        name: The name in results; empty takes the accelerator. Defaults to empty.

    Raises:
        TypeError: An argument is no text.
        ValueError: There is no such accelerator.
    """

    accelerator: str = "ethos-u55-128"
    name: str = ""

    def __post_init__(self) -> None:
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        if not isinstance(self.name, str):
            refuse("name", "a text", self.name, TypeError)
        object.__setattr__(self, "name", self.name or self.accelerator)

    def estimate(self, path: Path, timeout: float = 120.0) -> Estimate:
        """Compile a file with Vela, in a child process, and read its estimates.

        Args:
            path: The .tflite file.
            timeout: Seconds that the child process gets. Defaults to 120.

        Returns:
            Time, cycles, memory, the share of ops on the NPU, and why others are not.

        Raises:
            ModelRefused: Vela cannot compile the file or died of it, or the NPU takes no op of it.
            ModelFileError: The file is missing, or no .tflite file.
            ImportError: Vela is not installed.
        """
        timeout = check_seconds("timeout", timeout)
        file = tflite.check(path)
        if importlib.util.find_spec("ethosu") is None:
            raise ImportError(INSTALL)
        with scratch_folder() as folder:
            try:
                said = self._compile(file, folder, timeout)
            except ChildFailure as failure:
                raise ModelRefused(f"{file}: {failure.reason}") from failure
            [summary] = folder.glob("*_summary_*.csv")
            with summary.open(newline="") as stream:
                *_, found = csv.DictReader(stream)
        return self._estimate(file, said, found)

    def _compile(self, file: Path, folder: Path, timeout: float) -> str:
        """Run Vela, and return what it said."""
        command = [
            sys.executable, "-P", "-c", PROGRAM, str(file.resolve()), "--output-dir", str(folder),
            "--accelerator-config", self.accelerator, "--show-cpu-operations",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=timeout, cwd=folder, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            said = f"Vela did not end within {timeout:g} s; it was killed"
            raise ChildFailure("timeout", said) from None
        text = done.stdout.decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line and not line.startswith("Warning: No")]
        last = lines[-1].strip()[:300] if lines else "nothing"
        if done.returncode < 0:
            raise ChildFailure("crashed", f"Vela {exit_text(done.returncode)}; it said: {last}")
        if done.returncode or not any(folder.glob("*_summary_*.csv")):
            raise ChildFailure("refused", f"Vela cannot compile it: {last}")
        return text

    def _estimate(self, file: Path, said: str, found: dict[str, str]) -> Estimate:
        counts = {
            kind: int(match[1]) if (match := re.search(rf"{kind} operators = (\d+)", said)) else 0
            for kind in ("CPU", "NPU")
        }
        total = sum(counts.values())
        reasons: dict[str, set[str]] = {}
        for op, why in REASON.findall(said):
            # Without the name of the tensor.
            reasons.setdefault(re.sub(r" \(.*\)$", "", why), set()).add(op)
        left = "; ".join(f"{', '.join(sorted(ops))}: {why}" for why, ops in reasons.items())
        if not counts["NPU"]:
            raise ModelRefused(
                f"{file}: {self.accelerator} takes no op of it. {left or 'Vela gives no reason'}. "
                "It wants integers: converters.Int8(calibration=samples, io='int8')"
            )
        on_cpu = sorted(set[str]().union(*reasons.values()))
        [version] = re.findall(r"^Vela (\S+)$", said, re.M)[:1] or ["of unknown version"]

        def kib(*names: str) -> int:
            return round(1024 * sum(float(found[name]) for name in names))

        metrics: dict[str, float | int | str] = {
            "NPU": f"{counts['NPU'] / total:.0%}",
            "cycles": round(float(found["cycles_total"])),
            "SRAM bytes": kib("sram_memory_used"),
            "flash bytes": kib("on_chip_flash_memory_used", "off_chip_flash_memory_used"),
        }
        if kib("dram_memory_used"):
            metrics["DRAM bytes"] = kib("dram_memory_used")
        if left:
            metrics["left on the CPU"] = left
        clock = float(found["core_clock"]) / 1e6
        return Estimate(
            Placement(self.accelerator, total, counts["NPU"], 1, dict.fromkeys(on_cpu)),
            f"Vela {version}, Arm's compiler: {found['system_config']}, {found['memory_mode']}, "
            f"{clock:g} MHz; the ops on the CPU take no time in it",
            ms=1e3 * float(found["inference_time"]),
            metrics=metrics,
            ops=(*on_cpu, "ethos-u"),
        )


TARGETS.add(EthosU(name="ethos-u"))
