"""The machines that files are run on, and the worker that runs them there."""

from . import browser, ethos_u, local, microcontroller  # each registers itself

__all__ = ["browser", "ethos_u", "local", "microcontroller"]
