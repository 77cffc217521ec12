"""The CPU: LiteRT's Interpreter, with XNNPACK or with the reference kernels."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFileError, ModelRefused
from ..system.console import attempt
from ..tensors import Array, TensorInfo, natural_order
from .runtime import runtime

# "reference": LiteRT's BuiltinRefOpResolver, plain C++ kernels without delegates, slow, and the
# definition of what an op computes. "none", for `placement`: optimized kernels without delegates.
_RESOLVERS = {
    "xnnpack": "BUILTIN",
    "reference": "BUILTIN_REF",
    "none": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}

MAC_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D",
           "CONV_3D_TRANSPOSE", "BATCH_MATMUL")  # fmt: skip


class CpuEngine:
    """A loaded file on the CPU: `prepare` shapes, `write` inputs, `invoke`, `read` outputs.

    Args:
        path: A file that `modelfile.check` accepted.
        delegate: `"xnnpack"`, `"reference"` or `"none"`.
        threads: Threads, or None for the runtime's default, which is one.
        signature: Name of the signature; None takes the first.
        quiet: Whether the runtime's console output is held back.

    Attributes:
        load_ns: Nanoseconds that loading and allocating took.
    """

    def __init__(
        self,
        path: Path,
        delegate: str = "xnnpack",
        threads: int | None = None,
        signature: str | None = None,
        quiet: bool = True,
    ) -> None:
        self.path = path
        self._quiet = quiet
        module = runtime().interpreter
        resolver = getattr(module.OpResolverType, _RESOLVERS[delegate])
        start = time.perf_counter_ns()
        self.interpreter, error, said = attempt(
            lambda: module.Interpreter(
                model_path=str(path),
                num_threads=threads,
                experimental_op_resolver_type=resolver,
            ),
            quiet,
        )
        if error is not None:
            raise _loading_failed(path, error, said) from error
        # SignatureRunner's own calls: they take a subgraph, where Interpreter's know only the first
        # one, and they keep the inputs' copying out of what `invoke` takes.
        self._calls: Any = self.interpreter._interpreter
        self.signature, ins, outs = self._find(signature)
        self._subgraph = (
            self._calls.GetSubgraphIndexFromSignature(self.signature) if self.signature else 0
        )
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._fresh = True
        self._allocate()
        self.load_ns = time.perf_counter_ns() - start
        self.inputs = self._infos(ins)
        self.outputs = self._infos(outs)
        self._shapes = {
            info.name: tuple(1 if size is None else size for size in info.shape)
            for info in self.inputs
        }

    def _find(self, signature: str | None) -> tuple[str | None, dict[str, int], dict[str, int]]:
        signatures = self.interpreter._get_full_signature_list()
        if signature is not None and signature not in signatures:
            raise ValueError(
                f"{self.path} has no signature {signature!r}. It has: {sorted(signatures)}"
            )
        if not signatures:
            ins = {item["name"]: item["index"] for item in self.interpreter.get_input_details()}
            outs = {item["name"]: item["index"] for item in self.interpreter.get_output_details()}
            return None, ins, outs
        name = signature if signature is not None else next(iter(signatures))
        chosen = signatures[name]

        # The order in the file is that of a hash map; the only one that lasts is by name.
        def ordered(indices: dict[str, int]) -> dict[str, int]:
            return {key: indices[key] for key in sorted(indices, key=natural_order)}

        return name, ordered(chosen["inputs"]), ordered(chosen["outputs"])

    def details(self, index: int) -> dict[str, Any]:
        """The runtime's description of one tensor of this signature's subgraph."""
        found: dict[str, Any] = self.interpreter._get_tensor_details(int(index), self._subgraph)
        return found

    def _infos(self, indices: Mapping[str, int]) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo.from_details(name, self.details(index)) for name, index in indices.items()
        )

    def _allocate(self) -> None:
        _, error, said = attempt(lambda: self._calls.AllocateTensors(self._subgraph), self._quiet)
        if error is not None:
            raise ModelRefused(
                f"{self.path}: {runtime().name} {runtime().version} cannot prepare this model: "
                f"{_last_line(error, said)}"
            ) from error
        self._fresh = True

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Resizes the inputs, where they have another shape than these, by input name."""
        if dict(shapes) == self._shapes:
            return
        for info in self.inputs:
            self._calls.ResizeInputTensor(
                info.index, np.array(shapes[info.name], np.int32), False, self._subgraph
            )
        # Forgotten first: after a failure the next call must resize again.
        self._shapes = {}
        self._allocate()
        self._shapes = dict(shapes)

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copies the inputs in, each with exactly the tensor's type and prepared shape."""
        for info in self.inputs:
            self._calls.SetTensor(info.index, arrays[info.name], self._subgraph)

    def invoke(self) -> None:
        """Runs the model once."""
        error: Exception | None = None
        said = ""
        if self._fresh:
            # The first run after an allocation is when delegates still have something to say.
            _, error, said = attempt(lambda: self._calls.Invoke(self._subgraph), self._quiet)
        else:
            # What is measured: nothing around the call.
            try:
                self._calls.Invoke(self._subgraph)
            except (ValueError, RuntimeError) as raised:
                error = raised
        if error is not None:
            raise ModelRefused(
                f"{self.path}: running the model failed: {_last_line(error, said)}"
            ) from error
        self._fresh = False

    def read(self) -> dict[str, Array]:
        """Copies the outputs out, by name, as the file's own types."""
        return {
            info.name: self._calls.GetTensor(info.index, self._subgraph) for info in self.outputs
        }

    def ops(self) -> list[dict[str, Any]]:
        """The nodes of the first subgraph: the file's, then one DELEGATE for each partition."""
        found: list[dict[str, Any]] = self.interpreter._get_ops_details()
        return found

    def arithmetic(self) -> str:
        """How the file computes, which is how far a GPU's result may lie from the CPU's.

        Returns:
            `"float32"`, `"float16"`, `"dynamic"` (8-bit weights, float activations), `"int8"` or
            `"int16"` (the activations).
        """
        kinds: set[str] = set()
        halves = False
        for op in self.ops():
            types = [np.dtype(kind) for kind in op["operand_types"]]
            if op["op_name"] == "DEQUANTIZE" and types[0] == np.float16:
                halves = True
            if op["op_name"] in MAC_OPS and len(types) > 1:
                if types[0] == np.float32 and types[1].kind in "iu":
                    kinds.add("dynamic")
                else:
                    kinds.add({"uint8": "int8"}.get(types[0].name, types[0].name))
        for kind in ("int16", "int8", "dynamic"):
            if kind in kinds:
                return kind
        return "float16" if halves or "float16" in kinds else "float32"

    def output_step(self, info: TensorInfo) -> float | None:
        """The quantization step behind a float output that a DEQUANTIZE op produces, or None."""
        for op in self.ops():
            if op["op_name"] == "DEQUANTIZE" and info.index in op["outputs"]:
                return TensorInfo.from_details("", self.details(op["inputs"][0])).scale
        return None


def _last_line(error: Exception, console: str) -> str:
    said = [line for line in console.splitlines() if line.startswith("ERROR")]
    return (said[-1].removeprefix("ERROR:").strip() if said else str(error).strip()) or repr(error)


def _loading_failed(path: Path, error: Exception, console: str) -> Exception:
    if "Flatbuffer" in str(error) or "mmap" in str(error):
        return ModelFileError(
            f"{path}: starts like a .tflite file, but is corrupt or cut off after "
            f"{path.stat().st_size} bytes ({error})"
        )
    return ModelRefused(
        f"{path}: {runtime().name} {runtime().version} cannot load this model: "
        f"{_last_line(error, console).splitlines()[0]} A newer runtime may know its ops"
    )
