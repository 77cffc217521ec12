"""The GPU: LiteRT's CompiledModel."""

import atexit
import ctypes
import dataclasses
import functools
import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DelegateUnavailable, ModelRefused
from ..system.console import attempt, captured
from ..system.runtime import compiled_model
from ..system.tflite import PROBE
from ..tensors import Array
from .base import DELEGATES, Availability, Delegate, Placement
from .cpu import CpuEngine, plain_ops
from .gpu_log import GpuLog
from .parity import compare

NO_ADAPTER = (
    "no GPU was found by the WebGPU delegate (No adapters found). With a GPU in this machine, "
    "install its Vulkan driver (NVIDIA: the vendor's driver; Intel and AMD: apt-get install "
    "mesa-vulkan-drivers libvulkan1). To test without a GPU, use a software Vulkan driver: "
    "apt-get install chromium-common, then set "
    "VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json and "
    "LD_LIBRARY_PATH=/usr/lib/chromium before Python starts"
)


@dataclass
class _Shared:
    """What all models of this process share.

    The runtime logs the adapter's name once a process, when it compiles the first model.
    """

    environment: Any
    adapter: str | None = None
    software: bool = False


@functools.cache
def _shared() -> _Shared:
    # Kept until Python ends: the environment logs when it is freed, and `_forget` captures that.
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
    # LiteRT creates a second environment on the first use of a buffer. It logs when the C library's
    # exit handlers run, after all of Python, so another exit handler closes stderr before that.
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        libc.__cxa_atexit(libc.close, ctypes.c_void_p(2), None)


class GpuEngine:
    """A file that LiteRT has compiled for the GPU; see `Engine`.

    The file is compiled for the GPU alone. If that fails because the delegate lacks some ops, the
    file is compiled for the GPU and the CPU together. A file without any op for the GPU is refused,
    since its latency would be the CPU's.

    float16 files compute in float16. All others compute in float32, whatever the GPU would prefer.

    Args:
        path: A file that `tflite.check` accepted.
        threads: Number of CPU threads for the ops that stay on the CPU; None takes one. Defaults to
            None.
        signature: Name of the signature; None takes the first. Defaults to None.
        quiet: Whether to hold the runtime's console output back. Defaults to True.

    Attributes:
        cpu: The engine that runs the file on the CPU.
        kind: The arithmetic of the file, as `ops.arithmetic` names it.
        log: What the runtime logged while it compiled.
        complete: Whether the GPU took every op.
        load_ns: Nanoseconds that compiling took.

    Raises:
        DelegateUnavailable: This machine has no GPU that the runtime can use.
        ModelRefused: The GPU delegate cannot run the file.
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
        self.cpu = CpuEngine(path, threads, signature, quiet)
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
        # The runtime logs its explanation, "only supports static-sized tensors", once a process.
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
        """Resize the inputs to these shapes, by input name, if they have others."""
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
        """Copy the inputs in, each with exactly the tensor's type and prepared shape."""
        for name, buffer in self._buffers[0].items():
            try:
                buffer.write(np.ascontiguousarray(arrays[name]))
            except ValueError as error:
                raise ModelRefused(
                    f"{self.path}: the GPU delegate takes no {arrays[name].dtype} input ({name!r})"
                ) from error

    def invoke(self) -> None:
        """Run the model once and read the outputs back, since a GPU finishes only then."""
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
        """Return the outputs of the last `invoke` by name, in the file's own types."""
        return dict(self._read)

    def compare(self, arrays: Mapping[str, Array], tolerance: float | None = None) -> None:
        """Compare the outputs in `read` with those of XNNPACK on the same inputs.

        Args:
            arrays: The inputs that `write` was given, by name.
            tolerance: Largest difference allowed, as a share of the CPU's largest output; None
                takes the one in `parity.TOLERANCES` for the file's arithmetic. Defaults to None.

        Raises:
            DelegateMismatch: They differ by more than the tolerance.
        """
        self.cpu.prepare({name: array.shape for name, array in arrays.items()})
        self.cpu.write(arrays)
        self.cpu.invoke()
        compare(self.path, self.cpu, self.kind, self.cpu.read(), self.read(), tolerance)

    def placement(self) -> Placement:
        """Tell where the ops of the file run, as far as the runtime's log says it."""
        self.cpu.check_told()
        total = len(plain_ops(self.path))
        log = self.log
        if self.complete:
            # Compiled for the GPU alone: an op that it lacks would have been an error.
            kernels = max(1, log.kernels)
            return Placement("gpu", total, total, kernels, {}, log.adapter, log.software)
        left: dict[str, int | None] = dict.fromkeys(sorted(log.unsupported))
        return Placement("gpu", total, None, log.kernels, left, log.adapter, log.software)


def _available() -> Availability:
    """Run the probe file on the GPU, in this process."""
    log = GpuEngine(PROBE).log
    reason = f"GPU delegate on {log.adapter or 'unnamed'}"
    if log.software:
        reason += ": a software GPU, fit for tests of correctness; its speed means nothing"
    return Availability("gpu", True, reason)


DELEGATES.add(
    Delegate(
        name="gpu",
        label="GPU",
        description="LiteRT's GPU delegate, with the CPU for the ops that it lacks",
        load=GpuEngine,
        available=_available,
        place=GpuEngine.placement,
        compare=GpuEngine.compare,
    )
)
