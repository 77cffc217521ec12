"""Errors of reading a Keras model."""

__all__ = ["ModelError"]


class ModelError(ValueError):
    """A model cannot be read, called or copied; nothing was changed."""
