"""`sparsify`: a .tflite file with zeros -> a smaller file that computes the same."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.file.read import inspect
from tfcompress.converters.passes.base import Pass
from tfcompress.converters.xnnpack.sparse_check import check_sparse_kernels
from tfcompress.edge.arguments import check_bool, check_path, check_seconds, refuse
from tfcompress.edge.shown import Shown
from tfcompress.edge.system.files import check_folder, write_whole
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.model.tables import as_text, new_table

from .errors import ConversionError
from .rewriting import run_pass

_SPARSE = "Sparse(int8_weights=..., names=..., skip_zeros=...)"


@dataclass(frozen=True)
class Sparse:
    """The options of `sparsify`.

    >>> Sparse(names=False)
    Sparse(int8_weights=False, names=False, skip_zeros=False)

    Args:
        int8_weights: Whether to store the weights of float files as int8, symmetric per output
            channel, and to compute in float: the smallest single file. This changes the results,
            because it rounds the weights. An int8 file is not changed. Defaults to False.
        names: Whether to keep the names of the tensors, which contain the paths of the Keras
            layers. Without them the file is smaller and tells less when inspected. The names of
            inputs, outputs and signatures are kept in any case. Defaults to True.
        skip_zeros: Whether Dense layers of float32 files may run on sparse weights where that is
            faster: from 85% zeros on, in blocks of 1x4 (`masks.FAST_DENSE`). This adds up sums in
            another order: outputs may differ by a 10,000th of the largest. Defaults to False.

    Raises:
        TypeError: An option is no bool.
        ValueError: `skip_zeros` and `int8_weights` are both True.
    """

    int8_weights: bool = False
    names: bool = True
    skip_zeros: bool = False

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            check_bool(field, value)
        if self.skip_zeros and self.int8_weights:
            raise ValueError("`skip_zeros` takes float32 weights: leave `int8_weights` out.")


@dataclass(frozen=True)
class SparseWeight:
    """The form in which `sparsify` stored one weight, a constant of two or more dimensions.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, name="head")])
    >>> _ = model.layers[0].kernel.assign(keras.ops.zeros((64, 256)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dense = converters.convert(model, f"{folder}/dense.tflite")
    ...     small = converters.sparsify(dense, f"{folder}/small.tflite")
    >>> [(weight.shape, weight.zeros) for weight in small.weights]
    [((256, 64), 1.0)]

    Attributes:
        name: Name of its tensor.
        dtype: Type that it was stored in before.
        shape: Its sizes.
        zeros: Share of its stored elements that are zero; None for a weight that must stay dense.
        bytes_before: Size of its data before.
        bytes_after: Size of its data now, with an estimate of the tables that describe it.
        encoding: The sparse encoding in words; "" if it is dense.
        reason: Why it is dense; "" if it is sparse.
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
class Sparsified(Shown, os.PathLike[str]):
    """A .tflite file that `sparsify` wrote; usable wherever a path is.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, name="head")])
    >>> _ = model.layers[0].kernel.assign(keras.ops.zeros((64, 256)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dense = converters.convert(model, f"{folder}/dense.tflite")
    ...     small = converters.sparsify(dense, f"{folder}/small.tflite")
    >>> small.path.name, small.bytes < small.bytes_before
    ('small.tflite', True)

    Attributes:
        path: The file.
        bytes: Size of the file, as it ships.
        bytes_before: Size of the file that it was made from.
        gzip_bytes: Size of the file after gzip, as in an app package.
        gzip_bytes_before: Size of the file that it was made from, after gzip.
        weights: How each weight is stored.
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
        """Return plain values, ready for `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        table = new_table(
            ["Weight", "Dtype", "Shape", "Zeros", "Bytes", "After", "Encoding"],
            numbers=["Zeros", "Bytes", "After"],
            longest=40,
        )
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

    Each weight with enough zeros is stored in the TFLite encoding that is smallest for it. The
    runtime unpacks it once, when it loads the file: this saves bytes of the file, not time. Equal
    parts of the file are stored once. The old and the new file then run on random inputs, with and
    without XNNPACK, on the Interpreter and on CompiledModel. Unless every output is equal, bit for
    bit, nothing is written. The new file is never larger.

    On Arm, XNNPACK computes some float graphs wrongly when their weights are sparse. All weights of
    these graphs stay dense, and the report says so.

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
        path: The file to read.
        out: The file to write, in a folder that exists; it may be the file to read.
        config: The options. Defaults to `Sparse()`.
        timeout: Seconds for each child process; None for no limit. Defaults to 600.

    Returns:
        The new file, and how each weight is stored.

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ConversionError: The file has no sparse form that computes the same, as no dynamic-range
            file has.
        TypeError: `config` is no `Sparse`.
        ValueError: The folder of `out` does not exist.
        PermissionError: The folder of `out` may not be written in.
    """
    if not isinstance(config, Sparse):
        refuse("config", _SPARSE, config, TypeError)
    if timeout is not None:
        check_seconds("timeout", timeout)
    target = check_path("out", out).expanduser()
    if target.is_dir():
        refuse("out", "the path of a file, not of a folder", out)
    check_folder(target)
    found = inspect(path, timeout)
    small, content = sparsified(found, target, config, timeout, found.path.name)
    write_whole({target: content})
    return small


def check_sparse(sparse: bool | Sparse) -> Sparse | None:
    """Return the options, or None for False; raise a TypeError for anything else."""
    if isinstance(sparse, bool):
        return Sparse() if sparse else None
    if not isinstance(sparse, Sparse):
        refuse("sparse", f"True, False or {_SPARSE}", sparse, TypeError)
    return sparse


def sparsified(
    found: Inspection, target: Path, config: Sparse, timeout: float | None, label: str
) -> tuple[Sparsified, bytes]:
    """Make zeros of a file save bytes, without writing the result.

    Args:
        found: The file.
        target: Path that the result will have.
        config: The options.
        timeout: Seconds for each child process; None for no limit.
        label: Name of the file in errors.

    Returns:
        The report, and the content of the new file.

    Raises:
        ConversionError: The file has no sparse form that computes the same.
    """
    if found.load_error:
        raise ConversionError(
            f"'{target}' was not written: the runtime does not load {label}, so that a "
            f"result could not be checked: {found.load_error}"
        )
    with scratch_folder() as folder:

        def rewrite(unsafe: str) -> tuple[Inspection, Any]:
            step = Pass("sparsify", {**asdict(config), "unsafe": unsafe})
            return run_pass(step, found.path, folder, timeout, label)

        unsafe = _why_unsafe(found)
        small, weights = rewrite(unsafe)
        if config.int8_weights and not unsafe and _why_unsafe(small):
            # Rounding makes zeros, and with more of them XNNPACK may choose other kernels.
            small, weights = rewrite(_why_unsafe(small))
        report = Sparsified(
            path=target,
            bytes=small.bytes,
            bytes_before=found.bytes,
            gzip_bytes=small.gzip_bytes,
            gzip_bytes_before=found.gzip_bytes,
            weights=tuple(SparseWeight(**{**w, "shape": tuple(w["shape"])}) for w in weights),
        )
        return report, small.path.read_bytes()


def _why_unsafe(found: Inspection) -> str:
    """Return why the weights must stay dense; "" if they need not."""
    if check_sparse_kernels(found).kind == "unsafe":
        return "XNNPACK on Arm may compute this graph wrongly: see tfcompress check-sparse"
    return ""
