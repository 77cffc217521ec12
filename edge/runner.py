"""Run a .tflite file on NumPy arrays."""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from .arguments import (
    check_batch_size,
    check_bool,
    check_number,
    check_text,
    check_threads,
    refuse,
)
from .engines.base import DELEGATES, Engine
from .engines.isolated import IsolatedEngine
from .inputs import check_shape, convert
from .system import tflite
from .targets.base import Target, check_target
from .targets.local import LOCAL
from .tensors import Array, TensorInfo, dequantize

_REQUEST = 16 * 2**20
"""Bytes of inputs that are sent to a worker at once."""


class Runner:
    """Load a .tflite file once, and run it on NumPy arrays.

    Inputs are one array, a sequence in the order of `runner.inputs`, or a dict by name. Quantized
    inputs and outputs are real numbers outside: the runner converts them to the file's integers and
    back. A dynamic batch is resized to what is given. A file with a fixed batch of b runs n = k*b
    rows in k chunks.

    A Runner serves one thread at a time. It holds the runtime's console output back while the file
    loads and while it runs for the first time.

    A file with variables, such as one that listens to a stream, keeps what is in them from one run
    to the next, also between the chunks of one call; `reset` loads it anew.

    The file runs in this process, which ends with it if the runtime crashes: some delegates and
    damaged files make it. With `isolated=True` the file runs in a child process, and a crash is a
    `ModelRefused`. Each call then takes some milliseconds longer, since arrays go through files.

    >>> import numpy as np
    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE  # adds 1 to rows of four numbers
    >>> runner = edge.Runner(PROBE)
    >>> print(runner.inputs[0])
    'x': float32 (any, 4)
    >>> runner(np.zeros((2, 4), "float32"))
    array([[1., 1., 1., 1.],
           [1., 1., 1., 1.]], dtype=float32)

    Args:
        path: The .tflite file.
        delegate: `"xnnpack"`, LiteRT's default on the CPU; `"reference"`, LiteRT's reference
            kernels: slow, plain C++ that defines what each op computes; or `"gpu"`, the GPU
            delegate, with the CPU for the ops that it lacks. Defaults to `"xnnpack"`.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        signature: Name of the signature to run; None takes the first. Defaults to None.
        tolerance: On the GPU, the largest difference from the CPU that is allowed, as a share of
            the largest output; None takes one that suits the file's arithmetic. Defaults to None.
        quiet: Whether to hold the runtime's console output back; an isolated file's always is.
            Defaults to True.
        isolated: Whether to load and run the file in a child process, which `close`, the end of a
            `with` block, or of the Runner itself, ends. Defaults to False.

    Attributes:
        inputs: A `TensorInfo` for each input, sorted by name, `x_2` before `x_10`, since a file's
            own order is arbitrary. In a file without signatures, they are in the file's order.
        outputs: A `TensorInfo` for each output, sorted by name, `y_2` before `y_10`. In a file
            without signatures, they are in the file's order.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The runtime or the delegate cannot run this file, or died of it in a child
            process.
        DelegateUnavailable: This machine has no such delegate.
        TypeError: An argument has the wrong type.
        ValueError: There is no delegate or no signature of this name, or a number is out of range.
        ImportError: No LiteRT runtime is installed.
        OSError: The target cannot be reached.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        delegate: str = "xnnpack",
        threads: int | None = None,
        *,
        signature: str | None = None,
        tolerance: float | None = None,
        quiet: bool = True,
        isolated: bool = False,
        target: Target = LOCAL,
    ) -> None:
        self._delegate = DELEGATES.get(delegate)
        self.threads = check_threads(threads)
        if signature is not None:
            check_text("signature", signature)
        # NaN would let every difference pass.
        self._tolerance = None if tolerance is None else check_number("tolerance", tolerance, 0)
        check_bool("quiet", quiet)
        self.path = tflite.check(path)
        self.delegate = delegate
        self._signature = signature
        self._quiet = quiet
        check_target(target)
        self._target = target
        self._isolated = check_bool("isolated", isolated) or target != LOCAL
        self._checked: set[tuple[tuple[int, ...], ...]] = set()
        self._engine = self._load()
        self.inputs: tuple[TensorInfo, ...] = self._engine.inputs
        self.outputs: tuple[TensorInfo, ...] = self._engine.outputs

    def _load(self) -> Engine:
        if self._isolated:
            return IsolatedEngine(
                self.path, self.delegate, self.threads, self._signature, self._tolerance,
                self._target,
            )  # fmt: skip
        engine: Engine = self._delegate.load(self.path, self.threads, self._signature, self._quiet)
        return engine

    def reset(self) -> None:
        """Load the file anew, so that its variables have their first values.

        >>> import numpy as np
        >>> from tfcompress import edge
        >>> from tfcompress.edge.system.tflite import PROBE
        >>> runner = edge.Runner(PROBE)
        >>> runner.reset()  # this file has no variables
        >>> runner(np.zeros((1, 4), "float32"))
        array([[1., 1., 1., 1.]], dtype=float32)
        """
        # The runtime's own reset leaves out the variables of resources.
        self.close()
        self._checked.clear()
        self._engine = self._load()

    def close(self) -> None:
        """End the child process of an isolated file, which cannot run any more."""
        if isinstance(self._engine, IsolatedEngine):
            self._engine.close()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """Return the loaded file, to time its steps: `prepare`, `write`, `invoke`, `read`."""
        return self._engine

    def __repr__(self) -> str:
        return (
            f"Runner({os.fspath(self.path)!r}, delegate={self.delegate!r}, threads={self.threads})"
        )

    def __call__(
        self,
        inputs: Any = (),
        raw: bool = False,
        *,
        batch_size: int | None = None,
    ) -> Any:
        """Run the model.

        Args:
            inputs: One array, a sequence of arrays in the order of `runner.inputs`, or a dict by
                input name. Defaults to none, for a signature without inputs.
            raw: True passes the file's own types in and out, without quantizing. Defaults to False.
            batch_size: Rows at a time where the batch is dynamic; None runs all rows at once.
                Defaults to None.

        Returns:
            One array where there is one output, else a list in the order of `runner.outputs`.
            Quantized outputs are float32, unless `raw` is true.

        Raises:
            ValueError: An input is missing, unknown, or has the wrong shape; or holds NaN where the
                file wants integers.
            TypeError: An input has the wrong type.
            ModelRefused: The runtime failed to run the model.
            DelegateMismatch: On the GPU, the outputs are not the CPU's; checked in the first call
                with inputs of these shapes.
        """
        values = list(self.named(inputs, raw, batch_size=batch_size).values())
        return values[0] if len(values) == 1 else values

    def named(
        self,
        inputs: Any = (),
        raw: bool = False,
        *,
        batch_size: int | None = None,
    ) -> dict[str, Array]:
        """Run the model and return the outputs by name.

        Args:
            inputs: One array, a sequence of arrays in the order of `runner.inputs`, or a dict by
                input name. Defaults to none, for a signature without inputs.
            raw: True passes the file's own types in and out, without quantizing. Defaults to False.
            batch_size: Rows at a time where the batch is dynamic; None runs all rows at once.
                Defaults to None.

        Returns:
            Arrays by name of the output. Quantized outputs are float32, unless `raw` is true.

        Raises:
            ValueError: An input is missing, unknown, or has the wrong shape; or holds NaN where the
                file wants integers.
            TypeError: An input has the wrong type.
            ModelRefused: The runtime failed to run the model.
            DelegateMismatch: On the GPU, the outputs are not the CPU's; checked in the first call
                with inputs of these shapes.
        """
        if batch_size is not None:
            check_batch_size(batch_size)
        arrays = self.encode(inputs, raw)
        results = [self._run(part) for part in self._requests(self.split(arrays, batch_size))]
        joined = {
            info.name: results[0][info.name]
            if len(results) == 1
            else np.concatenate([result[info.name] for result in results])
            for info in self.outputs
        }
        if raw:
            return joined
        return {
            info.name: dequantize(joined[info.name], info) if info.quantized else joined[info.name]
            for info in self.outputs
        }

    def encode(self, inputs: Any, raw: bool = False) -> dict[str, Array]:
        """Check inputs and convert them to arrays of the file's own types, by name."""
        check_bool("raw", raw)
        given = self._bind(inputs)
        arrays = {
            info.name: convert(np.asarray(given[info.name]), info, raw) for info in self.inputs
        }
        for info in self.inputs:
            check_shape(arrays[info.name].shape, info, self.path)
        return arrays

    def _bind(self, inputs: Any) -> dict[str, Any]:
        names = [info.name for info in self.inputs]
        if isinstance(inputs, Mapping):
            unknown = sorted(set(inputs) - set(names))
            missing = [name for name in names if name not in inputs]
            if unknown or missing:
                raise ValueError(
                    f"{self.path} takes inputs {names}. Missing: {missing}; unknown: {unknown}"
                )
            return dict(inputs)
        if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
            # A bare nested list is one array; a sequence of arrays is one array for each input.
            if len(names) != 1 or not inputs or any(isinstance(i, np.ndarray) for i in inputs):
                if len(inputs) != len(names):
                    raise ValueError(
                        f"{self.path} takes {len(names)} input(s), {names}. Received: {len(inputs)}"
                    )
                return dict(zip(names, inputs, strict=True))
        elif len(names) != 1:
            raise ValueError(
                f"{self.path} takes {len(names)} input(s), {names}. Received: one array"
            )
        return {names[0]: inputs}

    def split(
        self, arrays: dict[str, Array], batch_size: int | None = None
    ) -> list[dict[str, Array]]:
        """Cut encoded inputs into parts that the model takes in one run each."""
        names = {info.name for info in self.inputs}
        if not isinstance(arrays, Mapping) or set(arrays) != names:
            refuse("arrays", f"a dict of an array for each of {sorted(names)}", arrays, TypeError)
        if batch_size is not None:
            batch_size = check_batch_size(batch_size)
        rows = {info.name: info.shape[0] if info.shape else 0 for info in self.inputs}
        if not rows:
            return [arrays]
        if all(size is None for size in rows.values()):
            lengths = {name: array.shape[0] for name, array in arrays.items()}
            total = max(lengths.values())
            if batch_size is None or batch_size >= total:
                return [arrays]
            if len(set(lengths.values())) > 1:
                raise ValueError(f"batch_size needs inputs of equal length. Received: {lengths}")
            starts = range(0, total, batch_size)
            return [{n: a[i : i + batch_size] for n, a in arrays.items()} for i in starts]
        chunks = {
            name: arrays[name].shape[0] // size if (size := rows[name]) else 1 for name in arrays
        }
        count = max(chunks.values())
        if count == 1:
            return [arrays]
        whole = [
            info for info in self.outputs if not info.shape or info.shape[0] not in rows.values()
        ]
        if len(set(chunks.values())) > 1 or whole:
            raise ValueError(
                f"{self.path} has a fixed batch, and cannot be run in chunks: "
                + (
                    f"output {whole[0]} has no batch dimension. "
                    if whole
                    else "the inputs differ in their number of chunks. "
                )
                + f"Received shapes: { {name: array.shape for name, array in arrays.items()} }"
            )
        return [
            {name: array[i * (rows[name] or 0) : (i + 1) * (rows[name] or 0)]
             for name, array in arrays.items()}
            for i in range(count)
        ]  # fmt: skip

    def _requests(self, parts: list[dict[str, Array]]) -> list[dict[str, Array]]:
        """Join parts for the worker, which cuts them again: a request takes milliseconds."""
        if not self._isolated or not all(info.shape and info.shape[0] for info in self.inputs):
            return parts
        together = max(1, _REQUEST // max(1, sum(array.nbytes for array in parts[0].values())))
        return [
            {name: np.concatenate([part[name] for part in group]) for name in group[0]}
            for group in (parts[i : i + together] for i in range(0, len(parts), together))
        ]

    def _run(self, arrays: dict[str, Array]) -> dict[str, Array]:
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self._engine.prepare({name: array.shape for name, array in arrays.items()})
        self._engine.write(arrays)
        self._engine.invoke()
        # The runtime compiles again for other shapes, and that may go wrong for them alone.
        shapes = tuple(array.shape for array in arrays.values())
        compare = None if self._isolated else self._delegate.compare
        if compare is not None and shapes not in self._checked:
            compare(self._engine, arrays, self._tolerance)
            self._checked.add(shapes)
        return self._engine.read()
