"""`split`: a .tflite file -> two that compute the same, one after the other."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfcompress.converters.file.read import inspect
from tfcompress.edge.arguments import (
    check_choice,
    check_integer,
    check_number,
    check_seconds,
    check_threads,
)
from tfcompress.edge.benchmark import benchmark
from tfcompress.edge.shown import Shown
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.model.tables import as_text, new_table

from .checks import check_output
from .errors import ConversionError
from .rewriting import ask

__all__ = ["Cut", "Split", "split"]

_MEASURED = 8
"""Places that are measured, spread over the file."""

_WORTH = 1.1
"""Gain below which two devices are not worth the trouble."""


@dataclass(frozen=True)
class Cut:
    """A place to cut a file, and what two devices would make of it.

    >>> from tfcompress import converters
    >>> converters.Cut(at=7, op="CONV_2D", bytes=1152).gain is None
    True

    Attributes:
        at: Number of ops in the first file.
        op: The last of them.
        bytes: Size of what goes from the first file to the second, for one sample.
        first_ms: Median latency of the first file, in milliseconds; None if it was not measured.
        second_ms: Median latency of the second file.
        transfer_ms: Time to send the bytes; 0.0 without a `link`.
        gain: How many times as many samples in the same time as one device computes: a new one
            can begin when the slower of the two is ready, and the first has to send, too.
    """

    at: int
    op: str
    bytes: int
    first_ms: float | None = None
    second_ms: float | None = None
    transfer_ms: float | None = None
    gain: float | None = None


@dataclass(frozen=True)
class Split(Shown):
    """Two files that compute what one did. Printing it gives a table of the places measured.

    >>> from tfcompress import converters
    >>> cut = converters.Cut(at=7, op="CONV_2D", bytes=1152)
    >>> print(converters.Split(Path("1.tflite"), Path("2.tflite"), cut))
    1.tflite, 2.tflite: cut after op 7, CONV_2D; 1,152 bytes go from one to the other

    Attributes:
        first: The file of the first ops.
        second: The file of the others.
        cut: Where the file was cut.
        measured: All places that were measured; empty if the place was given.
        whole_ms: Median latency of the whole file; None if the place was given.
    """

    first: Path
    second: Path
    cut: Cut
    measured: tuple[Cut, ...] = field(default=(), repr=False)
    whole_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {**asdict(self), "first": str(self.first), "second": str(self.second)}

    def __str__(self) -> str:
        head = f"{self.first.name}, {self.second.name}: cut after op {self.cut.at}, {self.cut.op}"
        if not self.measured:
            return f"{head}; {self.cut.bytes:,} bytes go from one to the other"
        return as_text(head, _table(self.measured, self.whole_ms), width=100)


def split(
    path: str | os.PathLike[str],
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    at: int | str = "auto",
    *,
    link: float | None = None,
    threads: int | None = None,
    timeout: float | None = 600.0,
) -> Split:
    """Cut a .tflite file into two, for two devices that work one after the other.

    While the second device computes a sample, the first one begins with the next. It pays for a CPU
    and an NPU, or two accelerators on one board, above all where one of them is too small for the
    whole model. It does not make a single answer faster, and hardly pays across a network. What
    goes from one file to the other are outputs of the first and inputs of the second of the same
    names: `cut_0`, `cut_1` and so on. The two files together are compared with the whole on random
    inputs, bit for bit, with and without XNNPACK, before anything is written.

    With "auto", the file is cut at eight places, where little goes from one part to the other, and
    all parts run on this machine. The place with the most samples in the same time is taken.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> dense = [keras.layers.Dense(8, "relu") for _ in range(4)]
    >>> model = keras.Sequential([keras.Input((8,), name="x"), *dense])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     whole = converters.convert(model, f"{folder}/whole.tflite")
    ...     parts = converters.split(whole, f"{folder}/1.tflite", f"{folder}/2.tflite", at=2)
    ...     [list(converters.inspect(p).signatures[0].inputs) for p in (parts.first, parts.second)]
    [['x'], ['cut_0']]

    Args:
        path: The file to cut. It has one graph and one signature at most.
        first: The file to write with the first ops, in a folder that exists.
        second: The file to write with the others, in a folder that exists.
        at: Number of ops of the first file, as `inspect(path).nodes` lists them, or "auto".
            Defaults to "auto".
        link: Bytes per second from the first device to the second. Defaults to None: they share
            their memory.
        threads: Number of CPU threads to measure with; None takes the runtime's default, one.
            Defaults to None.
        timeout: Seconds for each child process; None for no limit. Defaults to 600.

    Returns:
        The two files, and what was measured.

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ConversionError: The file cannot be cut, the parts would not compute the same, or, with
            "auto", no place gives 1.1 times as many samples: the message has the numbers.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, or a path cannot be used.
        PermissionError: A folder may not be written in.
    """
    targets = check_output("first", first), check_output("second", second)
    if targets[0].resolve() == targets[1].resolve():
        raise ValueError(f"`first` and `second` must be two files. Received: {os.fspath(first)!r}")
    if isinstance(at, str):
        check_choice("at", at, ("auto",))
    else:
        check_integer("at", at, 1)
    speed = None if link is None else check_number("link", link, above=0)
    threads = check_threads(threads)
    if timeout is not None:
        check_seconds("timeout", timeout)
    found = inspect(path, timeout)
    with scratch_folder() as folder:
        source = Path(shutil.copy(found.path, folder / "source.tflite"))
        reply = _ask(found.path, {"path": str(source)}, folder, timeout)
        cuts = [Cut(place["at"], place["op"], place["bytes"]) for place in reply["places"]]
        if not cuts:
            raise ConversionError(f"'{found.path.name}' has one op, which cannot be cut.")
        if isinstance(at, int):
            check_integer("at", at, 1, len(cuts))
        chosen = _spread(cuts) if isinstance(at, str) else [cuts[at - 1]]
        request = {"path": str(source), "at": [cut.at for cut in chosen], "folder": str(folder)}
        for cut, difference in zip(
            chosen, _ask(found.path, request, folder, timeout)["differences"], strict=True
        ):
            if difference:
                raise ConversionError(
                    f"'{found.path.name}', cut after op {cut.at}, does not compute the same: "
                    f"{difference}. Choose another place."
                )
        whole_ms, measured = None, list[Cut]()
        if isinstance(at, str):
            whole_ms, measured = _measure(folder, chosen, speed, threads)
            best = max(measured, key=lambda cut: cut.gain or 0.0)
            if (best.gain or 0.0) < _WORTH:
                raise ConversionError(
                    f"It is not worth to cut '{found.path.name}': at best, after op {best.at}, two "
                    f"devices compute {best.gain:.2f} times the samples of one.\n"
                    f"{as_text(_table(measured, whole_ms), width=100)}"
                )
        else:
            [best] = chosen
        files = _parts(folder, best)
        write_whole(
            {target: file.read_bytes() for target, file in zip(targets, files, strict=True)}
        )
    return Split(*targets, best, tuple(measured), whole_ms)


def _ask(path: Path, request: dict[str, Any], folder: Path, timeout: float | None) -> Any:
    reply = ask("jobs.split", request, folder, timeout, f"'{path.name}' cannot be cut")
    if "refused" in reply:
        raise ConversionError(f"'{path.name}' cannot be cut, as it {reply['refused']}.")
    return reply


def _parts(folder: Path, cut: Cut) -> tuple[Path, Path]:
    return folder / f"{cut.at}_1.tflite", folder / f"{cut.at}_2.tflite"


def _spread(cuts: Sequence[Cut]) -> list[Cut]:
    """Return the cut with the fewest bytes from each eighth of a file."""
    edges = [round(len(cuts) * part / _MEASURED) for part in range(_MEASURED + 1)]
    groups = [cuts[a:b] for a, b in itertools.pairwise(edges) if a < b]
    return [min(group, key=lambda cut: cut.bytes) for group in groups]


def _measure(
    folder: Path, cuts: Sequence[Cut], link: float | None, threads: int | None
) -> tuple[float, list[Cut]]:
    """Run all parts here; return the latency of the whole, and the cuts with theirs."""
    files = [folder / "whole.tflite", *(file for cut in cuts for file in _parts(folder, cut))]
    results = benchmark(files, threads=threads, min_seconds=0.3, min_runs=5, rounds=3)
    for result in results:
        if result.median_ms is None:
            raise ConversionError(f"A part cannot be measured: {result.reason}.")
    whole, *parts = (result.median_ms or 0.0 for result in results)
    measured = []
    for cut, first_ms, second_ms in zip(cuts, parts[::2], parts[1::2], strict=True):
        sent = 0.0 if link is None else 1e3 * cut.bytes / link
        gain = whole / max(first_ms + sent, second_ms, 1e-9)
        measured.append(Cut(cut.at, cut.op, cut.bytes, first_ms, second_ms, sent, gain))
    return whole, measured


def _table(cuts: Sequence[Cut], whole_ms: float | None) -> Any:
    columns = ["After op", "Bytes", "First ms", "Second ms", "Sent ms", "Samples"]
    table = new_table(columns, numbers=columns[1:], title=f"One device: {whole_ms:.3f} ms a sample")
    for cut in cuts:
        times = (
            f"{ms:.3f}" for ms in (cut.first_ms, cut.second_ms, cut.transfer_ms) if ms is not None
        )
        table.add_row(f"{cut.at} {cut.op}", f"{cut.bytes:,}", *times, f"{cut.gain:.2f}x")
    return table
