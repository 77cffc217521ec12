from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcompress.edge.tensors import TensorInfo, dequantize, natural_order, quantize


@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=20),
    st.sampled_from([2.0**-6, 2.0**-2, 1.0, 4.0]),
    st.sampled_from([("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767)]),
    st.integers(-5, 5),
)
def test_quantize_rounds_halves_to_even_and_saturates(values, scale, kind, offset):
    dtype, low, high = kind
    zero_point = offset + (128 if dtype == "uint8" else 0)
    info = TensorInfo("x", (None,), np.dtype(dtype), scale, zero_point)
    # Scales are powers of two, so Python's exact fractions round as the definition says.
    expected = [
        min(max(round(Fraction(float(np.float32(v))) / Fraction(scale)) + zero_point, low), high)
        for v in values
    ]
    result = quantize(np.array(values, np.float32), info)
    assert result.dtype == np.dtype(dtype)
    assert result.tolist() == expected
    back = dequantize(result, info)
    assert back.dtype == np.float32
    assert back.tolist() == [(q - zero_point) * scale for q in expected]


def test_quantize_saturates_infinities_and_refuses_nan():
    info = TensorInfo("x", (None,), np.dtype("int8"), 0.1, 3)
    assert quantize(np.array([np.inf, -np.inf], np.float32), info).tolist() == [127, -128]
    with pytest.raises(ValueError, match="'x' holds NaN"):
        quantize(np.array([np.nan], np.float32), info)


def test_natural_order_sorts_numbers_by_value():
    names = ["output_10", "output_2", "output_1", "a", "10", "9"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "output_1", "output_2", "output_10"]
