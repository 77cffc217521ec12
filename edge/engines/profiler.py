"""LiteRT's own profiler, which its Python package leaves out, through its library's C functions.

Structures and signatures are those of LiteRT 2.3: https://github.com/google-ai-edge/LiteRT,
litert/c/litert_profiler_event.h, litert_compiled_model.h and litert_tensor_buffer.h.
"""

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DelegateUnavailable, ModelRefused
from ..system.runtime import runtime
from ..tensors import Array

CPU = 1
WRITE = 1
OPERATOR, DELEGATE_OPERATOR = 2, 8  # ops of the built-in kernels; those inside of a delegate

_POINTER = ctypes.c_void_p
_REF = ctypes.byref
_Deallocator = ctypes.CFUNCTYPE(None, _POINTER)


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("metadata", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32),  # in its lowest seven bits
        ("sizes", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _Type(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int32), ("layout", _Layout))


class Profiler:
    """A file on the CPU, with LiteRT's profiler; for a child process, which its end frees.

    Args:
        path: A file that `tflite.check` accepted.
        inputs: An array of the file's own type for each input of the first signature, by name.

    Raises:
        DelegateUnavailable: The installed runtime has no such library.
        ModelRefused: The runtime cannot load the file.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Array]) -> None:
        self._path = path
        self._library = _load()
        environment, model = _POINTER(), _POINTER()
        self._call("CreateEnvironment", 0, None, _REF(environment))
        self._call("CreateModelFromFile", environment, str(path).encode(), _REF(model))
        options, opaque = _POINTER(), _POINTER()
        self._call("CreateOptions", _REF(options))
        self._call("SetOptionsHardwareAccelerators", options, CPU)
        self._kept: list[Any] = [
            ctypes.create_string_buffer(b"enable_profiling = true\n"),
            _Deallocator(lambda _: None),
        ]
        self._call(
            "CreateOpaqueOptions", b"runtime_options_string",
            ctypes.cast(self._kept[0], _POINTER), self._kept[1], _REF(opaque),
        )  # fmt: skip
        self._call("AddOpaqueOptions", options, opaque)
        self._compiled, self._signature = _POINTER(), _POINTER()
        self._call("CreateCompiledModel", environment, model, options, _REF(self._compiled))
        self._call("GetModelSignature", model, ctypes.c_size_t(0), _REF(self._signature))
        self._inputs = self._buffers("Input", environment, inputs)
        self._outputs = self._buffers("Output", environment, {})

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a C function, and raise if its status is not 0."""
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise ModelRefused(
                f"{self._path}: {runtime().name} {runtime().version} cannot profile it: "
                f"LiteRt{name} answered {status}"
            )

    def _buffers(self, side: str, environment: Any, arrays: Mapping[str, Array]) -> Any:
        """Make a buffer for each input or output, and fill those of the inputs."""
        number = ctypes.c_size_t()
        self._call(f"GetNumSignature{side}s", self._signature, _REF(number))
        count = number.value
        if side == "Input":
            layouts = [self._resized(place, arrays) for place in range(count)]
        else:
            found = (_Layout * count)()
            self._call(
                "GetCompiledModelOutputTensorLayouts", self._compiled, ctypes.c_size_t(0),
                ctypes.c_size_t(count), found, ctypes.c_bool(True),
            )  # fmt: skip
            layouts = list(found)
        buffers = (_POINTER * count)()
        for place, layout in enumerate(layouts):
            kind = self._type(side, place)
            kind.layout = layout
            needs, buffer = _POINTER(), _POINTER()
            at = (ctypes.c_size_t(0), ctypes.c_size_t(place))
            self._call(
                f"GetCompiledModel{side}BufferRequirements", self._compiled, *at, _REF(needs)
            )
            self._call(
                "CreateManagedTensorBufferFromRequirements", environment, _REF(kind), needs,
                _REF(buffer),
            )  # fmt: skip
            if side == "Input":
                self._fill(buffer, arrays[self._name(place)])
            buffers[place] = buffer.value
        return buffers

    def _name(self, place: int) -> str:
        name = ctypes.c_char_p()
        self._call("GetSignatureInputName", self._signature, ctypes.c_size_t(place), _REF(name))
        return (name.value or b"").decode()

    def _type(self, side: str, place: int) -> _Type:
        tensor, kind = _POINTER(), _Type()
        at = ctypes.c_size_t(place)
        self._call(f"GetSignature{side}TensorByIndex", self._signature, at, _REF(tensor))
        self._call("GetRankedTensorType", tensor, _REF(kind))
        return kind

    def _resized(self, place: int, arrays: Mapping[str, Array]) -> _Layout:
        """Give an input the shape of its array, if it has another one."""
        shape = arrays[self._name(place)].shape
        layout: _Layout = self._type("Input", place).layout
        if tuple(layout.sizes[: len(shape)]) != shape:
            sizes = (ctypes.c_int * len(shape))(*shape)
            self._call(
                "CompiledModelResizeInputTensorNonStrict", self._compiled, ctypes.c_size_t(0),
                ctypes.c_size_t(place), sizes, ctypes.c_size_t(len(shape)),
            )  # fmt: skip
            layout.sizes[: len(shape)] = shape
        return layout

    def _fill(self, buffer: Any, array: Array) -> None:
        memory = _POINTER()
        self._call("LockTensorBuffer", buffer, _REF(memory), WRITE)
        content = array.tobytes()
        ctypes.memmove(memory, content, len(content))
        self._call("UnlockTensorBuffer", buffer)

    def _run(self) -> None:
        self._call(
            "RunCompiledModel", self._compiled, ctypes.c_size_t(0),
            ctypes.c_size_t(len(self._inputs)), self._inputs,
            ctypes.c_size_t(len(self._outputs)), self._outputs,
        )  # fmt: skip

    def runs(self, count: int, warmup: int) -> Iterator[list[tuple[str, str, int]]]:
        """Run the file, and yield name, kernels and microseconds of each op of each run."""
        profiler, number = _POINTER(), ctypes.c_int()
        for _ in range(warmup):
            self._run()
        self._call("CompiledModelGetProfiler", self._compiled, _REF(profiler))
        for _ in range(count):
            self._call("ResetProfiler", profiler)
            self._call("StartProfiler", profiler)
            self._run()
            self._call("StopProfiler", profiler)
            self._call("GetNumProfilerEvents", profiler, _REF(number))
            found = (_Event * number.value)()
            self._call("GetProfilerEvents", profiler, number, found)
            yield [
                (
                    (event.tag or b"").decode("utf-8", "replace"),
                    "XNNPACK" if event.kind == DELEGATE_OPERATOR else "built-in",
                    int(event.elapsed_us),
                )
                for event in found
                if event.kind == DELEGATE_OPERATOR
                or (event.kind == OPERATOR and b"Delegate" not in (event.tag or b""))
            ]


def _load() -> ctypes.CDLL:
    found = runtime()
    library = Path(found.interpreter.__file__).with_name("libLiteRt.so")
    if not library.exists():
        raise DelegateUnavailable(
            f"{found.name} {found.version} has no profiler: pip install ai-edge-litert"
        )
    return ctypes.CDLL(str(library))
