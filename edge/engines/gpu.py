"""The GPU: LiteRT's CompiledModel."""

import atexit
import ctypes
import dataclasses
import functools
import gc
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DelegateUnavailable, ModelRefused
from ..system.console import attempt, captured
from ..tensors import Array
from .cpu import CpuEngine
from .parity import compare
from .runtime import compiled_model

NO_ADAPTER = (
    "no GPU was found by the WebGPU delegate (No adapters found). With a GPU in this machine, "
    "install its Vulkan driver (NVIDIA: the vendor's driver; Intel and AMD: apt-get install "
    "mesa-vulkan-drivers libvulkan1). To test without a GPU, use a software Vulkan driver: "
    "apt-get install chromium-common, then set "
    "VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json and "
    "LD_LIBRARY_PATH=/usr/lib/chromium before Python starts"
)


@dataclass(frozen=True)
class GpuLog:
    """What the runtime's log says about a compilation for the GPU.

    Attributes:
        adapter: The GPU's name; None where the log does not tell.
        software: Whether the adapter is a CPU that plays a GPU.
        kernels: Partitions that were handed to the GPU.
        unsupported: Op name to the delegate's reason, for ops it leaves to the CPU.
    """

    adapter: str | None = None
    software: bool = False
    kernels: int = 0
    unsupported: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "GpuLog":
        """Reads the log that one compilation wrote."""
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


@dataclass
class _Shared:
    """What all models of this process share.

    The runtime names the adapter once a process, as it compiles the first model.
    """

    environment: Any
    adapter: str | None = None
    software: bool = False


@functools.cache
def _shared() -> _Shared:
    # Kept until Python ends: the environment logs when it goes, and that is held back, too.
    lib = compiled_model()
    options = lib.EnvironmentOptions(runtime_path=str(Path(lib.__file__).parent))
    with captured():
        environment = lib.Environment.create(options=options)
    atexit.register(_forget)
    return _Shared(environment)


def _forget() -> None:
    with captured():
        _shared.cache_clear()
        gc.collect()


@functools.cache
def _silence_the_end() -> None:
    # A buffer's first use makes a second environment, which goes, with a word, when the C library's
    # exit handlers run: after all of Python, so only C can close stderr before its turn comes.
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        libc.__cxa_atexit(libc.close, ctypes.c_void_p(2), None)


