import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.converters import ConversionError, Int4Weights, Int8
from tfcompress.demo import load_digits


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rounding": "floor"}, ValueError, "rounding='floor'"),
        ({"budget": 0}, ValueError, "budget=0"),
        ({"budget": 1e6}, TypeError, "budget=1000000.0"),
        ({"keep": []}, ValueError, r"keep=\[\]"),
        ({"keep": 3}, TypeError, "keep=3"),
        ({"keep": [3]}, TypeError, r"keep=\[3\]"),
        ({"io": "int4"}, ValueError, "io='int4'"),
    ],
)
def test_int4_weights_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        Int4Weights(**arguments)


def test_int4_weights_keep_the_ends_unless_told_otherwise():
    assert Int4Weights().kernels().ends
    assert Int4Weights().kernels().keep is None
    assert not Int4Weights(keep=None).kernels().ends
    assert Int4Weights(keep="head").kernels().keep == "head"


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = image
    for index, width in enumerate((16, 24, 32)):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"bn{index}")(x))
    x = layers.DepthwiseConv2D(3, name="deep")(x)
    x = layers.Dense(32, activation="relu", name="dense")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(10, name="head")(x), name="digits")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(digits.x_train, digits.y_train, epochs=12, batch_size=32, verbose=0)
    return model


