"""What the runtime's log says about a compilation for the GPU."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GpuLog:
    """What the runtime's log says about a compilation for the GPU.

    Attributes:
        adapter: The GPU's name; None where the log does not tell.
        software: Whether the adapter is a GPU that is emulated on the CPU.
        kernels: Number of partitions that were handed to the GPU.
        unsupported: Op name to the delegate's reason, for ops that it leaves to the CPU.
    """

    adapter: str | None = None
    software: bool = False
    kernels: int = 0
    unsupported: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "GpuLog":
        """Read the log of one compilation.

        Args:
            text: What the runtime wrote to the console.

        Returns:
            What the log says; the defaults for all that it does not mention.
        """
        adapter = re.search(r"Selected adapter: (.*?), arch=.*?adapterType=(.*)", text)
        unsupported: dict[str, str] = {}
        found = re.search(r"Following operations are not supported by GPU delegate:\n", text)
        if found:
            for line in text[found.end() :].splitlines():
                entry = re.match(r"([A-Z][A-Z0-9_]*): (.+)", line)
                if not entry or entry[1] in ("INFO", "WARNING", "ERROR"):
                    break
                unsupported.setdefault(entry[1], entry[2])
        return cls(
            adapter=adapter[1] if adapter else None,
            software=bool(adapter and "CPU" in adapter[2]),
            kernels=len(re.findall(r"delegate_kernel\.cc:\d+\] Initializing", text)),
            unsupported=unsupported,
        )
