import pytest

from tfcompress import converters
from tfcompress.converters import ConversionError, Int16x8


def test_int16x8_refuses():
    with pytest.raises(ValueError, match="io='int8'"):
        Int16x8(io="int8")
    with pytest.raises(ValueError, match="max_samples=0"):
        Int16x8(max_samples=0)


def test_int16x8_wants_samples(model, tmp_path):
    with pytest.raises(ConversionError, match="Int16x8 needs samples"):
        converters.convert(model, tmp_path / "never.tflite", Int16x8())


@pytest.mark.slow("two conversions")
@pytest.mark.parametrize("io", ["float32", "int16"])
def test_int16x8_is_nearer_to_the_model_than_int8(io, model, images, files, tmp_path):
    file = converters.convert(
        model, tmp_path / "wide.tflite", Int16x8(images, io=io), strict=True, batch_size=1
    )
    found = converters.inspect(file)
    kernels = {tensor.dtype for tensor in found.constants if len(tensor.shape) > 1}
    assert kernels == {"int8"}
    computed = {found.tensors[n.outputs[0]].dtype for n in found.nodes if n.op != "DEQUANTIZE"}
    assert "int8" not in computed
    assert "int16" in computed
    assert found.tensors[found.signatures[0].inputs["image"]].dtype == io
    snr = [converters.verify(model, f, images).outputs[0].snr_db for f in (file, files["int8"])]
    # Weights of 8 bits, and nothing else, are rounded so that one sees it.
    assert snr[0] > snr[1] + 3
    assert "XNNPACK has no kernels for activations of 16 bits" in file.notes[0]
