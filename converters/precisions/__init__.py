"""What weights and activations are stored and computed in: one file each."""

from .dynamic_int8 import DynamicInt8
from .float16 import Float16
from .float32 import Float32
from .int4_weights import Int4Weights
from .int8 import Int8
from .int16x8 import Int16x8
from .weight_only import WeightOnly

__all__ = ["DynamicInt8", "Float16", "Float32", "Int4Weights", "Int8", "Int16x8", "WeightOnly"]
