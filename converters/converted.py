"""What `convert` and `quantize` say about a file that they wrote."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tfcompress.converters.file.model import GraphOp
from tfcompress.converters.file.on_demand import gzip_bytes
from tfcompress.converters.precisions.base import Precision

from .output_error import OutputError
from .sparse import Sparsified


@dataclass(frozen=True)
class Converted(os.PathLike[str]):
    """A .tflite file that `convert` or `quantize` wrote; usable wherever a path is.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    >>> file.path.name, file.precision.name, file.sparse
    ('tiny.tflite', 'float32', None)

    Attributes:
        path: The file.
        bytes: Size of the file, as it ships.
        precision: The precision that was asked for.
        float_macs: For an integer precision such as `Int8`: the multiplying ops that stayed in
            float, with their layers.
        float_casts: For an integer precision such as `Int8`: the QUANTIZE and DEQUANTIZE ops inside
            the graph, with the layers that they belong to. Those at the inputs and outputs of the
            model, and of layers in `kept_float`, are not counted.
        kept_float: Layers that `convert` kept in float by itself, as int8 would ruin them: a
            normalization of features of uneven ranges, an index that is a float for a while.
        kept_weights: Layer -> why its weights are stored in more bits than the precision says: int8
            for `Int4Weights`, float32 for `WeightOnly`.
        notes: What is true of the file's speed that its size does not tell.
        outputs: How far each output is from the model's, or the float file's, on up to 32 of the
            samples; empty if there were no samples.
        sparse: What `sparse=` did to the weights, and the size before; None for a dense file.
    """

    path: Path
    bytes: int
    precision: Precision
    float_macs: tuple[GraphOp, ...] = ()
    float_casts: tuple[GraphOp, ...] = ()
    kept_float: tuple[str, ...] = ()
    kept_weights: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs: tuple[OutputError, ...] = ()
    sparse: Sparsified | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @functools.cached_property
    def gzip_bytes(self) -> int:
        """Return the size of the file after `gzip`: it is compressed when this is first read."""
        return gzip_bytes(self.path, self.bytes)
