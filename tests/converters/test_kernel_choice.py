import keras
import numpy as np
import pytest
from keras import layers

from tfcompress.converters import (
    DynamicInt8,
    Float32,
    Int4Weights,
    Int8,
    WeightOnly,
    convert,
    convert_all,
    inspect,
)
from tfcompress.converters.kernel_choice import check_exceptions, choose, layer_paths


@pytest.fixture(scope="module")
def net():
    x = keras.Input((8,))
    y = layers.ReLU(name="relu")(layers.Dense(8, name="dense")(x))
    return keras.Model(x, layers.Dense(2, name="last")(layers.Dense(2, name="head")(y)))


@pytest.fixture(scope="module")
def nested():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="dense")], name="inner")
    x = keras.Input((8,))
    return keras.Model(x, layers.Dense(2, name="dense")(inner(x)), name="outer")


def test_layer_paths_tell_layers_of_one_name_apart(nested):
    assert layer_paths(nested, "^dense", "keep") == ["dense"]
    assert layer_paths(nested, ["inner"], "keep") == ["inner/dense"]
    assert layer_paths(nested, "dense", "keep") == ["inner/dense", "dense"]


def test_layer_paths_refuse_what_has_no_weights(net):
    with pytest.raises(ValueError, match=r"No layer with a kernel .* There are: dense, head, last"):
        layer_paths(net, "relu", "keep")


def test_the_first_that_selects_a_layer_counts(net):
    exceptions = {("head",): Int4Weights(rounding="nearest"), "head|last": Int8()}
    found = choose(net, Int8(), exceptions)
    assert found.kernels["only"] == ["head"]
    assert found.kernels["keep"] == ["last"]
    assert found.kernels["rounding"] == "nearest"
    assert choose(net, Int8(), {}).kernels is None


def test_weights_of_floats_mix(net):
    found = choose(net, Float32(), {"head": WeightOnly(4), "last": WeightOnly(8)})
    (step,) = found.passes
    assert step.module == "weight_only"
    assert step.options["default"] is None
    assert {path: form["bits"] for path, form in step.options["layers"].items()} == {
        "head": 4, "last": 8,
    }  # fmt: skip
    samples = np.zeros((1, 8))
    rounded = WeightOnly(4, rounding="gptq", calibration=samples)
    with pytest.raises(ValueError, match="takes the samples of the precision of the file"):
        choose(net, WeightOnly(8), {"head": rounded})
    assert choose(net, WeightOnly(8, calibration=samples), {"head": rounded}).passes


def test_one_file_has_one_rounding(net):
    with pytest.raises(ValueError, match="one rounding in a file"):
        choose(net, Int4Weights(), {"head": Int4Weights(rounding="nearest")})


@pytest.mark.parametrize(
    ("precision", "exceptions", "message"),
    [
        (Int8(), {"head": Float32()}, "cannot be float32 in a file of the precision int8"),
        (Float32(), {"head": DynamicInt8()}, "cannot be dynamic_int8"),
        (DynamicInt8(), {"head": WeightOnly()}, "cannot be weight_only"),
        (Int8(), {"head": Int8}, "add parentheses"),
        (Int8(), {}, "precisions={}"),
        (Int8(), "head", "precisions='head'"),
    ],
)
def test_precisions_that_do_not_mix_are_refused_first(precision, exceptions, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        check_exceptions({tmp_path: precision}, {tmp_path: exceptions})
    with pytest.raises((TypeError, ValueError), match=message):
        convert(None, tmp_path / "never.tflite", precision, precisions=exceptions)


@pytest.mark.parametrize(
    "exceptions",
    [{}, {"b.tflite": {"head": Int8()}}, [("a.tflite", {})], {"a.tflite": "head"}, {1: {}}],
    ids=repr,
)
def test_exceptions_belong_to_files_that_are_written(exceptions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match="precisions"):
        convert_all(None, {"a.tflite": Int4Weights()}, precisions=exceptions)


def test_convert_all_takes_exceptions_for_each_file(tmp_path):
    x = keras.Input((64,))
    y = layers.Dense(64, name="body", activation="relu")(x)
    model = keras.Model(x, layers.Dense(64, name="head")(y))
    files = {
        tmp_path / name: WeightOnly(activations="float32") for name in ("a.tflite", "b.tflite")
    }
    single = {str(tmp_path / "b.tflite"): {"body": WeightOnly(4, activations="float32")}}
    found = [
        {t.name.split("/")[1]: t.dtype for t in inspect(file).constants if "int" in t.dtype}
        for file in convert_all(model, files, precisions=single)
    ]
    assert [sorted(set(kinds.values())) for kinds in found] == [["int8"], ["int4", "int8"]]
    [narrow] = [name for name, dtype in found[1].items() if dtype == "int4"]
    assert narrow.startswith("body")
