"""A browser as a target: LiteRT.js in headless Chromium, in a child process of this machine."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..arguments import check_each, check_path, check_text, refuse
from ..errors import raised_by
from ..system import tflite
from ..system.child import Child, ChildFailure, Process, environment
from .answers import parse
from .base import TARGETS, Measurement, Settings

PACKAGE = "node_modules/@litertjs/core"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")


@dataclass(frozen=True)
class PageRun:
    """The answer to "measure".

    Attributes:
        load_ms: Milliseconds to compile the file.
        ms: Milliseconds of each run.
        by: The version of LiteRT.js, the browser, and the GPU if it was used.
        difference: Largest difference of an output from XNNPACK's here, as a share of the largest
            value.
        all: Whether the accelerator took all ops.
        emulated: Whether the GPU is a program.
    """

    load_ms: float
    ms: list[float]
    by: str
    difference: float
    all: bool
    emulated: bool


@dataclass(frozen=True)
class Browser:
    """A browser on this machine: LiteRT.js in headless Chromium, as a web page would run a file.

    The page is served on 127.0.0.1 and reads nothing from elsewhere. A run is timed from the call
    until its outputs can be read in JavaScript. It ran on random inputs, and its outputs are
    compared with XNNPACK's on this machine: a larger difference than 1e-5 of the largest value on
    the CPU, or than `Runner` allows on a GPU, is a refusal. Those of WebAssembly were equal bit for
    bit in float32, float16, int8 and dynamic range.

    Delegates are `"xnnpack"`, which is WebAssembly on the CPU, and `"gpu"`, which is WebGPU. On a
    machine without a GPU, WebGPU runs on a software driver, and the result is called emulated.
    LiteRT.js takes files of fixed sizes, and inputs and outputs of float32, int32 and uint8.

    >>> from tfcompress import edge
    >>> target = edge.Browser("web/node_modules/@litertjs/core")
    >>> target.name, target.delegates
    ('browser', ('xnnpack', 'gpu'))

    Args:
        package: Folder of the npm package `@litertjs/core`, beside that of `@litertjs/wasm-utils`:
            `npm install @litertjs/core` makes both. Defaults to `"node_modules/@litertjs/core"`, in
            the current folder.
        program: The browser, one of the Chromium family; empty takes the first of chromium,
            chromium-browser, google-chrome and microsoft-edge that is installed. Defaults to empty.
        name: The name in results. Defaults to `"browser"`.
        options: More arguments for the browser, such as `("--use-webgpu-adapter=swiftshader",)`.
            Defaults to none.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `name` is empty.
    """

    package: str | os.PathLike[str] = PACKAGE
    program: str = ""
    name: str = "browser"
    options: Sequence[str] = ()
    delegates: ClassVar[tuple[str, ...]] = ("xnnpack", "gpu")

    def __post_init__(self) -> None:
        check_path("package", self.package)
        if not isinstance(self.program, str):
            refuse("program", "a text", self.program, TypeError)
        check_text("name", self.name)
        check_each("options", self.options, str, "a text")
        object.__setattr__(self, "options", tuple(self.options))

    def measure(self, path: Path, settings: Settings) -> Measurement:
        """Run a file in the browser, and compare its outputs.

        Args:
            path: The .tflite file.
            settings: What to measure, and in how many seconds.

        Returns:
            The figures, with the metric `"difference"`.

        Raises:
            ModelRefused: LiteRT.js cannot run the file, or the browser died of it or took too long.
            DelegateMismatch: The outputs are not those of XNNPACK.
            ModelFileError: The file is missing, corrupt, or no .tflite file.
            FileNotFoundError: There is no browser, or no LiteRT.js.
            ImportError: No LiteRT runtime is installed.
        """
        file = tflite.check(path)
        request = {
            "path": os.fspath(file),
            "accelerator": {"xnnpack": "wasm", "gpu": "webgpu"}[settings.delegate],
            "threads": settings.threads or 1,
            "runs": settings.min_runs,
            "seconds": settings.min_seconds,
            "warmup": settings.warmup,
            "package": os.fspath(self._package()),
            "browser": [self._program(), *self.options],
        }
        edge = Path(__file__).resolve().parents[1]
        wait = settings.timeout + settings.min_seconds
        try:
            with Child(
                Process([sys.executable, "-P", edge, "browser_worker"], environment())
            ) as child:
                found = parse(PageRun, "measure", child.request("measure", wait, **request))
        except ChildFailure as failure:
            raise raised_by(failure, file) from failure
        return Measurement(
            by=found.by,
            load_ms=found.load_ms,
            runs=len(found.ms),
            mean_ms=float(np.mean(found.ms)),
            min_ms=min(found.ms),
            std_ms=float(np.std(found.ms)),
            median_ms=float(np.median(found.ms)),
            metrics={
                "difference": found.difference,
                "delegated": "all ops" if found.all else "not all ops",
            },
            emulated=found.emulated,
        )

    def _package(self) -> Path:
        package = Path(self.package).resolve()
        for needed in (package / "dist/index.js", package.parent / "wasm-utils/dist/index.js"):
            if not needed.is_file():
                raise FileNotFoundError(
                    f"There is no LiteRT.js: {needed} is missing. Install it with: npm install "
                    "@litertjs/core, and name its folder, node_modules/@litertjs/core, with "
                    "package= (--on browser:FOLDER)"
                )
        return package

    def _program(self) -> str:
        names = (self.program,) if self.program else PROGRAMS
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            raise FileNotFoundError(
                f"There is no browser: none of {', '.join(names)} is installed. Install one, for "
                "example with: apt-get install chromium"
            )
        return found


TARGETS.add(Browser())
