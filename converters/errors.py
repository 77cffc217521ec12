"""What goes wrong between a Keras model and a checked .tflite file."""


class ConversionError(ValueError):
    """The model cannot be converted as asked; nothing was written."""


class VerificationError(AssertionError):
    """The file's outputs are further from the Keras model's than allowed."""
