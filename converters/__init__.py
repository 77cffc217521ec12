"""Keras models to .tflite files, checked.

`convert` writes a model in a precision, `inspect` says what is in a file, `verify` compares a file
with its model on the same samples, `sparsify` makes zeros in a file count.
"""

from tfcompress.converters.file.read import Inspection, inspect
from tfcompress.converters.precisions.base import DynamicInt8, Float16, Float32, Int8, Precision
from tfcompress.converters.xnnpack.sparse_check import Finding, GraphForm, graph_form
from tfcompress.edge.errors import ModelFileError

from .conversion import Converted, convert, convert_all
from .errors import ConversionError, VerificationError
from .int8_coverage import GraphOp
from .sparse import Sparse, SparseWeight, Sparsified, sparsify
from .verification import OutputError, Verification, verify

__all__ = [
    "ConversionError",
    "Converted",
    "DynamicInt8",
    "Finding",
    "Float16",
    "Float32",
    "GraphForm",
    "GraphOp",
    "Inspection",
    "Int8",
    "ModelFileError",
    "OutputError",
    "Precision",
    "Sparse",
    "SparseWeight",
    "Sparsified",
    "Verification",
    "VerificationError",
    "convert",
    "convert_all",
    "graph_form",
    "inspect",
    "sparsify",
    "verify",
]
