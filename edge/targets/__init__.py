"""The machines that files are run on, and the worker that runs them there."""

from . import ethos_u, local, microcontroller  # each registers itself

__all__ = ["ethos_u", "local", "microcontroller"]
