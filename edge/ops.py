"""The TFLite ops that multiply and accumulate, and what they say about a file's arithmetic."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

# Op name -> places of the activations and of the weights among the op's inputs. The transposed
# convolutions take the shape of their output first. The LSTMs' first weights may be missing; the
# next input then stands in their place, which is weights, too.
# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/schema/schema.fbs
MAC_OPS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "BATCH_MATMUL": (0, 1),
        "BIDIRECTIONAL_SEQUENCE_LSTM": (0, 1),
        "BIDIRECTIONAL_SEQUENCE_RNN": (0, 1),
        "CONV_2D": (0, 1),
        "CONV_3D": (0, 1),
        "CONV_3D_TRANSPOSE": (2, 1),
        "DEPTHWISE_CONV_2D": (0, 1),
        "FULLY_CONNECTED": (0, 1),
        "LSTM": (0, 1),
        "RNN": (0, 1),
        "SVDF": (0, 1),
        "TRANSPOSE_CONV": (2, 1),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, 1),
        "UNIDIRECTIONAL_SEQUENCE_RNN": (0, 1),
    }
)


def arithmetic(ops: Iterable[Mapping[str, Any]]) -> str:
    """Tell in which arithmetic a file computes.

    Where ops differ, the coarsest one counts, since the results depend most on it.

    >>> import numpy as np
    >>> from tfcompress.edge.ops import arithmetic
    >>> arithmetic([{"op_name": "CONV_2D", "operand_types": [np.float32, np.int8, np.float32]}])
    'dynamic'

    Args:
        ops: The nodes of a graph as LiteRT's Interpreter describes them, with `op_name` and
            `operand_types`, the types of the inputs that are there.

    Returns:
        `"float32"`, `"float16"`, `"dynamic"` (8-bit weights, float activations), `"int8"` or
        `"int16"` (the activations).
    """
    kinds: set[str] = set()
    for op in ops:
        types = [np.dtype(kind) for kind in op["operand_types"]]
        if op["op_name"] == "DEQUANTIZE" and types[0] == np.float16:
            kinds.add("float16")
        if op["op_name"] not in MAC_OPS:
            continue
        activations, weights = (types[place] for place in MAC_OPS[op["op_name"]])
        if activations == np.float32 and weights.kind in "iu":
            kinds.add("dynamic")
        else:
            kinds.add({"uint8": "int8"}.get(activations.name, activations.name))
    for kind in ("int16", "int8", "dynamic", "float16"):
        if kind in kinds:
            return kind
    return "float32"
