"""Results as a table, JSON, Markdown and HTML."""

import dataclasses
import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import check_each, check_path, check_text, refuse
from ..results import BenchmarkResult
from ..shown import Shown
from ..system.files import write_whole
from .columns import columns, notes, one_line
from .html import html_page

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report(Shown):
    """Show results side by side: as a table, JSON, Markdown or HTML.

    A column in which no result has a value is left out. A file that could not be measured keeps its
    row, with the reason in it.

    >>> from tfcompress import edge
    >>> results = [edge.BenchmarkResult("small", "small.tflite", "xnnpack", bytes=2048)]
    >>> print(edge.Report(results).to_markdown())  # doctest: +ELLIPSIS
    # Report
    <BLANKLINE>
    | model | KiB | gzip KiB | ran on |
    | :-- | --: | --: | :-- |
    | small | 2.0 | - | unknown |
    ...

    Args:
        results: One result or several, in the order of the rows.
        title: The heading. Defaults to `"Report"`.

    Raises:
        TypeError: A result is no `BenchmarkResult`, or `title` no text.
        ValueError: `title` is empty.
    """

    results: tuple[BenchmarkResult, ...]
    title: str = "Report"

    def __init__(
        self, results: BenchmarkResult | Iterable[BenchmarkResult], title: str = "Report"
    ) -> None:
        wanted = "a BenchmarkResult, or a list of them"
        if isinstance(results, str) or not isinstance(results, BenchmarkResult | Iterable):
            refuse("results", wanted, results, TypeError)
        given = (results,) if isinstance(results, BenchmarkResult) else tuple(results)
        check_each("results", given, BenchmarkResult, "a BenchmarkResult")
        check_text("title", title)
        object.__setattr__(self, "results", given)
        object.__setattr__(self, "title", title)

    def rows(self) -> list[list[str]]:
        """Return the table as texts: the titles, then a row for each result."""
        chosen = columns(self.results)
        return [
            [column.title for column in chosen],
            *([column.cell(result) for column in chosen] for result in self.results),
        ]

    def table(self) -> "Table":
        """Build a table for the terminal.

        Returns:
            A `rich.table.Table`.

        Raises:
            ImportError: rich is not installed.
        """
        try:
            from rich import box
            from rich.table import Table
            from rich.text import Text
        except ImportError as error:
            raise ImportError("Report.table() needs rich: pip install rich") from error
        table = Table(
            title=Text(one_line(self.title)),
            caption=Text("\n".join(notes(self.results))),
            caption_justify="left",
            box=box.SIMPLE,
            padding=0,
            pad_edge=False,
            show_edge=False,
        )
        chosen = columns(self.results)
        for column in chosen:
            if column.numeric:
                title = re.sub("( |(?<=-))", "\n", column.title)
                table.add_column(Text(title), justify="right", no_wrap=True)
            else:
                table.add_column(Text(column.title), min_width=8, overflow="fold")
        for result in self.results:
            # Text, not markup: a model may be called "[red]".
            cells = (Text((column.brief or column.cell)(result)) for column in chosen)
            table.add_row(*cells, style=None if result.ok else "red")
        return table

    def __str__(self) -> str:
        rows = self.rows()
        numeric = [column.numeric for column in columns(self.results)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(numeric))]
        lines = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join([one_line(self.title), "", *lines, "", *notes(self.results)])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, numbers and texts, with a schema version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "results": [result.to_dict() for result in self.results],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Report":
        """Build a report from what `to_dict` returned.

        Args:
            data: The dict.

        Returns:
            An equal report.

        Raises:
            ValueError: The dict is no report, or has another schema version.
        """
        if not isinstance(data, Mapping):
            refuse("data", "a dict that `Report.to_dict` returned", data, TypeError)
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"The data are no report of schema version {SCHEMA_VERSION}. "
                f"Received version: {version!r}"
            )
        return cls((BenchmarkResult.from_dict(item) for item in data["results"]), data["title"])

    def to_json(self) -> str:
        """Return the report as JSON; infinities and NaN among the metrics become texts."""
        results = [
            dataclasses.replace(
                result,
                metrics={
                    name: str(value)
                    if isinstance(value, float) and not math.isfinite(value)
                    else value
                    for name, value in result.metrics.items()
                },
            )
            for result in self.results
        ]
        data = Report(results, self.title).to_dict()
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Return the report as GitHub-flavoured Markdown."""
        rows = [[_markdown(cell) for cell in row] for row in self.rows()]
        rule = ["--:" if column.numeric else ":--" for column in columns(self.results)]
        lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
        said = [f"- {_markdown(note)}" for note in notes(self.results)]
        return "\n".join([f"# {_markdown(one_line(self.title))}", "", *lines, "", *said]) + "\n"

    def to_html(self) -> str:
        """Return the report as one HTML page that loads no other file.

        Returns:
            The page, with the table and plots: latency, and size against accuracy where the
            accuracy is known.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return html_page(self.title, self.results)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report to a file, whole or not at all.

        Args:
            path: The file. Its suffix, .json, .md or .html, decides the format.

        Returns:
            The path.

        Raises:
            ValueError: The suffix is not .json, .md or .html.
            FileNotFoundError: The folder does not exist.
            ImportError: The suffix is .html, and matplotlib is not installed.
        """
        target = check_report_path(path)
        formats = {".json": self.to_json, ".md": self.to_markdown, ".html": self.to_html}
        text = formats[target.suffix.lower()]()
        write_whole({target: text.encode("utf-8")})
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Report":
        """Read a report that was saved as JSON.

        Args:
            path: The .json file.

        Returns:
            An equal report.

        Raises:
            ValueError: The file is no JSON, holds no report, or has another schema version.
            OSError: The file cannot be read.
        """
        file = check_path("path", path)
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file} to load a report from")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{os.fspath(path)} is no JSON file: {error}") from error
        try:
            return cls.from_dict(data)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{os.fspath(path)} holds no report: {error}") from error


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """Check that `Report.save` can write to a path, before the work that fills the report.

    Args:
        path: The file to write.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is not .json, .md or .html.
        FileNotFoundError: The folder does not exist.
        ImportError: The suffix is .html, and matplotlib is not installed.
    """
    target = check_path("path", path)
    suffix = target.suffix.lower()
    if suffix not in (".json", ".md", ".html"):
        raise ValueError(f"A report is saved as .json, .md or .html. Received: {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder {target.parent} does not exist")
    if suffix == ".html" and find_spec("matplotlib") is None:
        raise ImportError("The plots of an HTML report need matplotlib: pip install matplotlib")
    return target


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(text, quote=False))
