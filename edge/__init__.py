"""Run .tflite files, measure them, and report.

Needs the standard library, NumPy and a LiteRT runtime, nothing else: this folder also runs on a
Raspberry Pi, and can be copied there.
"""

from .errors import DelegateMismatch, DelegateUnavailable, ModelFileError, ModelRefused
from .runner import Runner
from .tensors import TensorInfo

__all__ = [
    "DelegateMismatch",
    "DelegateUnavailable",
    "ModelFileError",
    "ModelRefused",
    "Runner",
    "TensorInfo",
]
