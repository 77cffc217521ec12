"""What commands share: options, loading a model, printing a result."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .errors import BadInput

if TYPE_CHECKING:
    import keras

    from tfcompress.edge import Target

__all__ = [
    "FILE",
    "OUTPUT",
    "Command",
    "Registered",
    "TargetName",
    "as_json",
    "check_output",
    "importing",
    "leave_current_folder",
    "load",
    "loading",
    "machine_named",
    "on_benchmark_model",
    "on_delegate",
    "on_filters",
    "on_measured_delegate",
    "on_one_target",
    "on_python",
    "on_runtime",
    "on_target",
    "on_threads",
    "print_json",
    "save",
    "say_written",
    "show",
    "warnings_in_words",
]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, path_type=Path)

Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine to read.")


def registered_name(text: str, names: Collection[str]) -> str | None:
    """Return the name that a text means, in which "-" may stand for "_"; None if it means none."""
    return next((name for name in (text, text.replace("-", "_")) if name in names), None)


class Registered(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases
    """A name in a registry.

    The names are read when the command runs: a module given with `--import` may have added some.

    Args:
        names: Returns the names that there are.
        listed: Whether `--help` and shell completion list the names, because it is cheap to read
            them. Defaults to False.
    """

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]], *, listed: bool = False) -> None:
        self._names = names
        self._listed = listed

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        """Return the names as `--help` shows them; None shows the type's own name."""
        return f"[{'|'.join(self._names())}]" if self._listed else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail and list the names."""
        names = list(self._names())
        name = registered_name(str(value), names)
        if name is None:
            self.fail(f"{value!r} is none of {', '.join(names)}.", param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so, if it is cheap to read them."""
        if not self._listed:
            return []  # or each TAB would import Keras
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def _delegates() -> Iterable[str]:
    from tfcompress.edge.engines.base import DELEGATES

    return DELEGATES.names()


def _measured_delegates() -> Iterable[str]:
    from tfcompress.edge.targets.benchmark_model import DELEGATES

    return dict.fromkeys((*_delegates(), *DELEGATES))


def registered_targets() -> Iterable[str]:
    """Return the names of the registered targets."""
    from tfcompress.edge.targets.base import TARGETS

    return TARGETS.names()


on_delegate = click.option(
    "--delegate",
    type=Registered(_delegates, listed=True),
    default="xnnpack",
    show_default=True,
    help="What runs the ops.",
)
on_measured_delegate = click.option(
    "--delegate",
    type=Registered(_measured_delegates, listed=True),
    default="xnnpack",
    show_default=True,
    help="What runs the ops; nnapi on phones only.",
)
on_threads = click.option("--threads", type=click.IntRange(1), help="CPU threads; default: one.")


