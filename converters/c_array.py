"""`to_c_array`: a .tflite file -> C++ source that holds it, for TensorFlow Lite Micro."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tfcompress.converters.file.read import inspect
from tfcompress.edge.arguments import check_path
from tfcompress.edge.system.files import check_folder, write_whole

from .errors import ConversionError

__all__ = ["to_c_array"]

# What its resolver can add. Source: the methods of MicroMutableOpResolver, August 2026,
# https://github.com/tensorflow/tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h
KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
        ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
        BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D
        COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU
        EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
        GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D
        LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX
        MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU
        QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
        RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
        SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE
        STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
        UNPACK VAR_HANDLE WHILE ZEROS_LIKE
        """,
    )
)
IRREGULAR = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    "ethos-u": "EthosU",  # what Vela makes of the ops that an NPU takes
}

HEADER = """\
// {file}: {bytes} bytes, for TensorFlow Lite Micro. Written by tfcompress.
#ifndef {guard}
#define {guard}

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern const unsigned char {array}[];
extern const unsigned int {array}_len;

// Ops of the file, and no others: what is not added is not linked.
using {type}OpResolver = tflite::MicroMutableOpResolver<{count}>;

inline TfLiteStatus Add{type}Ops({type}OpResolver& resolver) {{
{lines}
  return kTfLiteOk;
}}

#endif  // {guard}
"""
SOURCE = """\
#include "{header}"

// A flatbuffer is read in place, and its tensors are aligned to 16 bytes.
alignas(16) const unsigned char {array}[] = {{
{rows}
}};
const unsigned int {array}_len = {bytes};
"""


def to_c_array(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a .tflite file as C++ source, for TensorFlow Lite Micro on a microcontroller.

    The header declares the array and a resolver with the ops of the file, each on one line. Whether
    TensorFlow Lite Micro runs the file, and in how many bytes, tells `edge.Microcontroller`.
    Constants that lie outside of the file's tables, which it would not read, are put among them.

    >>> import tempfile
    >>> from tfcompress import converters
    >>> from tfcompress.edge.system.tflite import PROBE  # adds 1 to rows of four numbers
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     header, source = converters.to_c_array(PROBE, f"{folder}/adder.cc")
    ...     print(header.name, *[line for line in header.read_text().splitlines() if "()" in line])
    adder.h   TF_LITE_ENSURE_STATUS(resolver.AddAdd());

    Args:
        path: The .tflite file.
        out: The file to write, such as `"model.cc"`, in a folder that exists; the header lies
            beside it. The array is named `g_model` then.

    Returns:
        The header and the source.

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ConversionError: TensorFlow Lite Micro has no such op; the message names it.
        TypeError: An argument is no path.
        ValueError: `out` does not end in .cc, .h or neither, or its folder does not exist.
        PermissionError: The folder may not be written in.
    """
    target = check_path("out", out).expanduser()
    if target.suffix not in ("", ".h", ".cc"):
        raise ValueError(f"`out` must end in .cc or .h. Received: out='{target}'")
    header, source = target.with_suffix(".h"), target.with_suffix(".cc")
    check_folder(source)
    found = inspect(path)
    ops = sorted(found.ops)
    unknown = [op for op in ops if op not in KNOWN and op not in IRREGULAR]
    if unknown:
        raise ConversionError(
            f"'{found.path.name}': TensorFlow Lite Micro has no op {', '.join(unknown)}. Replace "
            "what these come from by layers that are made of other ops."
        )
    content = _with_constants_inside(found.path.read_bytes())
    name = re.sub(r"\W", "_", target.stem)
    words = {
        "file": found.path.name.encode("ascii", "replace").decode(),
        "bytes": len(content),
        "guard": f"{name.upper()}_H_",
        "array": f"g_{name}",
        "type": "".join(part[:1].upper() + part[1:] for part in name.split("_")),
        "count": len(ops),
        "header": header.name,
        "lines": "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.Add{_method(op)}());" for op in ops),
        "rows": "\n".join(
            "  " + " ".join(f"0x{byte:02x}," for byte in row)
            for row in (content[i : i + 16] for i in range(0, len(content), 16))
        ),
    }
    write_whole(
        {
            header: HEADER.format_map(words).encode(),
            source: SOURCE.format_map(words).encode(),
        }
    )
    return header, source


def _method(op: str) -> str:
    """Return the name of an op in the resolver's methods: CONV_2D is Conv2D."""
    parts = (part if part[0].isdigit() else part.capitalize() for part in op.split("_"))
    return IRREGULAR.get(op) or "".join(parts)


def _with_constants_inside(content: bytes) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    from tfcompress.converters.passes.flatbuffer import pack, unpack

    buffers = schema.ModelT.InitFromPackedBuf(content, 0).buffers
    # The offset counts from the beginning of the file; 0 and 1 stand for a buffer in the tables.
    return pack(unpack(content)) if any(buffer.offset > 1 for buffer in buffers) else content
