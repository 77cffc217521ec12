import keras
import numpy as np
import pytest

from tests.zoo.architectures import ARCHITECTURES, BEGINNINGS, NAMES, SAMPLES

ISSUE = """
dense MLP; sequential CNN; conv-bn-relu; conv1d; conv1d-bn-relu; conv2d-transpose;
conv2d-transpose with bn-relu; separable 2d; separable 1d; depthwise-bn-relu6; conv3d; MHA;
LayerNorm; transformer block; nested model; nested MobileNetV2 backbone with a new head; LSTM; GRU;
BiLSTM; embedding; TimeDistributed; Lambda; raw ops on Keras tensors; custom layer;
layer used twice; siamese; multi-input multi-output; BN first; pre-activation BN-relu-conv;
dense-BN; residual add-relu; swish/gelu; PReLU/LeakyReLU; bilinear upsampling;
Rescaling + RandomFlip; mixed_float16; subclassed model; MobileNet; MobileNetV2; MobileNetV3Small;
EfficientNetB0; EfficientNetV2B0; ResNet50; ResNet50V2; DenseNet121; NASNetMobile; ConvNeXtTiny;
InceptionV3; Xception; VGG16; MLPerf Tiny ResNet-8
"""


def test_the_51_in_order():
    whole = [name for name in ARCHITECTURES if name not in BEGINNINGS]
    assert whole == [" ".join(name.split()) for name in ISSUE.split(";")]
    assert len(whole) == 51


def test_mlperf_tiny_resnet8_has_the_published_size():
    assert ARCHITECTURES["MLPerf Tiny ResNet-8"]().model.count_params() == 78_666


@pytest.mark.parametrize("name", NAMES)
def test_predicts_and_round_trips(name, tmp_path):
    case = ARCHITECTURES[name]()
    assert case.name == name
    assert keras.config.dtype_policy().name == "float32"
    outputs = keras.tree.flatten(case.model(case.x, training=False))
    targets = list(case.y.values()) if isinstance(case.y, dict) else [case.y]
    for output, target in zip(outputs, targets, strict=True):
        assert np.isfinite(output).all()
        assert output.shape == (target.shape if target.ndim > 1 else (SAMPLES, 10))

    case.model.save(tmp_path / "model.keras")
    # safe_mode=False: one of them holds a Python lambda.
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    again = keras.tree.flatten(loaded(case.x, training=False))
    for output, repeated in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(output, repeated)
