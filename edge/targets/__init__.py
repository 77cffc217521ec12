"""The machines that files are run on, and the worker that runs them there."""

from . import local, microcontroller  # each registers itself

__all__ = ["local", "microcontroller"]
