import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import tfcompress
from tfcompress import converters, edge
from tfcompress.converters import ConversionError
from tfcompress.converters.runtimes import needs
from tfcompress.edge.system.tflite import sizes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(path, layer):
    """The constant of most elements that carries a layer's name, and its scales."""
    found = converters.inspect(path)
    place, tensor = max(
        (pair for pair in enumerate(found.tensors) if pair[1].constant and layer in pair[1].name),
        key=lambda pair: np.prod(pair[1].shape),
    )
    interpreter = Interpreter(model_path=os.fspath(path))
    return interpreter.get_tensor(place), tensor


def kernels(model):
    """Kernels in TFLite's layout: the output channel first."""
    return {
        "conv": model.get_layer("conv").kernel.numpy().transpose(3, 0, 1, 2),
        "scores": model.get_layer("scores").kernel.numpy().T,
    }


def test_convert_writes_the_precision_that_is_asked_for(files):
    for name, file in files.items():
        assert file.path.is_file()
        assert (file.bytes, file.gzip_bytes) == sizes(file)
        assert file.float_macs == file.float_casts == ()
        assert Path(file).stem == name
    weights = 40 * 27 + 30 * 40
    # Each file is its kernels and a graph of a few kilobytes.
    for name, size in (("float32", 4), ("float16", 2), ("dynamic", 1), ("int8", 1)):
        assert weights * size < files[name].bytes < weights * size + 5_000, name


def test_convert_takes_names_and_calibrates_them_with_samples(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    made = {
        name: converters.convert(model, tmp_path / f"{name}.tflite", precision, samples=samples)
        for name, precision, samples in (
            ("named", "int8", (row[None] for row in x)),  # is read once
            ("built", converters.Int8(calibration=x), None),
        )
    }
    assert Path(made["named"]).read_bytes() == Path(made["built"]).read_bytes()
    assert made["named"].outputs == made["built"].outputs != ()
    quantized = converters.quantize(
        converters.convert(model, tmp_path / "f.tflite", "float32"), tmp_path / "q.tflite",
        "int8", samples=(row[None] for row in x),
    )  # fmt: skip
    assert quantized.outputs != ()
    mixed = [
        converters.convert(model, tmp_path / "m.tflite", "int4_weights", samples=x, precisions=one)
        for one in ({"a": "int8"}, {"a": converters.Int8()})
    ]
    assert mixed[0].kept_weights == mixed[1].kept_weights != {}
    with pytest.raises(ValueError, match="Received: precision='int9'"):
        converters.convert_all(model, {tmp_path / "other.tflite": "int9"})


@pytest.mark.parametrize("layer", ["conv", "scores"])
def test_convert_keeps_float32_and_float16_weights_exact(files, model, layer):
    expected = kernels(model)[layer]
    np.testing.assert_array_equal(stored(files["float32"], layer)[0], expected)
    half = stored(files["float16"], layer)[0]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected.astype(np.float16))


@pytest.mark.parametrize("layer", ["conv", "scores"])
@pytest.mark.parametrize("file", ["int8", "dynamic"])
def test_convert_makes_int8_weights_symmetric_per_channel(files, model, layer, file):
    expected = kernels(model)[layer]
    axes = tuple(range(1, expected.ndim))
    values, tensor = stored(files[file], layer)
    assert tensor.dtype == "int8"
    assert set(tensor.zero_points) == {0}
    assert (tensor.axis, len(tensor.scales)) == (0, len(expected))
    scale = np.abs(expected).max(axes) / 127
    np.testing.assert_allclose(tensor.scales, scale, rtol=1e-6)  # float32 division
    # Within one: w / scale may land on the other side of a half after a division in float32.
    ours = np.round(expected / scale.reshape(-1, *[1] * len(axes)))
    assert np.abs(values - ours).max() <= 1
    assert np.mean(values == ours) > 0.99
    assert values.min() >= -127


def test_convert_int8_io_decides_the_types_of_inputs_and_outputs(files, images):
    types = {name: edge.Runner(file).inputs[0].dtype for name, file in files.items()}
    assert types == {
        "float32": "float32",
        "float16": "float32",
        "dynamic": "float32",
        "int8": "float32",
        "int8_io": "int8",
        "uint8_io": "uint8",
    }
    # The same integers inside, whatever the border: float32 and int8 round the input alike.
    outside, inside = (edge.Runner(files[n])(images) for n in ("int8", "int8_io"))
    np.testing.assert_array_equal(outside, inside)


def test_convert_keeps_names_and_a_free_batch(files):
    runner = edge.Runner(files["float32"])
    assert [(i.name, i.shape) for i in runner.inputs] == [("image", (None, 12, 12, 3))]
    assert [(o.name, o.shape) for o in runner.outputs] == [("scores", (None, 30))]


