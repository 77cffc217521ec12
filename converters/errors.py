"""What goes wrong between a Keras model and a checked .tflite file."""

from tfcompress.edge.errors import ModelFileError

__all__ = ["ConversionError", "ModelFileError", "VerificationError"]


class ConversionError(ValueError):
    """The model cannot be converted as asked; nothing was written."""


class VerificationError(AssertionError):
    """The file's outputs are further from the Keras model's than allowed."""
