"""The installed LiteRT runtime: ai-edge-litert, else tflite-runtime."""

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from ..errors import DelegateUnavailable

_MISSING = (
    "No LiteRT runtime is installed. Install one with\n"
    "    pip install ai-edge-litert\n"
    "or, on a 32-bit Raspberry Pi OS, where ai-edge-litert has no wheel, with\n"
    "    pip install tflite-runtime 'numpy<2'"
)


@dataclass(frozen=True)
class Runtime:
    """The installed runtime.

    Attributes:
        name: `"ai-edge-litert"` or `"tflite-runtime"`.
        version: Its version.
        interpreter: The module that holds `Interpreter` and `OpResolverType`.
    """

    name: str
    version: str
    interpreter: Any


@functools.cache
def runtime() -> Runtime:
    """Import the LiteRT runtime of this environment.

    >>> from tfcompress.edge.system.runtime import runtime
    >>> runtime().name
    'ai-edge-litert'

    Returns:
        ai-edge-litert if it is installed, else tflite-runtime.

    Raises:
        ImportError: Neither is installed; the message says what to install.
    """
    for name, module in (
        ("ai-edge-litert", "ai_edge_litert.interpreter"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
    ):
        try:
            interpreter = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
                raise
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a nightly, or built from source
            version = "of unknown version"
        return Runtime(name, version, interpreter)
    raise ImportError(_MISSING)


def compiled_model() -> Any:
    """Import LiteRT's CompiledModel API, the only one with a GPU delegate in Python.

    Only the GPU engine may call this. A CompiledModel loads a WebGPU library that aborts the
    process on cores without LSE atomics (Raspberry Pi 3 and 4).

    Returns:
        The module `ai_edge_litert.compiled_model`.

    Raises:
        DelegateUnavailable: The installed runtime has no such API.
    """
    found = runtime()
    if found.name != "ai-edge-litert":
        raise DelegateUnavailable(
            f"{found.name} {found.version} has no GPU delegate: pip install ai-edge-litert"
        )
    try:
        return importlib.import_module("ai_edge_litert.compiled_model")
    except ImportError as error:
        raise DelegateUnavailable(
            f"ai-edge-litert {found.version} cannot load its GPU delegate: {error}. "
            "Install a newer one: pip install -U ai-edge-litert"
        ) from error
