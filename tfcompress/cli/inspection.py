"""Commands that look into a .tflite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .errors import CheckFailed
from .options import FILE, as_json, print_json, show

__all__ = ["check_sparse", "inspect"]


@click.command(epilog="Example: tfcompress inspect model.tflite")
@click.argument("path", type=FILE)
@click.option("--gzip", is_flag=True, help="Also compress it: how large is it in a download?")
@click.option("--load", "loads", is_flag=True, help="Also load it: does the runtime know its ops?")
@as_json
def inspect(path: Path, gzip: bool, loads: bool, as_json: bool) -> None:
    """Show the ops, tensors, types, scales, zeros and bytes of the .tflite file PATH.

    It is read, not run. A file with custom ops is loaded too, since only the runtime knows those.
    """
    from tfcompress import converters
    from tfcompress.model.tables import printable

    found = converters.inspect(path)
    kind = converters.check_sparse_kernels(found).kind
    more: dict[str, Any] = {"gzip_bytes": found.gzip_bytes} if gzip else {}
    if loads or found.custom_ops:
        more["load_error"] = found.load_error
    if as_json:
        print_json({**found.to_dict(), **more, "sparse_kernels": kind})
        return
    show(found, as_json)
    if gzip:
        click.echo(f"{found.gzip_bytes:,} bytes after gzip.")
    if more.get("load_error"):
        click.echo(f"The runtime does not load it: {printable(found.load_error or '')}")
    elif "load_error" in more:
        click.echo("The runtime loads it.")
    if kind != "safe":
        click.echo(f"With sparse weights on Arm: {kind} (tfcompress check-sparse explains).")


@click.command("check-sparse", epilog="Example: tfcompress check-sparse pruned.tflite")
@click.argument("path", type=FILE)
@as_json
def check_sparse(path: Path, as_json: bool) -> None:
    """Tell whether the zeros of the .tflite file PATH make it faster on Arm, and why not.

    XNNPACK has kernels that skip zeros in certain float graphs. In similar graphs they can compute
    wrong results without an error. Each rule that the graph breaks is shown with its Keras layer
    and with what to change. Fails unless XNNPACK would run the sparse kernels.
    """
    from tfcompress import converters

    found = converters.check_sparse_kernels(path)
    show(found, as_json)
    if found.kind != "sparse kernels":
        raise CheckFailed(f"{path}: no sparse kernels on Arm; the graph is {found.kind!r}.")
