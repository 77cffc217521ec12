import numpy as np
import pytest
from keras import layers

from tfcompress import FakeQuant, QuantizationScheme
from tfcompress.converters import ConversionError
from tfcompress.converters.export.scope import exporting
from tfcompress.quantization.scheme import TensorScheme, weight_bits


def test_int8_scheme_says_bits_symmetry_and_granularity():
    scheme = QuantizationScheme(symmetric_activations=True)
    assert scheme.weights == TensorScheme(8, True, "per_channel")
    assert scheme.activations == TensorScheme(8, True, "per_tensor")
    assert not QuantizationScheme().activations.symmetric


def test_a_scheme_refuses_other_widths_of_weights():
    with pytest.raises(ValueError, match=r"`weight_bits` must be 8 or 4\. Received: weight_bits=6"):
        QuantizationScheme(weight_bits=6)
    with pytest.raises(TypeError, match="weight_bits="):
        QuantizationScheme(weight_bits=4.0)


def test_kernels_without_a_form_of_4_bits_are_trained_with_8():
    scheme = QuantizationScheme(weight_bits=4)
    narrow = [layers.Conv1D(4, 3), layers.Conv2D(4, 3), layers.Dense(4)]
    wide = [layers.DepthwiseConv2D(3), layers.Conv2DTranspose(4, 3), layers.Conv2D(4, 3, groups=2)]
    assert [weight_bits(scheme, layer) for layer in (*narrow, *wide)] == [4] * 3 + [8] * 3
    assert weight_bits(QuantizationScheme(), layers.Dense(4)) == 8


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
