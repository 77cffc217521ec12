"""Run .tflite files, measure them, and report.

Needs the standard library, NumPy and a LiteRT runtime, nothing else: this folder also runs on a
Raspberry Pi, and can be copied there.
"""

from .benchmark import benchmark
from .engines.base import Availability, Placement
from .errors import DelegateMismatch, DelegateUnavailable, ModelFileError, ModelRefused
from .evaluation import evaluate
from .generation.generator import Generator
from .generation.perplexity import perplexity
from .placement import delegates, placement
from .profiling import OpTime, Profile, profile
from .reports.report import Report
from .results import BenchmarkResult
from .runner import Runner
from .system.child import Child, Process
from .targets.adb import Adb
from .targets.base import (
    Estimate,
    Estimator,
    Measurement,
    Measurer,
    Session,
    Settings,
    Target,
    register_target,
)
from .targets.browser import Browser
from .targets.ethos_u import EthosU
from .targets.local import Local
from .targets.microcontroller import Microcontroller
from .targets.ssh import Ssh
from .tensors import TensorInfo

__all__ = [
    "Adb",
    "Availability",
    "BenchmarkResult",
    "Browser",
    "Child",
    "DelegateMismatch",
    "DelegateUnavailable",
    "Estimate",
    "Estimator",
    "EthosU",
    "Generator",
    "Local",
    "Measurement",
    "Measurer",
    "Microcontroller",
    "ModelFileError",
    "ModelRefused",
    "OpTime",
    "Placement",
    "Process",
    "Profile",
    "Report",
    "Runner",
    "Session",
    "Settings",
    "Ssh",
    "Target",
    "TensorInfo",
    "benchmark",
    "delegates",
    "evaluate",
    "perplexity",
    "placement",
    "profile",
    "register_target",
]
