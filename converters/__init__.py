"""Keras models to .tflite files, checked.

`convert` writes a model in a precision, `inspect` says what is in a file, `verify` compares a file
with its model on the same samples, `sparsify` makes zeros in a file count.
"""

from tfcompress.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
