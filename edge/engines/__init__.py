"""The runtimes that compute a file: LiteRT on the CPU and on the GPU."""

from . import cpu, gpu  # each registers its delegates

__all__ = ["cpu", "gpu"]
