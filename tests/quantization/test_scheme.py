import numpy as np
import pytest

from tfcompress import FakeQuant, Int8Scheme
from tfcompress.converters import ConversionError
from tfcompress.converters.export.scope import exporting
from tfcompress.quantization.scheme import TensorScheme


def test_int8_scheme_says_bits_symmetry_and_granularity():
    scheme = Int8Scheme(symmetric_activations=True)
    assert scheme.weights == TensorScheme(8, True, "per_channel")
    assert scheme.activations == TensorScheme(8, True, "per_tensor")
    assert not Int8Scheme().activations.symmetric


@pytest.mark.parametrize("bits", [4, 16])
def test_other_widths_round_and_are_refused_at_export(bits):
    layer = FakeQuant(fixed=(0.0, 1.0), bits=bits, name="act")
    x = np.float32([[0.0, 1.0, 0.21]])
    step = 1.0 / (2**bits - 1)
    rounded = layer(x).numpy()[0]
    assert rounded.tolist() == pytest.approx([0.0, 1.0, round(0.21 / step) * step], abs=1e-6)
    assert float(layer.step()) == pytest.approx(step)
    with exporting(), pytest.raises(ConversionError, match=rf"'act' quantizes to {bits} bits"):
        layer(x)
