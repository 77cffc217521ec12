"""The CPU: LiteRT's Interpreter, with XNNPACK or with the reference kernels."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFileError, ModelRefused
from ..ops import arithmetic
from ..system.console import attempt
from ..system.runtime import runtime
from ..system.tflite import PROBE
from ..tensors import Array, TensorInfo, natural_order
from .base import DELEGATES, Availability, Delegate, Placement
from .partitions import placement_of

# "reference": LiteRT's BuiltinRefOpResolver. "none", to find placements: no delegates.
_RESOLVERS = {
    "xnnpack": "BUILTIN",
    "reference": "BUILTIN_REF",
    "none": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}


class CpuEngine:
    """A file that LiteRT's Interpreter has loaded on the CPU; see `Engine`.

    Args:
        path: A file that `tflite.check` accepted.
        threads: Number of threads; None takes the runtime's default, which is one. Defaults to
            None.
        signature: Name of the signature; None in a file without signatures. Defaults to None.
        quiet: Whether to hold the runtime's console output back. Defaults to True.
        delegate: `"xnnpack"`, `"reference"`, or `"none"` for the kernels without a delegate.
            Defaults to `"xnnpack"`.
        keep: Whether tensors between ops keep their values, for `tensor`. Defaults to False.

    Attributes:
        load_ns: Nanoseconds that loading and allocating took.
        signature: Name of the signature; None in a file without signatures.

    Raises:
        ModelFileError: The file is corrupt.
        ModelRefused: The runtime cannot load the file.
        ValueError: The file has no such signature.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        signature: str | None = None,
        quiet: bool = True,
        *,
        delegate: str = "xnnpack",
        keep: bool = False,
    ) -> None:
        self.path = path
        self.delegate = delegate
        self._quiet = quiet
        start = time.perf_counter_ns()
        self.interpreter = load_interpreter(path, threads, delegate, quiet, keep)
        # SignatureRunner's own calls: they take a subgraph, while Interpreter's public ones know
        # only the first, and they copy the inputs outside of `invoke`.
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

        # The file has them in the order of a hash map, which changes from file to file.
        def ordered(indices: dict[str, int]) -> dict[str, int]:
            return {key: indices[key] for key in sorted(indices, key=natural_order)}

        return name, ordered(chosen["inputs"]), ordered(chosen["outputs"])

    def details(self, index: int) -> dict[str, Any]:
        """Return the runtime's description of a tensor of this signature's subgraph."""
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
                f"{last_line(error, said)}"
            ) from error
        self._fresh = True

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Resize the inputs to these shapes, by input name, if they have others."""
        if dict(shapes) == self._shapes:
            return
        for info in self.inputs:
            self._calls.ResizeInputTensor(
                info.index, np.array(shapes[info.name], np.int32), False, self._subgraph
            )
        # Cleared first: after a failure, the next call must resize again.
        self._shapes = {}
        self._allocate()
        self._shapes = dict(shapes)

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy the inputs in, each with exactly the tensor's type and prepared shape."""
        for info in self.inputs:
            self._calls.SetTensor(info.index, arrays[info.name], self._subgraph)

    def invoke(self) -> None:
        """Run the model once."""
        error: Exception | None = None
        said = ""
        if self._fresh:
            # Delegates may still log in the first run after an allocation.
            _, error, said = attempt(lambda: self._calls.Invoke(self._subgraph), self._quiet)
        else:
            # Benchmarks measure this: nothing stands around the call.
            try:
                self._calls.Invoke(self._subgraph)
            except (ValueError, RuntimeError) as raised:
                error = raised
        if error is not None:
            raise ModelRefused(
                f"{self.path}: running the model failed: {last_line(error, said)}"
            ) from error
        self._fresh = False

    def read(self) -> dict[str, Array]:
        """Return copies of the outputs by name, in the file's own types."""
        return {
            info.name: self._calls.GetTensor(info.index, self._subgraph) for info in self.outputs
        }

    def tensor(self, index: int) -> Array:
        """Return a copy of a tensor between ops, in the file's own type; `keep` must be set."""
        found: Array = self._calls.GetTensor(int(index), self._subgraph)
        return found

    def ops(self) -> list[dict[str, Any]]:
        """Return the first subgraph's nodes: the file's, then a DELEGATE for each partition."""
        found: list[dict[str, Any]] = self.interpreter._get_ops_details()
        return found

    def arithmetic(self) -> str:
        """Tell in which arithmetic the file computes; see `ops.arithmetic`."""
        return arithmetic(self.ops())

    def check_told(self) -> None:
        """Raise if LiteRT does not tell the ops of the signature: those of the first alone."""
        if self._subgraph:
            raise ModelRefused(
                f"{self.path}: the runtime does not tell where the ops of signature "
                f"{self.signature!r} run, as it is not the first"
            )

    def placement(self) -> Placement:
        """Tell where the ops of the file run.

        Raises:
            ModelRefused: The signature is not in the first subgraph, whose ops alone LiteRT tells.
        """
        self.check_told()
        return placement_of(self.delegate, self.ops(), plain_ops(self.path))

    def output_step(self, info: TensorInfo) -> float | None:
        """Return the scale behind a float output that a DEQUANTIZE op produces; else None."""
        for op in self.ops():
            if op["op_name"] == "DEQUANTIZE" and info.index in op["outputs"]:
                return TensorInfo.from_details("", self.details(op["inputs"][0])).scale
        return None


def plain_ops(path: Path) -> list[dict[str, Any]]:
    """Return the nodes of a file's first subgraph before any delegate takes some.

    Nothing is allocated, since the runtime cannot prepare a custom op that only a delegate knows.
    """
    found: list[dict[str, Any]] = load_interpreter(path, None, "none", True)._get_ops_details()
    return found


def load_interpreter(
    path: Path, threads: int | None, delegate: str, quiet: bool, keep: bool = False
) -> Any:
    """Return an Interpreter of a file."""
    module = runtime().interpreter
    resolver = getattr(module.OpResolverType, _RESOLVERS[delegate])
    interpreter, error, said = attempt(
        lambda: module.Interpreter(
            model_path=str(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep,
        ),
        quiet,
    )
    if error is not None:
        raise _loading_failed(path, error, said) from error
    return interpreter


def _available(name: str) -> Availability:
    """Run the probe file on a delegate, in this process."""
    delegate = DELEGATES.get(name)
    placed = delegate.place(delegate.load(PROBE, None, None, True))
    found = runtime()
    if delegate.takes_ops and not placed.partitions:
        reason = f"{found.name} {found.version} applies no {delegate.label} on this machine"
        return Availability(name, False, reason)
    return Availability(name, True, f"{delegate.description}: {found.name} {found.version}")


def last_line(error: Exception, console: str) -> str:
    """Return the last error that the runtime wrote to the console; else what was raised."""
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
        f"{last_line(error, console).splitlines()[0]} A newer runtime may know its ops"
    )


DELEGATES.add(
    Delegate(
        name="xnnpack",
        label="XNNPACK",
        description="XNNPACK, LiteRT's default on the CPU",
        load=CpuEngine,
        available=functools.partial(_available, "xnnpack"),
        place=CpuEngine.placement,
    )
)
DELEGATES.add(
    Delegate(
        name="reference",
        label="reference kernels",
        description="LiteRT's reference kernels, plain C++ that defines what each op computes",
        load=functools.partial(CpuEngine, delegate="reference"),
        available=functools.partial(_available, "reference"),
        place=CpuEngine.placement,
        takes_ops=False,
    )
)