class TargetName(Registered):
    """A registered target, or the name of a machine, such as `ssh:pi@raspberrypi`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail and list the names."""
        from tfcompress.edge.targets.names import target_named

        try:
            target_named(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def machine_named(name: str, python: str) -> Target:
    """Return a target that runs files, or fail if it only estimates or measures them."""
    from tfcompress.edge.targets.base import Target
    from tfcompress.edge.targets.names import target_named

    found = target_named(name, python)
    if not isinstance(found, Target):
        raise click.BadParameter(
            f"{name} estimates, or has another program measure, and runs no files.",
            param_hint="--on",
        )
    return found


on_target = click.option(
    "--on",
    "--target",
    "targets",
    type=TargetName(registered_targets, listed=True),
    multiple=True,
    default=("local",),
    show_default=True,
    help="Where to run: also ssh:USER@HOST, adb[:SERIAL], or an accelerator such as ethos-u55-256. "
    "May be given several times; a module given with --import may register others.",
)

on_one_target = click.option(
    "--on",
    "--target",
    "target",
    type=TargetName(registered_targets, listed=True),
    default="local",
    show_default=True,
    help="Machine to run on, also ssh:USER@HOST.",
)
on_python = click.option(
    "--python", default="python3", show_default=True, help="Python of machines that ssh: names."
)

on_benchmark_model = click.option(
    "--benchmark-model",
    type=click.Path(dir_okay=False),
    default="benchmark_model",
    show_default=True,
    help="TensorFlow Lite's program that measures on phones that adb: names.",
)

on_runtime = click.option(
    "--runtime",
    metavar="RELEASE",
    help="Oldest runtime that must load the file, such as 2.14, the last tflite-runtime.",
)

on_filters = click.option(
    "--filters", metavar="REGEX", help="Searched in the paths of layers; default: all layers."
)


def check_output(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a .keras file to write, checked before the work begins."""
    if path is not None and path.suffix != ".keras":
        raise click.BadParameter(f"a model is saved as .keras. Received: {path.name!r}")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist.")
    return path


def leave_current_folder() -> None:
    """Take the current folder off `sys.path`, unless PYTHONPATH names it.

    `python -c` and an empty entry of PYTHONPATH, which is easily written by mistake, put it there
    before the installed packages. Only `--import` is meant to run files of that folder.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    unwanted = {""}
    if len(entries) > 1 and "" in entries:
        unwanted.add(str(Path.cwd()))
    named = {entry for entry in entries if entry}
    sys.path[:] = [path for path in sys.path if path not in unwanted - named]


def _import(ctx: click.Context, param: click.Parameter, modules: tuple[str, ...]) -> None:
    # As `python` does for a script: the user's module lies in the folder that they stand in.
    if modules:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        importlib.import_module(module)


importing = click.option(
    "--import",
    multiple=True,
    metavar="MODULE",
    callback=_import,
    expose_value=False,
    is_eager=True,
    help="Module that registers custom layers or extensions; may be given several times.",
)


def loading(command: Command) -> Command:
    """Add the options of a command that loads a Keras model."""
    unsafe = click.option(
        "--unsafe", is_flag=True, help="Load Lambda layers too: they run code from the file."
    )
    return importing(unsafe(command))


def load(path: Path, unsafe: bool, compiled: bool = False) -> keras.Model:
    """Return the model in a .keras file, with what it was compiled with if it is wanted."""
    from tfcompress.lazy import greeting_silenced

    try:
        with greeting_silenced():
            import keras
    except ModuleNotFoundError as error:
        raise ImportError(
            "This command needs Keras and TensorFlow. "
            "Install them with: pip install 'tfcompress[tensorflow]'"
        ) from error

    from tfcompress.edge.system.console import captured

    with captured():
        try:
            return keras.models.load_model(path, compile=compiled, safe_mode=not unsafe)
        except Exception as error:
            raise BadInput(
                f"{path} cannot be loaded as a Keras model: {error}\nCustom layers must be "
                "registered by a module given with --import; Lambda layers need --unsafe."
            ) from error


def save(model: keras.Model, path: Path) -> None:
    """Write a model as a .keras file, whole or not at all."""
    from tfcompress.edge.system.files import write_whole
    from tfcompress.edge.system.scratch import scratch_folder

    with scratch_folder() as folder:
        draft = folder / "model.keras"
        model.save(draft)
        write_whole({path: draft.read_bytes()})


@contextlib.contextmanager
def warnings_in_words() -> Iterator[None]:
    """Print what the `with` block warns of, without the place in the source, to stderr."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in said:
        click.echo(warning.message, err=True)


def say_written(path: Path) -> None:
    """Say that a file was written, and how large it is."""
    click.echo(f"Wrote {path}: {path.stat().st_size:,} bytes.")


def show(found: Any, as_json: bool) -> None:
    """Print a result: a table, or JSON for a machine."""
    if as_json:
        print_json(found.to_dict())
        return
    from tfcompress.model.tables import new_console, printable

    if hasattr(found, "__rich__"):
        new_console().print(found)  # as wide as the terminal
    else:
        click.echo(printable(str(found)))


def print_json(data: object) -> None:
    """Print JSON, in which NaN and infinity have no place."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))
