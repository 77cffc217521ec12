"""Run .tflite files, measure them, and report.

Needs the standard library, NumPy and a LiteRT runtime, nothing else: this folder also runs on a
Raspberry Pi, and can be copied there.
"""

from .benchmark import benchmark
from .errors import DelegateMismatch, DelegateUnavailable, ModelFileError, ModelRefused
from .placement import Delegate, Placement, delegates, placement
from .reports.report import Report
from .results import BenchmarkResult
from .runner import Runner
from .tensors import TensorInfo

__all__ = [
    "BenchmarkResult",
    "Delegate",
    "DelegateMismatch",
    "DelegateUnavailable",
    "ModelFileError",
    "ModelRefused",
    "Placement",
    "Report",
    "Runner",
    "TensorInfo",
    "benchmark",
    "delegates",
    "placement",
]