class GpuEngine:
    """A loaded file on the GPU; the same four calls as `CpuEngine`.

    It is compiled for the GPU alone. Where that fails because the delegate lacks some ops, it is
    compiled for the GPU with the CPU behind it. A file of which the GPU would take nothing is
    refused, since its latency would be the CPU's under another name.

    float16 files compute in float16; all others in float32, whatever the GPU would prefer.

    Args:
        path: A file that `modelfile.check` accepted.
        threads: Threads of the CPU, for the ops that stay there.
        signature: Name of the signature; None takes the first.
        quiet: Whether the runtime's console output is held back.

    Attributes:
        log: What the runtime said while it compiled.
        complete: Whether the GPU took every op.
        load_ns: Nanoseconds that compiling took.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        signature: str | None = None,
        quiet: bool = True,
    ) -> None:
        self.path = path
        self._quiet = quiet
        self._lib = compiled_model()
        self.cpu = CpuEngine(path, "xnnpack", threads, signature, quiet)
        self.kind = self.cpu.arithmetic()
        self.inputs, self.outputs = self.cpu.inputs, self.cpu.outputs
        _shared()
        start = time.perf_counter_ns()
        self._model, self.log, self.complete = self._compile(threads)
        self.load_ns = time.perf_counter_ns() - start
        key = self.cpu.signature
        self._key = key if key is not None else next(iter(self._model.get_signature_list()))
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._results: dict[str, tuple[int, ...]] = {}
        self._buffers: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self._read: dict[str, Array] = {}
        self._bind()

    def _compile(self, threads: int | None) -> tuple[Any, GpuLog, bool]:
        lib, shared = self._lib, _shared()
        hardware = lib.HardwareAccelerator
        error: Exception | None = None
        for alone in (True, False):
            options = lib.Options(
                hardware.GPU if alone else hardware.GPU | hardware.CPU,
                cpu_options=lib.CpuOptions(num_threads=threads or 1),
                gpu_options=lib.GpuOptions(enforce_f32=self.kind != "float16"),
            )
            load = functools.partial(
                lib.CompiledModel.from_file,
                str(self.path),
                environment=shared.environment,
                options=options,
            )
            model, failed, text = attempt(load)
            error = failed or error
            log = GpuLog.parse(text)
            if log.adapter:
                shared.adapter, shared.software = log.adapter, log.software
            log = dataclasses.replace(log, adapter=shared.adapter, software=shared.software)
            if model is not None and (alone or log.kernels):
                return model, log, alone
            if not (alone and "Some ops are not accelerated" in str(error)):
                break
        if "No adapters found" in text or "Failed to initialize WebGPU" in text:
            raise DelegateUnavailable(f"The GPU delegate is not available: {NO_ADAPTER}")
        raise ModelRefused(
            f"{self.path}: the GPU delegate cannot run this model: {self._why(log, text, error)}"
        )

    def _why(self, log: GpuLog, text: str, error: Exception | None) -> str:
        # The runtime's own explanation, "only supports static-sized tensors", comes once a process.
        if "Failed to modify graph" in str(error):
            dynamic = any(None in info.shape for info in self.inputs)
            return "it takes tensors of fixed size only, and this file computes " + (
                "shapes from that of its inputs. Convert the model with a fixed batch: "
                "convert(..., batch_size=1)"
                if dynamic
                else "the shape of some tensor while it runs"
            )
        if log.unsupported:
            ops = "; ".join(f"{name}: {reason}" for name, reason in sorted(log.unsupported.items()))
            return f"these ops stay on the CPU, and nothing is left for the GPU: {ops}"
        errors = [line for line in text.splitlines() if line.startswith("ERROR")]
        return errors[-1].removeprefix("ERROR:").strip() if errors else str(error)

    def _bind(self) -> None:
        with captured(self._quiet):
            self._buffers = (
                {
                    info.name: self._model.create_input_buffer_by_name(self._key, info.name)
                    for info in self.inputs
                },
                {
                    info.name: self._model.create_output_buffer_by_name(self._key, info.name)
                    for info in self.outputs
                },
            )
            next(iter(self._buffers[1].values())).get_tensor_details()
            _silence_the_end()
        details = self._model.get_input_tensor_details(self._key)
        self._shapes = {name: tuple(details[name]["shape"]) for name in self._buffers[0]}
        details = self._model.get_output_tensor_details(self._key)
        self._results = {name: tuple(details[name]["shape"]) for name in self._buffers[1]}

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Resizes the inputs, where they have another shape than these, by input name."""
        if dict(shapes) == self._shapes:
            return
        self._shapes = {}

        def resize() -> None:
            for name, shape in shapes.items():
                self._model.resize_input_tensor_by_name(self._key, name, list(shape))

        _, error, said = attempt(resize, self._quiet)
        if error is not None:
            raise ModelRefused(
                f"{self.path}: the GPU delegate cannot resize the inputs to {dict(shapes)}: "
                f"{self._why(self.log, said, error)}"
            ) from error
        self._bind()

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copies the inputs in, each with exactly the tensor's type and prepared shape."""
        for name, buffer in self._buffers[0].items():
            try:
                buffer.write(np.ascontiguousarray(arrays[name]))
            except ValueError as error:
                raise ModelRefused(
                    f"{self.path}: the GPU delegate takes no {arrays[name].dtype} input ({name!r})"
                ) from error

    def invoke(self) -> None:
        """Runs the model once and waits for the outputs: until then, a GPU has only been asked."""
        try:
            self._model.run_by_name(self._key, *self._buffers)
        except (RuntimeError, ValueError) as error:
            raise ModelRefused(
                f"{self.path}: running the model on the GPU failed: {error}"
            ) from error
        for info in self.outputs:
            buffer = self._buffers[1][info.name]
            shape = self._results[info.name]
            flat = buffer.read(int(np.prod(shape)), info.dtype.type)
            self._read[info.name] = flat.reshape(shape)

    def read(self) -> dict[str, Array]:
        """The outputs of the last `invoke`, by name, as the file's own types."""
        return dict(self._read)

    def check(self, arrays: Mapping[str, Array], tolerance: float | None = None) -> None:
        """Compares the outputs in `read` with XNNPACK's on the same inputs.

        Args:
            arrays: The inputs that `write` was given.
            tolerance: Largest difference allowed, as a share of the largest output of the CPU; None
                takes the one in `TOLERANCES` for the file's arithmetic.

        Raises:
            DelegateMismatch: They differ beyond the tolerance.
        """
        self.cpu.prepare({name: array.shape for name, array in arrays.items()})
        self.cpu.write(arrays)
        self.cpu.invoke()
        compare(self.path, self.cpu, self.kind, self.cpu.read(), self.read(), tolerance)
