"""The command that lists where files can be run."""

from __future__ import annotations

import dataclasses

import click

from .options import as_json, importing, print_json

__all__ = ["targets"]


@click.command(epilog="Example: tfcompress targets")
@click.option(
    "--on", "machines", multiple=True, metavar="ssh:USER@HOST", help="Also ask this machine."
)
@click.option(
    "--python", default="python3", show_default=True, help="Python of machines that ssh: names."
)
@importing
@as_json
def targets(machines: tuple[str, ...], python: str, as_json: bool) -> None:
    """Show where `tfcompress bench --on` can run files from here, and what to install if not.

    Each target is tried with a small file.
    """
    from tfcompress.edge.targets.base import TARGETS
    from tfcompress.edge.targets.names import available, target_named
    from tfcompress.model.tables import printable

    names = dict.fromkeys((*TARGETS.names(), *machines))
    found = [available(target_named(name, python)) for name in names]
    if as_json:
        print_json([dataclasses.asdict(target) for target in found])
        return
    for target in found:
        said = " ".join(target.reason.split())
        click.echo(printable(f"{target.name}: {'' if target.available else 'no: '}{said}"))
    click.echo("ssh:USER@HOST: another machine; ask it with --on ssh:USER@HOST")
