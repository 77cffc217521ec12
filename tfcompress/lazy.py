"""Public names that are imported on first use (PEP 562), so that `import tfcompress` costs little.

Keras finds a class in a saved file by its registered name, so our classes must be registered when
Keras is there: `register_with_keras` sees to it, whichever of the two is imported first.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import lazy_loader

__all__ = ["REGISTERING", "attach", "greeting_silenced", "register_with_keras"]

REGISTERING = (
    "distill.distiller",
    "distill.losses",
    "distill.soft_targets",
    "model.opening.batch",
    "model.opening.parameter",
    "pruning.schedules",
    "quantization.fake_quant",
    "quantization.wrapper",
    "regularizers.group_lasso",
    "regularizers.smooth_l0",
)
"""Modules that register classes with Keras."""


@contextlib.contextmanager
def greeting_silenced() -> Iterator[None]:
    """Keep TensorFlow's greeting off the console while Keras is imported.

    It stays if Keras is imported already, or if the environment sets TF_CPP_MIN_LOG_LEVEL.
    """
    from .edge.system.console import captured

    greets = "keras" not in sys.modules and "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    with captured(enabled=greets):
        yield


def attach(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package whose stub lists its names.

    Args:
        package: Name of the package: its `__name__`.
        file: Path of its `__init__.py`: its `__file__`. The names are the imports in the
            `__init__.pyi` beside it.

    Returns:
        The three. `__getattr__` silences TensorFlow's greeting while it imports, unless the
        environment sets TF_CPP_MIN_LOG_LEVEL. It raises ImportError, which says what to install, if
        Keras or TensorFlow is missing.
    """
    load, names, public = lazy_loader.attach_stub(package, file)

    def get(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            with greeting_silenced():
                return load(name)
        except ModuleNotFoundError as error:
            if error.name not in ("keras", "tensorflow"):
                raise
            raise ImportError(
                f"{package}.{name} needs Keras and TensorFlow. "
                "Install them with: pip install 'tfcompress[tensorflow]'"
            ) from error

    return get, names, public


def register_with_keras() -> None:
    """Import the modules that register classes, now or as soon as Keras is imported."""
    if find_spec("keras") is not None and find_spec("tensorflow") is not None:
        import wrapt

        wrapt.register_post_import_hook(_register, "keras")


def _register(keras: ModuleType) -> None:
    for module in REGISTERING:
        importlib.import_module(f"{__package__}.{module}")
