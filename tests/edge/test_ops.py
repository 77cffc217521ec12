import numpy as np
import pytest

from tfcompress import edge
from tfcompress.edge.ops import arithmetic

F, H, I8, U8, I16, SHAPE = np.float32, np.float16, np.int8, np.uint8, np.int16, np.int32


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([("ADD", [I8, I8])], "float32"),
        ([("CONV_2D", [F, F, F])], "float32"),
        ([("DEQUANTIZE", [H]), ("CONV_2D", [F, F, F])], "float16"),
        ([("CONV_2D", [H, H, H])], "float16"),
        ([("FULLY_CONNECTED", [F, I8, F])], "dynamic"),
        ([("DEPTHWISE_CONV_2D", [U8, U8, SHAPE])], "int8"),
        ([("BATCH_MATMUL", [I16, I16])], "int16"),
        # One of each: the coarsest counts.
        ([("CONV_2D", [F, F, F]), ("CONV_2D", [F, I8, F])], "dynamic"),
        ([("CONV_2D", [F, I8, F]), ("CONV_2D", [I8, I8, SHAPE])], "int8"),
        # The transposed convolutions take the shape of their output first.
        ([("TRANSPOSE_CONV", [SHAPE, I8, I8])], "int8"),
        ([("TRANSPOSE_CONV", [SHAPE, I8, F])], "dynamic"),
        ([("CONV_3D_TRANSPOSE", [SHAPE, F, F])], "float32"),
        # Recurrent ops, with and without the first of their optional weights.
        ([("UNIDIRECTIONAL_SEQUENCE_LSTM", [I8] * 9 + [SHAPE])], "int8"),
        ([("UNIDIRECTIONAL_SEQUENCE_LSTM", [F] + [I8] * 7)], "dynamic"),
        ([("SVDF", [F, I8, F, F])], "dynamic"),
    ],
)
def test_arithmetic_reads_the_ops_that_multiply(ops, expected):
    nodes = [{"op_name": name, "operand_types": types} for name, types in ops]
    assert arithmetic(nodes) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("transposed", "float32"), ("transposed_dynamic", "dynamic"), ("transposed_int8", "int8")],
)
def test_arithmetic_finds_the_operands_of_a_real_transposed_convolution(files, name, expected):
    engine = edge.Runner(files[name]).engine
    assert "TRANSPOSE_CONV" in {op["op_name"] for op in engine.ops()}
    assert engine.arithmetic() == expected
