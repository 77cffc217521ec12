import dataclasses
import json

import keras
import numpy as np
import pytest

from tfcompress import converters, edge
from tfcompress.converters import ModelFileError, VerificationError


@pytest.fixture(scope="module")
def found(model, files, images):
    return {name: converters.verify(model, file, images) for name, file in files.items()}


def test_verify_figures_equal_numpy(found, files, model, images):
    expected = np.asarray(model(images, training=False), np.float64)
    runner = edge.Runner(files["int8_io"])
    (image,), (info,) = runner.inputs, runner.outputs
    integers = np.clip(np.round(images / image.scale) + image.zero_point, -128, 127)
    raw = runner(integers.astype("int8"), raw=True)
    actual = (raw.astype(np.float64) - info.zero_point) * info.scale
    error = np.abs(actual - expected)
    scores = found["int8_io"]["scores"]
    # Keras runs 64 samples at a time or 40 at once: sums in another order, 1e-6 here.
    close = {"rtol": 1e-3, "atol": 1e-6}
    np.testing.assert_allclose(scores.max_error, error.max(), **close)
    np.testing.assert_allclose(scores.mean_error, error.mean(), **close)
    np.testing.assert_allclose(scores.max_lsb, error.max() / info.scale, **close)
    np.testing.assert_allclose(
        scores.snr_db, 10 * np.log10((expected**2).sum() / (error**2).sum()), atol=1e-2
    )
    cosine = (expected * actual).sum() / np.linalg.norm(expected) / np.linalg.norm(actual)
    np.testing.assert_allclose(scores.cosine, cosine, rtol=1e-6)
    assert scores.top1 == np.mean(expected.argmax(1) == actual.argmax(1))


def test_verify_finds_each_precision_within_its_bound(found):
    # float32: sums of 27 and 40 products in another order, each good to 6e-8 of values near 1.
    found["float32"].raise_if_above(max_error=2e-6)
    # float16: weights rounded by 2^-12 relative on average, so about 72 dB; 60 leaves room.
    found["float16"].raise_if_above(snr_below=60)
    # int8: the pooled mean and the output round once each, and so do the convolution's outputs.
    for name in ("int8", "int8_io", "uint8_io"):
        found[name].raise_if_above(lsb=3, snr_below=25)
        # A file that gives float still has its last step known.
        assert found[name]["scores"].scale == found["int8_io"]["scores"].scale
    assert found["float32"]["scores"].max_lsb is None


def test_raise_if_above_raises_beyond_a_bound(found):
    result = found["int8"]
    assert result.raise_if_above(lsb=100, top1_below=0) is result
    with pytest.raises(
        VerificationError, match=r"int8\.tflite.*40 sample.*'scores': max_lsb is .* above 0.001"
    ):
        result.raise_if_above(lsb=0.001)
    for bound in ("max_error", "mean_error"):
        with pytest.raises(VerificationError, match=bound):
            result.raise_if_above(**{bound: 1e-9})
    (output,) = result.outputs
    worse = dataclasses.replace(result, outputs=(dataclasses.replace(output, top1=0.5),))
    for bound, value, figure in (
        ("snr_below", 999, "snr_db"),
        ("cosine_below", 1, "cosine"),
        ("top1_below", 1, "top1"),
    ):
        with pytest.raises(VerificationError, match=f"{figure} is .* below {value}"):
            worse.raise_if_above(**{bound: value})
    with pytest.raises(ValueError, match="at least one bound"):
        result.raise_if_above()
    with pytest.raises(ValueError, match="'scores' has no max_lsb: it is not quantized"):
        found["float32"].raise_if_above(lsb=1)


def test_verification_becomes_json_and_text(found):
    result = found["int8"]
    (output,) = json.loads(json.dumps(result.to_dict()))["outputs"]
    assert output["max_error"] == result["scores"].max_error
    assert all(part in str(result) for part in ("scores", "int8.tflite", "xnnpack", "40 sample"))
    with pytest.raises(KeyError, match="scores"):
        result["nothing"]


def test_verify_rejects_samples_and_files_of_another_model(files, model, images, tmp_path):
    with pytest.raises(ValueError, match="batch axis"):
        converters.verify(model, files["int8"], images[0])
    other = keras.Sequential([keras.Input((4,), name="other"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"not a file of this model.*image.*other"):
        converters.verify(other, files["int8"], np.ones((2, 4), "float32"))
    (tmp_path / "x.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match=r"x\.tflite"):
        converters.verify(model, tmp_path / "x.tflite", images)
