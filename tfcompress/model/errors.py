"""What goes wrong when a Keras model is read."""

__all__ = ["ModelError"]


class ModelError(ValueError):
    """The model cannot be read, called or copied as asked; nothing was changed."""
