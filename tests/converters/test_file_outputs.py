import os

import numpy as np
import pytest

from tfcompress import converters
from tfcompress.converters import ConversionError
from tfcompress.converters.file_outputs import file_runner, output_scales
from tfcompress.edge import Runner


@pytest.mark.parametrize("name", ["float32", "int8", "int8_io"])
def test_outputs_are_those_of_a_runner(name, files, images, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(files[name].path.read_bytes())
    with file_runner(None, None) as run:
        found = run(path, {"image": images})
    assert list(found) == ["scores"]
    np.testing.assert_array_equal(found["scores"], Runner(path)(images))


def test_a_batch_that_is_not_full_is_filled_and_cut(model, images, tmp_path):
    file = converters.convert(model, tmp_path / "m.tflite", batch_size=8)
    with file_runner(8, None) as run:
        found = run(file.path, {"image": images[:11]})["scores"]
    assert found.shape == (11, 30)
    # Two kinds of sums of float32.
    np.testing.assert_allclose(found, model.predict(images[:11], verbose=0), atol=1e-5)


def test_a_file_that_the_runtime_cannot_run_is_an_error_of_the_conversion(files, images):
    fault = r"fails on samples: .*image.*another precision"
    with file_runner(None, None) as run, pytest.raises(ConversionError, match=fault):
        run(files["int8"].path, {"image": images[:, :5]})


@pytest.mark.slow("waits for the end of a time limit")
def test_a_file_that_takes_too_long_has_no_outputs_and_others_run(files, images, tmp_path):
    slow, path = tmp_path / "slow.tflite", tmp_path / "m.tflite"
    os.mkfifo(slow)  # to be read when somebody writes, which nobody does
    path.write_bytes(files["float32"].path.read_bytes())
    with file_runner(None, 5.0) as run:
        assert run(slow, {"image": images}) == {}
        assert list(run(path, {"image": images})) == ["scores"]


def test_scales_of_outputs_are_those_before_a_dequantize(files):
    steps = [output_scales(converters.inspect(files[name])) for name in ("int8", "int8_io")]
    assert steps[0] == steps[1] and steps[0]["scores"] > 0
    assert output_scales(converters.inspect(files["float32"])) == {}