def test_convert_prints_nothing_and_leaves_the_model_alone(tmp_path, capfd):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    before = [w.copy() for w in model.get_weights()]
    policy = keras.config.dtype_policy()
    model(np.zeros((1, 4), "float32"))
    capfd.readouterr()
    converters.convert(model, tmp_path / "m.tflite")
    assert capfd.readouterr() == ("", "")
    assert keras.config.dtype_policy() == policy
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert names(tmp_path) == ["m.tflite"]


class Nested:
    """Many kinds of structure in one model, for one conversion."""

    def __init__(self):
        keras.utils.set_random_seed(3)
        ids = keras.Input((5,), dtype="int32", name="ids")
        image = keras.Input((None, None, 3), name="image")
        text = layers.GlobalAveragePooling1D()(layers.Embedding(9, 6, name="table")(ids))
        pixels = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, padding="same")(image))
        tower = keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu")], name="tower")
        both = keras.ops.concatenate([tower(text), tower(pixels)], -1)
        outputs = {"z_first": layers.Dense(3, name="q")(both), "a_second": both}
        self.model = keras.Model({"ids": ids, "image": image}, outputs, name="many")
        rng = np.random.default_rng(0)
        self.samples = {
            "ids": rng.integers(0, 9, (6, 5)).astype("int32"),
            "image": rng.random((6, 8, 10, 3), "float32"),
        }


def test_convert_takes_several_inputs_and_outputs_and_shared_and_nested_layers(tmp_path):
    case = Nested()
    file = converters.convert(case.model, tmp_path / "many.tflite")
    found = converters.verify(case.model, file, case.samples)
    # Float32 sums of fewer than 100 products, in another order: a few units of 1.2e-7.
    found.raise_if_above(max_error=2e-6)
    assert [o.name for o in found.outputs] == ["z_first", "a_second"]


def test_convert_rebuilds_mixed_precision_in_float32(tmp_path):
    dtype = keras.DTypePolicy("mixed_float16")
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, dtype=dtype), layers.BatchNormalization(dtype=dtype)],
        name="inner",
    )
    start = keras.Input((6,), name="x")
    scaled = layers.Lambda(lambda t: t * 2, dtype=dtype)(start)
    model = keras.Model(start, layers.Dense(3, dtype=dtype, name="y")(inner(scaled)))
    before = keras.config.dtype_policy()
    file = converters.convert(model, tmp_path / "mixed.tflite")
    x = np.random.default_rng(0).random((8, 6), "float32")
    assert keras.config.dtype_policy() == before
    assert inner.layers[0].compute_dtype == "float16"
    weights = {t.dtype for t in converters.inspect(file).constants}
    assert "float16" not in weights
    # Keras computes in float16: three roundings of 2^-11 relative, on values below 8.
    converters.verify(model, file, x).raise_if_above(max_error=3 * 8 * 2**-11, snr_below=50)


