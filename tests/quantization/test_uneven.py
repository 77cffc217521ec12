import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.quantization.uneven import is_uneven, uneven_first_layers

RNG = np.random.default_rng(0)
SIZES = np.float32([1.0, 50_000.0, 5.0])
X = RNG.uniform(0.0, 1.0, (64, 3)).astype("float32") * SIZES


def normalization():
    layer = layers.Normalization(name="norm")
    layer.adapt(X)
    return layer


def batch_normalization():
    layer = layers.BatchNormalization(name="norm")
    layer.build((None, 3))
    layer.moving_mean.assign(X.mean(axis=0))
    layer.moving_variance.assign(X.var(axis=0))
    return layer


def rescaling():
    return layers.Rescaling(1.0 / SIZES, name="norm")


def net(norm, inputs=1):
    if inputs == 1:
        given = x = keras.Input((3,), name="x")
    else:
        given = [keras.Input((1,), name=name) for name in "abc"]
        x = layers.Concatenate()(given)
    return keras.Model(given, layers.Dense(2, name="head")(norm(x)))


def test_a_subclass_with_the_call_of_its_base_is_as_uneven():
    class OldRescaling(layers.Rescaling):
        def __init__(self, *args, legacy=None, **kwargs):
            super().__init__(*args, **kwargs)

    class Other(layers.Rescaling):
        def call(self, inputs):
            return super().call(inputs * SIZES)

    assert is_uneven(OldRescaling(1.0 / SIZES))
    assert not is_uneven(Other(1.0 / SIZES))


@pytest.mark.parametrize("norm", [normalization, batch_normalization, rescaling])
@pytest.mark.parametrize("inputs", [1, 3])
def test_uneven_first_layer_stays_in_float_and_says_so(norm, inputs):
    model = net(norm(), inputs)
    with pytest.warns(UserWarning, match="'norm' stays in float"):
        qat = tfc.quantize_aware(model)
    assert [layer.path for layer in tfc.qat_report(qat).floating] == ["norm"]
    assert not any(layer.name.startswith("fake_quant_x") for layer in qat.layers)
    for chosen in ({"exclude": ["norm"]}, {"filters": ".*"}):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            tfc.quantize_aware(model, **chosen)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(1.0 / 255.0),
        layers.Rescaling([1.0 / 255.0, 1.0 / 127.5, 1.0 / 64.0], offset=-1.0),
        layers.Rescaling([0.0, 1.0]),
        layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3409.0, 3262.0, 3292.0]),
        layers.Normalization(),
        layers.Dense(2),
    ],
    ids=["scale", "scales", "nothing", "ImageNet", "not adapted", "no normalization"],
)
def test_images_and_the_like_are_even(layer):
    assert not is_uneven(layer)


def test_one_feature_far_from_zero_is_uneven():
    assert is_uneven(layers.Normalization(mean=[2000.0], variance=[100.0]))
    assert not is_uneven(layers.Normalization(mean=[2000.0], variance=[1e6]))


def test_a_normalization_behind_a_layer_is_not_first():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(batch_normalization()(layers.Dense(3)(x))))
    assert uneven_first_layers(model) == set()


def operations():
    return lambda x: (x - X.mean(axis=0)) / X.std(axis=0)


def nested():
    return keras.Sequential([keras.Input((3,)), normalization()])


@pytest.mark.parametrize(
    ("norm", "inputs"), [(normalization, 1), (operations, 1), (nested, 1), (normalization, 3)]
)
def test_files_keep_the_small_features(norm, inputs, tmp_path):
    keras.utils.set_random_seed(0)
    model = net(norm(), inputs)
    data = X if inputs == 1 else dict(zip("abc", np.split(X, 3, axis=-1), strict=True))
    with pytest.warns(UserWarning, match="stays in float"):
        qat = tfc.quantize_aware(model)
    tfc.calibrate(qat, data)
    for trained, precision in ((qat, converters.Int8()), (model, converters.Int8(data))):
        file = converters.convert(trained, tmp_path / "m.tflite", precision)
        assert converters.verify(model, file, data).outputs[0].snr_db > 30.0
        # The converter folds the division by operations into the first kernel.
        assert file.float_macs == () or (norm is operations and trained is model)


@pytest.mark.parametrize("constant", [127.5, np.float32([123.7, 116.3, 103.5])])
def test_operations_on_images_and_the_like_are_even(constant):
    model = net(lambda x: (x / 255.0 - constant / 255.0) / 0.2)
    assert uneven_first_layers(model) == set()
    assert uneven_first_layers(net(lambda x: x - SIZES)) == set()
    with pytest.warns(UserWarning, match="Operation 'subtract.*stays in float"):
        assert len(uneven_first_layers(net(lambda x: 0.5 * ops.subtract(SIZES, x) / SIZES))) == 3