@pytest.fixture(scope="module")
def files(model, digits, tmp_path_factory):
    folder, x = tmp_path_factory.mktemp("digits"), digits.x_train[:128]
    wanted = {
        "int8": Int8(x),
        "gptq": Int4Weights(x, keep=None),
        "nearest": Int4Weights(x, keep=None, rounding="nearest"),
        "ends": Int4Weights(x),
        "budget": Int4Weights(x, budget=17_000),
        "named": Int4Weights(x, keep=["conv1", "dense"]),
    }
    paths = {folder / f"{name}.tflite": precision for name, precision in wanted.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the nearest integers are far from the model
        done = converters.convert_all(model, paths, batch_size=1)
    return dict(zip(wanted, done, strict=True))


def dtypes(file, model):
    """Layer -> type of its kernel, by the shape of the kernel, which each layer has its own of."""
    shapes = {
        (w.shape[-1], *w.shape[:-1]) if w.name == "kernel" else w.shape: layer.name
        for layer in model.layers
        for w in layer.weights[:1]
    }
    shapes[1, 3, 3, 32] = "deep"
    found = converters.inspect(file).constants
    return {shapes[t.shape]: t.dtype for t in found if len(t.shape) > 1 and t.shape in shapes}


SLOW = pytest.mark.slow("trains a net, rounds it six times")


@SLOW
def test_gptq_is_nearer_to_the_model_than_the_nearest_integers(files, model, digits):
    snr = {
        name: converters.verify(model, file, digits.x_test).outputs[0].snr_db
        for name, file in files.items()
    }
    # Seen: 12.3 and 18.3 dB, 25.9 with the ends in int8, 32.3 under the budget; int8 has 35.0.
    assert snr["gptq"] > snr["nearest"] + 3
    assert snr["int8"] > snr["budget"] > snr["ends"] > snr["gptq"]
    right = [
        np.mean(edge.Runner(files[name])(digits.x_test).argmax(-1) == digits.y_test)
        for name in ("int8", "ends")
    ]
    assert right[1] > right[0] - 0.02  # 540 images; seen: 97.0% and 96.9%


@SLOW
def test_what_stays_int8_is_what_was_asked_for(files, model):
    every = {"conv0", "conv1", "conv2", "deep", "dense", "head"}
    for name, kept in (
        ("int8", every),
        ("gptq", {"deep"}),
        ("ends", {"deep", "conv0", "head"}),
        ("named", {"deep", "conv1", "dense"}),
    ):
        found = dtypes(files[name], model)
        assert {layer for layer, dtype in found.items() if dtype == "int8"} == kept, name
        assert set(files[name].kept_weights) == (kept if name != "int8" else set()), name
    assert files["named"].kept_weights["conv1"] == "asked for"
    assert "depthwise" in files["named"].kept_weights["deep"]
    assert any("slower" in note for note in files["gptq"].notes)
    assert files["int8"].notes == ()


@SLOW
def test_a_budget_is_met_and_used(files):
    assert files["gptq"].bytes < files["budget"].bytes <= 17_000 < files["int8"].bytes
    assert files["budget"].bytes > 14_000


@SLOW
def test_a_budget_that_cannot_be_met_says_the_smallest_possible(files, model, digits, tmp_path):
    precision = Int4Weights(digits.x_train[:64], budget=5000)
    path = tmp_path / "never.tflite"
    with pytest.raises(ConversionError, match=r"smallest possible file has ([\d,]+) bytes") as info:
        converters.convert(model, path, precision, batch_size=1)
    said = int(info.value.args[0].split("file has ")[1].split(" ")[0].replace(",", ""))
    # The same file but for its notes: other samples give other ranges, not another size.
    assert said == files["gptq"].bytes
    assert not path.exists()


@SLOW
def test_layers_of_a_file_may_have_another_precision(files, model, digits, tmp_path):
    path, x = tmp_path / "mixed.tflite", digits.x_train[:64]
    file = converters.convert(
        model, path, Int8(x), precisions={"conv[12]": Int4Weights()}, batch_size=1
    )
    found = dtypes(file, model)
    assert {layer for layer, dtype in found.items() if dtype == "int4"} == {"conv1", "conv2"}
    assert file.kept_weights["dense"] == "the precision of the rest of the file"
    file = converters.convert(
        model, path, Int4Weights(x), precisions={("head",): Int8()}, batch_size=1
    )
    found = dtypes(file, model)
    assert {layer for layer, dtype in found.items() if dtype == "int8"} == {"deep", "head"}


@pytest.fixture(scope="module")
def trained(model, digits):
    """The model, trained on for weights of 4 bits."""
    qat = tfc.quantize_aware(model, scheme=tfc.QuantizationScheme(weight_bits=4))
    qat.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    qat.fit(digits.x_train[:640], digits.y_train[:640], epochs=1, batch_size=32, verbose=0)
    return qat


@pytest.mark.slow("trains a net for 4 bits")
def test_a_model_trained_for_4_bits_is_stored_as_it_was_trained(trained, model, digits, tmp_path):
    paths = {tmp_path / "int4.tflite": Int4Weights(), tmp_path / "int8.tflite": Int8()}
    four, eight = converters.convert_all(trained, paths, batch_size=1, strict=True)
    assert set(four.kept_weights) == {"quantized_deep"}
    kernels = [t for t in converters.inspect(four).constants if len(t.shape) > 1]
    assert sorted(t.dtype for t in kernels) == ["int4"] * 5 + ["int8"]
    assert four.bytes < 0.7 * eight.bytes
    # TFLite's kernels round other halves up than XNNPACK and the trained graph: a step here and
    # there, which later layers enlarge. Seen: 2 steps at most, 0.3 on average.
    verified = converters.verify(trained, four, digits.x_test[:200])
    verified.raise_if_above(lsb=4, mean_lsb=0.8)


@pytest.mark.slow("trains a net for 4 bits")
def test_a_model_trained_for_8_bits_has_none_of_4(trained, model, tmp_path):
    qat = tfc.calibrate(tfc.quantize_aware(model), np.ones((8, 8, 8, 1), "float32"))
    with pytest.raises(ConversionError, match="no kernel was trained with weights of 4 bits"):
        converters.convert(qat, tmp_path / "never.tflite", Int4Weights(), batch_size=1)
    path = tmp_path / "kept.tflite"
    file = converters.convert(trained, path, Int4Weights(keep=["conv1"]), batch_size=1)
    assert file.kept_weights["quantized_conv1"] == "asked for"
    with pytest.raises(ConversionError, match=r"budget of 5,000 bytes cannot be met: the file has"):
        converters.convert(trained, path, Int4Weights(budget=5000), batch_size=1)
