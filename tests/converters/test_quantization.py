"""`quantize`: what is made of a float file alone is what `convert` makes of its model."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.converters.test_judgement import head
from tests.support.float_files import float_file
from tfcompress import converters, edge
from tfcompress.converters import ConversionError, ModelFileError
from tfcompress.converters.passes.flatbuffer import pack, unpack

RNG = np.random.default_rng(0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def unsigned(file, folder):
    """A file for single images and without a signature, as older programs write them."""
    model = unpack(Path(file).read_bytes())
    model.signatureDefs = None
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = None
    path = folder / "old.tflite"
    path.write_bytes(pack(model))
    return path


def test_quantize_makes_of_the_float_file_what_convert_makes_of_the_model(files, images, tmp_path):
    out = tmp_path / "q.tflite"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = converters.quantize(files["float32"], out, converters.Int8(images), strict=True)
    assert out.read_bytes() == Path(files["int8"]).read_bytes()
    assert (made.path, made.bytes, made.float_macs) == (out, out.stat().st_size, ())
    [output] = made.outputs
    wanted, found = (edge.Runner(file)(images) for file in (files["float32"], out))
    noise = np.mean((found - wanted) ** 2, dtype=np.float64)
    # Judged by 32 of the 40 samples.
    snr = 10 * np.log10(np.mean(wanted**2, dtype=np.float64) / noise)
    assert output.snr_db == pytest.approx(snr, abs=2) and snr > 25


@pytest.mark.filterwarnings("ignore:q.tflite")
@pytest.mark.parametrize(
    ("precision", "dtype", "snr"),
    [
        (lambda x: converters.Int4Weights(x, keep=None, rounding="nearest"), "int4", 12),
        (converters.Int16x8, "int16", 30),
        (lambda x: converters.WeightOnly(bits=4, activations="float32"), "int4", 15),
        (lambda x: converters.Float16(), "float16", 60),
    ],
    ids=["int4_weights", "int16x8", "weight_only", "float16"],
)
def test_quantize_to_other_precisions(precision, dtype, snr, files, images, tmp_path):
    chosen = precision(images)
    made = converters.quantize(files["float32"], tmp_path / "q.tflite", chosen, samples=images)
    assert dtype in {tensor.dtype for tensor in converters.inspect(made).tensors}
    assert made.bytes < files["float32"].bytes and made.outputs[0].snr_db > snr
    if dtype == "int4" and chosen.integer:
        assert made.kept_weights == {}
    elif dtype == "int4":
        assert list(made.kept_weights) == ["conv"]  # by the layer in the name of the kernel


def test_quantize_takes_old_files_in_float16(files, images, tmp_path):
    old = unsigned(files["float16"], tmp_path)
    [name] = [info.name for info in edge.Runner(old).inputs]
    chosen = converters.Int8({name: images}, io="int8")
    made = converters.quantize(old, old, chosen, strict=True)
    assert [info.dtype for info in edge.Runner(made).inputs] == ["int8"]
    ours, theirs = (edge.Runner(file)(images) for file in (made, files["int8_io"]))
    # The weights were rounded to 11 bits before: a step here and there.
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
    assert names(tmp_path) == ["old.tflite"]


@pytest.mark.parametrize(
    ("source", "precision", "message"),
    [
        ("int8", converters.WeightOnly(), "'int8.tflite' is quantized already: its tensor "),
        ("dynamic", converters.WeightOnly(), "is quantized already"),
        ("float32", converters.Int8(), r"needs samples .* Int8\(calibration=samples\)"),
        ("float32", converters.Float32(), "A float32 file is made from a Keras model"),
        ("float32", converters.DynamicInt8(), "A dynamic_int8 file is made from a Keras model"),
        ("float32", converters.Int8(np.ones((4, 12, 12, 3)), equalize=True), "has none. Leave"),
        ("float32", converters.Int4Weights(np.ones((4, 9)), keep="conv"), 'Use keep="auto"'),
        ("float16", converters.Float16(), "would not make 'float16.tflite' smaller"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_quantize_refuses_what_cannot_be(source, precision, message, files, tmp_path):
    with pytest.raises(ConversionError, match=message):
        converters.quantize(files[source], tmp_path / "q.tflite", precision)
    assert names(tmp_path) == []


def test_quantize_refuses_bad_samples_and_broken_files(files, images, tmp_path):
    out = tmp_path / "q.tflite"
    for samples, message in (
        (images[..., :2], "'image' must have shape"),
        ({"x": images}, "Missing: image; unknown: x"),
        (np.full_like(images, np.nan), "hold 17280 NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            converters.quantize(files["float32"], out, converters.Int8(samples))
    (tmp_path / "cut.tflite").write_bytes(Path(files["float32"]).read_bytes()[:2000])
    with pytest.raises(ModelFileError, match="truncated or corrupt"):
        converters.quantize(tmp_path / "cut.tflite", out, converters.Int8(images))
    assert names(tmp_path) == ["cut.tflite"]


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (
            lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [y + 1.0], [x]),
            (1, 3),
            "it holds WHILE, of which some values are out of reach",
        ),
        (lambda x: tf.sqrt(x) * 2.0, (None, 3), "computes NaN on these samples"),
        (lambda x: x * 2.0, (3,), "do not all begin with one batch axis"),
    ],
    ids=["loop", "NaN", "no batch"],
)
def test_quantize_says_what_of_a_file_it_cannot_measure(function, shape, message, tmp_path):
    path = tmp_path / "f.tflite"
    path.write_bytes(float_file(function, x=shape))
    samples = RNG.normal(size=(4, 3)).astype("float32")
    with pytest.raises(ConversionError, match=rf"f\.tflite.* {message}"):
        converters.quantize(path, tmp_path / "q.tflite", converters.Int8(samples))
    assert names(tmp_path) == ["f.tflite"]


def test_quantize_warns_of_what_is_lost_and_of_integers_for_a_float_input(tmp_path):
    samples = RNG.integers(-9, 9, (64, 4))
    wide = converters.convert(head([400.0, 400.0, 1.0]), tmp_path / "wide.tflite")
    out = tmp_path / "q.tflite"
    with pytest.warns(UserWarning) as said:
        converters.quantize(wide, out, converters.Int8(samples))
    [integers, lost] = [str(w.message) for w in said if w.category is UserWarning]
    assert "for input 'x' are int64" in integers and "takes the values as they are" in integers
    assert lost.startswith("q.tflite: output 'sizes', channel 2 of 3 ")
    assert {Path(w.filename).name for w in said} == {Path(__file__).name}
    before = out.read_bytes()
    with pytest.raises(ConversionError, match=r"q\.tflite would be far from file 'wide\.tflite'"):
        converters.quantize(wide, out, converters.Int8(samples.astype("float32")), strict=True)
    assert out.read_bytes() == before
