"""`sparsify`: zeros -> a smaller file that computes the same."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcompress.converters.file.read import Inspection, inspect
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.xnnpack.sparse_check import graph_form
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.tflite import sizes
from tfcompress.model.tables import as_text

from .errors import ConversionError


@dataclass(frozen=True)
class Sparse:
    """How `sparsify` makes a file smaller.

    Example:
    >>> Sparse(names=False)
    Sparse(int8_weights=False, names=False, skip_zeros=False)

    Args:
        int8_weights: Store the weights of float files as int8, symmetric per output channel, and
            compute in float: the smallest single file. Unlike all else here it changes the
            results, by what rounding the weights does. An int8 file is as it was. Defaults to
            False.
        names: Keep the names of the tensors, which carry the paths of the Keras layers; without
            them a file is smaller and tells less when inspected. The names of inputs, outputs and
            signatures are kept anyway. Defaults to True.
        skip_zeros: Let Dense layers of float32 files run on sparse weights where that is faster:
            at 85% zeros and more, which come in blocks of 1x4 (`masks.FAST_DENSE`). Sums are
            then added up in another order, so that outputs may differ by a 10,000th of the
            largest, and no more. Defaults to False.

    Raises:
        TypeError: A field is no bool.
        ValueError: `skip_zeros` with `int8_weights`: it takes float32 weights.
    """

    int8_weights: bool = False
    names: bool = True
    skip_zeros: bool = False

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if not isinstance(value, bool):
                raise TypeError(f"{field} must be True or False. Received: {field}={value!r}")
        if self.skip_zeros and self.int8_weights:
            raise ValueError("skip_zeros takes float32 weights: leave int8_weights out")


@dataclass(frozen=True)
class SparseWeight:
    """What became of one constant of two or more dimensions.

    Attributes:
        name: Of its tensor.
        dtype: As it was stored before.
        shape: Its sizes.
        zeros: Share of its elements that are zero as they are stored; None if that was not asked.
        bytes_before: Its data.
        bytes_after: Its data and, about, the tables that a sparse form adds.
        encoding: The sparse form in words; "" if it is dense.
        reason: Why it is dense; "" if it is not.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    zeros: float | None
    bytes_before: int
    bytes_after: int
    encoding: str
    reason: str


@dataclass(frozen=True)
class Sparsified(os.PathLike[str]):
    """A .tflite file that `sparsify` wrote; usable wherever a path is.

    Attributes:
        path: Where it is.
        bytes: Its size as it ships.
        bytes_before: That of the file it was made of.
        gzip_bytes: Its size in a zip or an app package.
        gzip_bytes_before: That of the file it was made of.
        weights: What became of each weight.
    """

    path: Path
    bytes: int
    bytes_before: int
    gzip_bytes: int
    gzip_bytes_before: int
    weights: tuple[SparseWeight, ...]

    def __fspath__(self) -> str:
        return str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        from rich.table import Table

        table = Table("weight", "dtype", "shape", "zeros", "bytes", "after", "encoding")
        table.columns[0].no_wrap = True
        table.columns[0].max_width = 40
        for w in self.weights:
            table.add_row(
                w.name,
                w.dtype,
                " x ".join(map(str, w.shape)),
                "" if w.zeros is None else f"{w.zeros:.1%}",
                f"{w.bytes_before:,}",
                f"{w.bytes_after:,}",
                w.encoding or f"dense: {w.reason}",
            )
        head = (
            f"{self.path.name}: {self.bytes_before:,} -> {self.bytes:,} bytes; "
            f"gzip {self.gzip_bytes_before:,} -> {self.gzip_bytes:,}"
        )
        return as_text(head, table, width=120)


