"""Commands on devices: where files can be run, and the time of each op there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from .options import (
    FILE,
    as_json,
    importing,
    machine_named,
    on_benchmark_model,
    on_one_target,
    on_python,
    print_json,
    show,
)

__all__ = ["profile", "targets"]


@click.command(epilog="Example: tfcompress profile model.tflite")
@click.argument("path", type=FILE)
@click.option(
    "--runs", type=click.IntRange(1), default=100, show_default=True, help="Runs to measure."
)
@on_one_target
@on_python
@importing
@as_json
def profile(path: Path, runs: int, target: str, python: str, as_json: bool) -> None:
    """Show the microseconds that each op of the .tflite file PATH takes on the CPU."""
    from tfcompress import edge

    show(edge.profile(path, runs=runs, target=machine_named(target, python)), as_json)


@click.command(epilog="Example: tfcompress targets")
@click.option(
    "--on", "machines", multiple=True, metavar="ssh:USER@HOST", help="Also ask this machine."
)
@on_python
@on_benchmark_model
@importing
@as_json
def targets(machines: tuple[str, ...], python: str, benchmark_model: str, as_json: bool) -> None:
    """Show where `tfcompress bench --on` can run files from here, and what to install if not.

    Each target is tried with a small file.
    """
    from tfcompress.edge.targets.base import TARGETS
    from tfcompress.edge.targets.names import available, target_named
    from tfcompress.model.tables import printable

    names = dict.fromkeys((*TARGETS.names(), *machines))
    found = [available(target_named(name, python, benchmark_model)) for name in names]
    if as_json:
        print_json([dataclasses.asdict(target) for target in found])
        return
    for target in found:
        said = " ".join(target.reason.split())
        click.echo(printable(f"{target.name}: {'' if target.available else 'no: '}{said}"))
    click.echo("ssh:USER@HOST: another machine; ask it with --on ssh:USER@HOST")
    click.echo("adb[:SERIAL]: an Android phone; ask it with --on adb --benchmark-model PATH")
