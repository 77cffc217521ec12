"""Run .tflite files, measure them, and report.

Needs the standard library, NumPy and a LiteRT runtime, nothing else: this folder also runs on a
Raspberry Pi, and can be copied there.
"""

from .benchmark import benchmark
from .delegates import Delegate, Placement, delegates, placement
from .errors import DelegateMismatch, DelegateUnavailable, ModelFileError, ModelRefused
from .report import Report
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