def sparsify(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: Sparse = Sparse(),
    *,
    timeout: float | None = 600.0,
) -> Sparsified:
    """Write a .tflite file again, smaller, so that it computes the same.

    Weights with enough zeros are stored in TFLite's sparse encoding, the one that is smallest for
    each, and unpacked once, as the runtime loads the file: this saves bytes of the file, not time.
    Whatever the file holds twice is stored once. The result is run beside the file that it was
    made of, on random inputs, with and without XNNPACK, on the Interpreter and on CompiledModel:
    unless every output is the same, bit for bit, nothing is written. It is never larger.

    On Arm, XNNPACK computes some float graphs wrongly when their weights are sparse. In those all
    weights stay dense, and the report says so.

    Example:
    >>> import keras, numpy as np, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, use_bias=False)])
    >>> kernel = np.zeros((64, 256), "float32")
    >>> kernel[::8] = 0.5
    >>> model.set_weights([kernel])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dense = converters.convert(model, f"{folder}/dense.tflite")
    ...     small = converters.sparsify(dense, f"{folder}/small.tflite")
    >>> small.bytes_before > 65_536, small.bytes < 12_000
    (True, True)

    Args:
        path: The file.
        out: The file to write, in a folder that exists; it may be the same.
        config: `Sparse()`, with its options. Defaults to `Sparse()`.
        timeout: Seconds for reading, and for rewriting and comparing; None for no limit. Defaults
            to 600.

    Returns:
        The file, and what became of each weight.

    Raises:
        ModelFileError: The file is no readable .tflite model.
        ConversionError: It has no sparse form that computes the same, such as a dynamic-range
            file.
        TypeError: `config` is no `Sparse`.
        ValueError: There is no such folder to write in.
    """
    config = check_sparse(config) or Sparse()
    target = Path(out).expanduser()
    if not target.parent.is_dir():
        raise ValueError(f"There is no folder '{target.parent}' to write '{target.name}' in")
    small, content = sparsified(inspect(path, timeout), target, config, timeout)
    write_whole({target: content})
    return small


def check_sparse(sparse: bool | Sparse) -> Sparse | None:
    """The config, or None for none; or an error that says what one looks like."""
    if isinstance(sparse, bool):
        return Sparse() if sparse else None
    if not isinstance(sparse, Sparse):
        raise TypeError(
            "sparse must be True, False or Sparse(int8_weights=..., names=..., skip_zeros=...). "
            f"Received: {sparse!r}"
        )
    return sparse


def sparsified(
    found: Inspection, target: Path, config: Sparse, timeout: float | None
) -> tuple[Sparsified, bytes]:
    """`sparsify` for a file that was inspected, without writing: the report and the content."""
    refusal = f"'{target}' was not written: "
    if found.load_error:
        raise ConversionError(
            f"{refusal}the runtime does not load {found.path.name}, so that a result could not be "
            f"checked: {found.load_error}"
        )
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        out = Path(folder, "sparse.tflite")

        def rewrite(unsafe: str) -> dict[str, Any]:
            paths = {"path": str(found.path.resolve()), "out": str(out)}
            request = {**paths, "unsafe": unsafe, **asdict(config)}
            try:
                return run("passes.sparsify", request, Path(folder), timeout)
            except ChildError as error:
                raise ConversionError(
                    f"{refusal}the process that makes the weights of {found.path.name} sparse and "
                    f"checks the result {error}"
                ) from error

        unsafe = _why_unsafe(found)
        reply = rewrite(unsafe)
        if config.int8_weights and not unsafe and "refused" not in reply:
            # Rounding makes zeros, and with more of them XNNPACK may choose other kernels.
            unsafe = _why_unsafe(inspect(out, timeout))
            reply = rewrite(unsafe) if unsafe else reply
        if "refused" in reply:
            raise ConversionError(f"{refusal}{found.path.name} {reply['refused']}.")
        if reply["difference"]:
            raise ConversionError(
                f"{refusal}with sparse weights, {found.path.name} does not compute the same: "
                f"{reply['difference']}. The dense file is fine; please report this."
            )
        size, gzip_size = sizes(out)
        content = out.read_bytes()
    weights = tuple(SparseWeight(**{**w, "shape": tuple(w["shape"])}) for w in reply["weights"])
    return Sparsified(target, size, found.bytes, gzip_size, found.gzip_bytes, weights), content


def _why_unsafe(found: Inspection) -> str:
    """Why the weights must stay dense; "" if they need not."""
    if graph_form(found).kind == "unsafe":
        return "XNNPACK on Arm may get this graph wrong when it is sparse: see tfcompress lint"
    return ""