def test_convert_takes_argmax_and_names_that_tensorflow_refuses(tmp_path):
    """Inputs and outputs named like Python's keywords, letters with accents, a sign in a model."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((5, 4), name=name) for name in ("é", "in", "in_")]
    y = keras.ops.stack([layers.Dense(4)(x) * (i + 1) for i, x in enumerate(inputs)], axis=1)
    outputs = {
        "class": keras.ops.argmax(y, axis=-1),
        "self": keras.ops.argmin(layers.ReLU()(y), axis=2),
        "ü": y,
    }
    model = keras.Model(inputs, outputs, name='50% "new"\n')
    file = converters.convert(model, tmp_path / "m.tflite", batch_size=1)
    assert {i.name for i in edge.Runner(file).inputs} == {"é", "in", "in_"}
    rng = np.random.default_rng(0)
    samples = {name: rng.normal(size=(1, 5, 4)).astype("float32") for name in ("in", "in_", "é")}
    found = converters.verify(model, file, samples)
    assert [o.name for o in found.outputs] == list(outputs)
    assert [o.max_error for o in found.outputs[:2]] == [0, 0]
    found.raise_if_above(max_error=2e-6)


def test_convert_names_a_layer_whose_name_tensorflow_refuses(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="a%b")])
    with pytest.raises(ConversionError, match=r"other names than 'a%b'.*set_weights"):
        converters.convert(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_convert_says_how_to_fix_free_sizes_and_the_advice_works(interpolation, tmp_path):
    image = keras.Input((None, None, 3), name="image")
    up = layers.UpSampling2D(2, interpolation=interpolation)(image)
    model = keras.Model(image, layers.Conv2D(2, 3, name="last")(up))
    with pytest.raises(ConversionError, match=r"'image' has a free height and width") as caught:
        converters.convert(model, tmp_path / "m.tflite")
    assert "input_shapes={'image': (None, height, width, 3)}" in str(caught.value)
    assert "Replace" not in str(caught.value)
    file = converters.convert(
        model, tmp_path / "m.tflite", batch_size=1, input_shapes={"image": (None, 6, 4, 3)}
    )
    assert edge.Runner(file).inputs[0].shape == (1, 6, 4, 3)
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype("float32")
    converters.verify(model, file, x).raise_if_above(max_error=1e-5)


def test_convert_tells_of_old_runtimes_and_writes_files_that_they_load(model, images, tmp_path):
    file = tmp_path / "m.tflite"
    precision = converters.DynamicInt8()
    with pytest.warns(UserWarning, match=r'FULLY_CONNECTED version 12.*runtime="2\.14"'):
        converters.convert(model, file, precision)
    old = converters.convert(model, file, precision, runtime="2.14")
    assert old.precision == converters.DynamicInt8(per_channel_dense=False)
    assert needs(file).versions["FULLY_CONNECTED"] <= 11
    assert not needs(file).newer_than((2, 14))
    assert len(stored(file, "scores")[1].scales) == 1
    # 8 bits, one scale for 30 x 40 random weights.
    converters.verify(model, old, images).raise_if_above(snr_below=30)
    before = file.read_bytes()
    with pytest.raises(ConversionError, match=r'needs a runtime of release 1\.6.* runtime="1\.5"'):
        converters.convert(model, file, runtime="1.5")
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="such as"):
        converters.convert(model, file, runtime="newest")


class Untold(keras.Model):
    """A subclassed model that cannot be rebuilt from its config."""

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)
        self.factors = factors
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x) * self.factors.value


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, left, right):
        return self.dense(left) + self.dense(right)


class Factors:
    value = 2.0


def subclassed(model, *samples):
    model(*samples)
    return model


def with_nan():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="broken")], name="net")
    model.layers[0].kernel.assign([[np.nan, 1], [np.inf, 1]])
    return model


def strings():
    text = keras.Input((), dtype="string", name="text")
    return keras.Model(text, layers.Identity()(text))


BATCH = np.ones((2, 3), "float32")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: "model.keras", TypeError, r"keras.models.load_model"),
        (lambda: keras.Sequential([layers.Dense(2)]), ConversionError, "not built"),
        (with_nan, ConversionError, "'net/broken/kernel' of model 'net' holds 2 NaN"),
        (strings, ConversionError, "'text' .* takes strings"),
        (
            lambda: subclassed(Untold(Factors(), dtype="mixed_float16"), BATCH),
            ConversionError,
            "could not be rebuilt as float32: .*get_config.*set_dtype_policy",
        ),
        (lambda: subclassed(Two(), BATCH, BATCH), ConversionError, r"\['left', 'right'\].*Wrap"),
    ],
)
def test_convert_rejects_models_that_it_cannot_convert(make, kind, message, tmp_path):
    model = make()
    with pytest.raises(kind, match=f"(?s){message}"):
        converters.convert(model, tmp_path / "m.tflite")
    assert not names(tmp_path)


def test_convert_rejects_keras_2_models_by_name(tmp_path):
    cls = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})
    with pytest.raises(TypeError, match="Keras 2 model"):
        converters.convert(cls(), tmp_path / "m.tflite")


def test_convert_rejects_arguments_before_anything_is_written(model, images, tmp_path):
    def fails(kind, message, path="m.tflite", precision=None, **arguments):
        with pytest.raises(kind, match=message):
            converters.convert(
                model, tmp_path / path, precision or converters.Float32(), **arguments
            )

    fails(ValueError, r"must end in '\.tflite'", path="m.lite")
    fails(ValueError, "no folder.*nowhere", path="nowhere/m.tflite")
    (tmp_path / "folder.tflite").mkdir()
    fails(ValueError, "is a folder", path="folder.tflite")
    fails(TypeError, r"Float16\(\)", precision=converters.Float16)
    fails(ValueError, "batch_size", batch_size=0)
    fails(ConversionError, "needs samples", precision=converters.Int8())
    fails(ValueError, "batch axis", precision=converters.Int8(calibration=images[0]))
    with pytest.raises(ValueError, match="different paths"):
        converters.convert_all(model, {})
    same = {
        tmp_path / "a.tflite": converters.Float32(),
        str(tmp_path / "a.tflite"): converters.Float16(),
    }
    with pytest.raises(ValueError, match="different paths"):
        converters.convert_all(model, same)
    assert names(tmp_path) == ["folder.tflite"]


class Inverse(layers.Layer):
    def call(self, x):
        return tf.linalg.inv(x)


def test_convert_names_an_op_without_builtin_and_keeps_the_old_file(tmp_path):
    block = keras.Sequential([keras.Input((3, 3)), Inverse(name="inverter")], name="block")
    start = keras.Input((3, 3))
    model = keras.Model(start, layers.Dense(2)(block(start)), name="bad")
    old = tmp_path / "m.tflite"
    old.write_bytes(b"old")
    with pytest.raises(ConversionError, match="MatrixInverse of layer 'block/inverter'"):
        converters.convert(model, old)
    assert old.read_bytes() == b"old"
    assert names(tmp_path) == ["m.tflite"]


def recurrent():
    start = keras.Input((6, 4), name="sequence")
    keras.utils.set_random_seed(0)
    x = layers.LSTM(8, name="memory")(start)
    return keras.Model(start, layers.Dense(3, name="y")(x), name="talker")


def test_convert_of_a_loop_with_a_free_batch_says_what_to_do(tmp_path):
    with pytest.raises(ConversionError, match=r"'memory' needs to know the batch.*batch_size=1"):
        converters.convert(recurrent(), tmp_path / "m.tflite")


@dataclass(frozen=True)
class WithLoops(converters.Int8):
    """int8 that leaves loops as they are, which the TensorFlow converter does not survive."""

    integer: ClassVar[bool] = False


@pytest.mark.slow("crashes the converter and converts again")
def test_convert_turns_a_crash_into_an_error_whose_advice_works(tmp_path):
    model = recurrent()
    x = np.random.default_rng(0).random((16, 6, 4), "float32")
    file, precision = tmp_path / "m.tflite", WithLoops(calibration=x)
    with pytest.raises(ConversionError, match=r"SIGSEGV.*'talker' to int8.*'memory'.*unroll"):
        converters.convert(model, file, precision, batch_size=1)
    assert not names(tmp_path)
    model.get_layer("memory").unroll = True
    converters.convert(model, file, precision, batch_size=1)
    # 8-bit states over six steps; measured 37 dB.
    converters.verify(model, file, x).raise_if_above(snr_below=25)


def test_convert_all_traces_a_model_once(tmp_path):
    """Again, it would take as long, and the child would read a graph that nothing uses."""
    calls = []

    class Counted(layers.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x * 2.0

    model = keras.Sequential([keras.Input((3,)), Counted()])
    calls.clear()
    converters.convert(model, tmp_path / "m.tflite", batch_size=5)
    assert calls == [(5, 3)]


def test_convert_stops_after_the_timeout(model, tmp_path):
    with pytest.raises(ConversionError, match=r"longer than 0.01 s.*'small'.*larger timeout"):
        converters.convert(model, tmp_path / "m.tflite", timeout=0.01)
    assert not names(tmp_path)


def test_convert_lists_float_ops_and_strict_refuses_them(tmp_path):
    start = keras.Input((4, 4, 4, 1), name="volume")
    x = layers.Conv3D(2, 2, name="stays_float")(start)
    model = keras.Model(start, layers.Dense(2)(layers.Flatten()(x)))
    samples = np.random.default_rng(0).random((8, 4, 4, 4, 1), "float32")
    precision = converters.Int8(calibration=samples)
    file = converters.convert(model, tmp_path / "m.tflite", precision)
    assert [str(op) for op in file.float_macs] == ["CONV_3D of layer 'stays_float'"]
    assert [op.op for op in file.float_casts] == ["QUANTIZE"]
    with pytest.raises(ConversionError, match="CONV_3D of layer 'stays_float'"):
        converters.convert(model, tmp_path / "strict.tflite", precision, strict=True)
    assert names(tmp_path) == ["m.tflite"]


def test_convert_fixes_the_batch(model, images, tmp_path):
    """16 does not divide 40: the last calibration batch is filled up."""
    precision = converters.Int8(calibration=images)
    file = converters.convert(model, tmp_path / "m.tflite", precision, batch_size=16)
    assert edge.Runner(file).inputs[0].shape == (16, 12, 12, 3)
    converters.verify(model, file, images).raise_if_above(lsb=3)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (
            converters.Float32(),
            r"a float32 file cannot have. Use Int8\(\) or Int4W.*strip",
        ),
        (converters.Float16(), "a float16 file cannot have"),
        (converters.DynamicInt8(), "a dynamic_int8 file cannot have"),
        # They would make int8 of the layers that were to stay float.
        (converters.Int8(calibration=np.zeros((1, 4), "float32")), "Leave them out.*calibrate"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_convert_takes_no_samples_for_a_model_with_ranges_of_its_own(precision, message, tmp_path):
    model = keras.Sequential([keras.Input((4,)), tfcompress.FakeQuant(fixed=(-1.0, 1.0))])
    with pytest.raises(ConversionError, match=message):
        converters.convert(model, tmp_path / "no.tflite", precision)
    assert names(tmp_path) == []
