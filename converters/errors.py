"""The errors of the converters."""

from tfcompress.edge.errors import ModelFileError

__all__ = ["ConversionError", "ModelFileError", "VerificationError"]


class ConversionError(ValueError):
    """The model cannot be converted as asked; nothing was written."""


class VerificationError(AssertionError):
    """The file's outputs are further from those of the Keras model than allowed."""
