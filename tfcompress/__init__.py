"""Make Keras 3 models small and fast on the device, and prove it.

`tfcompress` itself makes a model smaller while it trains, `tfcompress.converters` turns it into a
checked .tflite file, `tfcompress.edge` runs and measures that file. The last needs neither Keras
nor TensorFlow. The public names stand in `__init__.pyi`.
"""

from .lazy import attach, register_with_keras

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
register_with_keras()
