import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tfcompress import edge
from tfcompress.edge import runner as runner_module
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.registry import Registry
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.tensors import quantize


def reference(weights, images):
    """The small CNN in NumPy, in float64."""
    windows = sliding_window_view(images.astype(np.float64)[..., 0], (3, 3), axis=(1, 2))
    y = np.einsum("bhwij,ijc->bhwc", windows, weights["conv"][:, :, 0]) + weights["conv_bias"]
    return np.maximum(y, 0).reshape(len(images), -1) @ weights["dense"] + weights["dense_bias"]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(40, 8, 8, 1)).astype(np.float32)


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
@pytest.mark.parametrize("name", ["float32", "fixed"])
def test_runner_in_float32_equals_numpy(files, weights, images, name, delegate):
    runner = edge.Runner(files[name], delegate)
    # float32 sums of 153 terms of order 1: 1e-5 is a hundred times their rounding.
    np.testing.assert_allclose(runner(images), reference(weights, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        # float16 weights: 2^-11 of each, over 153 terms that partly cancel.
        ("float16", 5e-3),
        # 8-bit weights, and activations rounded to 8 bits at run time.
        ("dynamic", 0.1),
        # 8-bit everything, outputs of -3 to 3 in steps of about 0.03; two steps for the output and
        # as much for what the layers before have rounded.
        ("int8", 0.12),
        ("uint8", 0.12),
        ("int8_float", 0.12),
        # 16-bit activations, 8-bit weights.
        ("int16", 0.05),
    ],
)
def test_runner_in_other_precisions_is_near_numpy(files, weights, images, name, tolerance):
    outputs = edge.Runner(files[name])(images)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, reference(weights, images), rtol=0, atol=tolerance)


def test_runner_quantizes_inputs_as_the_quantize_op_does(files, rng):
    """The same model with float inputs and outputs holds QUANTIZE and DEQUANTIZE ops."""
    many = rng.uniform(-6, 6, size=(500, 8, 8, 1)).astype(np.float32)
    at_border = edge.Runner(files["int8"])
    assert at_border.inputs[0].dtype == np.int8 and at_border.outputs[0].quantized
    np.testing.assert_array_equal(at_border(many), edge.Runner(files["int8_float"])(many))


@pytest.mark.parametrize("name", ["int8", "uint8", "int16"])
def test_runner_raw_takes_and_returns_the_files_own_integers(files, images, name):
    runner = edge.Runner(files[name])
    info, out = runner.inputs[0], runner.outputs[0]
    raw = runner(quantize(images, info), raw=True)
    assert raw.dtype == info.dtype == np.dtype(name)
    expected = (raw.astype(np.float64) - out.zero_point) * out.scale
    np.testing.assert_allclose(runner(images), expected, rtol=1e-6)


def test_runner_takes_inputs_by_name_by_position_and_as_one_array(files):
    runner = edge.Runner(files["two"])
    assert [info.name for info in runner.inputs] == ["x_2", "x_10"]
    assert [info.name for info in runner.outputs] == ["y_2", "y_10"]
    small, large = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    by_name = runner.named({"x_10": large, "x_2": small})
    np.testing.assert_array_equal(by_name["y_10"], large - small)
    np.testing.assert_array_equal(by_name["y_2"], 2 * large)
    for result in (runner([small, large]), runner((small, large))):
        np.testing.assert_array_equal(result[0], by_name["y_2"])
        np.testing.assert_array_equal(result[1], by_name["y_10"])
    np.testing.assert_array_equal(edge.Runner(PROBE)([[1.0, 2, 3, 4]]), [[2, 3, 4, 5]])


def test_runner_resizes_a_dynamic_batch_or_runs_it_in_pieces(files, images):
    runner = edge.Runner(files["float32"])
    assert runner.inputs[0].shape == (None, 8, 8, 1)
    whole = runner(images)
    assert whole.shape == (40, 8)
    # XNNPACK's results for a row do not depend on the batch, up to the order of float32 sums.
    np.testing.assert_allclose(runner(images, batch_size=7), whole, atol=1e-6)
    np.testing.assert_allclose(runner(images[:1]), whole[:1], atol=1e-6)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        runner(images, batch_size=0)


def test_runner_runs_a_fixed_batch_in_chunks(files, images):
    one = edge.Runner(files["fixed"])
    np.testing.assert_array_equal(one(images), np.concatenate([one(row[None]) for row in images]))
    two = edge.Runner(files["two"])
    rows = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.testing.assert_array_equal(two.named([rows, 3 * rows])["y_10"], 2 * rows)


def test_runner_rejects_inputs_that_do_not_divide_into_chunks(files):
    rows = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"'mean'.*has no batch dimension"):
        edge.Runner(files["reduced"])(rows)
    with pytest.raises(ValueError, match="differ in their number of chunks"):
        edge.Runner(files["two"])([rows, rows[:2]])
    np.testing.assert_array_equal(edge.Runner(files["reduced"]).named(rows[:2])["mean"], [0, 0, 0])


@pytest.mark.parametrize(
    ("name", "inputs", "error", "message"),
    [
        ("float32", np.zeros((8, 8, 1), np.float32), ValueError, r"missing: add it with x\[None\]"),
        (
            "float32",
            np.zeros((2, 8, 7, 1), np.float32),
            ValueError,
            r"\(any, 8, 8, 1\).*2, 8, 7, 1",
        ),
        ("float32", np.zeros((0, 8, 8, 1), np.float32), ValueError, r"Received: \(0, 8, 8, 1\)"),
        ("two", [np.zeros((3, 3), np.float32)] * 2, ValueError, "must be a multiple of 2"),
        ("two", np.zeros((2, 3), np.float32), ValueError, r"takes 2 input.*one array"),
        ("two", [np.zeros((2, 3), np.float32)], ValueError, "takes 2 input.*Received: 1"),
        ("two", {"x_2": np.zeros((2, 3), np.float32)}, ValueError, r"Missing: \['x_10'\]"),
        ("two", {"a": 1, "x_2": 1, "x_10": 1}, ValueError, r"unknown: \['a'\]"),
        ("float32", np.zeros((1, 8, 8, 1), np.uint8), TypeError, "must be float32.*uint8"),
        ("uint8", np.zeros((1, 8, 8, 1), np.uint8), TypeError, "pass raw=True"),
        ("int8", np.zeros((1, 8, 8, 1), np.int32), TypeError, "takes real numbers"),
        ("embedding", np.zeros((1, 2), np.float32), TypeError, "must be int32"),
        ("embedding", np.array([[0, 2**40]]), ValueError, "cannot hold 0 to 1099511627776"),
    ],
)
def test_runner_names_the_input_that_is_wrong(files, name, inputs, error, message):
    with pytest.raises(error, match=message):
        edge.Runner(files[name])(inputs)


def test_runner_raw_rejects_other_types(files):
    with pytest.raises(TypeError, match=r"must be int8. Received: float32"):
        edge.Runner(files["int8"])(np.zeros((1, 8, 8, 1), np.float32), raw=True)


def test_runner_converts_float64_and_python_integers(files, images):
    runner = edge.Runner(files["float32"])
    np.testing.assert_array_equal(runner(images.astype(np.float64)), runner(images))
    ids = edge.Runner(files["embedding"])
    np.testing.assert_array_equal(ids([[1, 5]]), ids(np.array([[1, 5]], np.int32)))


def test_runner_runs_the_signature_that_is_named(files):
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(edge.Runner(files["signatures"], signature="add")(x), x + 1)
    times = edge.Runner(files["signatures"], signature="times")
    np.testing.assert_array_equal(times(x), 3 * x)
    np.testing.assert_array_equal(times(x[:1]), 3 * x[:1])
    with pytest.raises(ValueError, match=r"no signature 'nope'. It has: \['add', 'times'\]"):
        edge.Runner(files["signatures"], signature="nope")


def test_runner_rejects_wrong_arguments():
    with pytest.raises(ValueError, match=r"`delegate` must be one of.*'cuda'"):
        edge.Runner(PROBE, "cuda")
    with pytest.raises(ValueError, match="`threads` must be an integer from 1"):
        edge.Runner(PROBE, threads=0)


def _broken(folder):
    good = PROBE.read_bytes()
    (folder / "empty.tflite").write_bytes(b"")
    (folder / "short.tflite").write_bytes(good[:6])
    (folder / "half.tflite").write_bytes(good[: len(good) // 2])
    (folder / "text.tflite").write_text("hello, this is no model")
    (folder / "zip.tflite").write_bytes(b"PK\x03\x04 and so on")
    (folder / "scrambled.tflite").write_bytes(good[:8] + b"\xff" * 400)
    (folder / "folder.tflite").mkdir()
    return {
        "empty": "the file is empty",
        "short": "holds 6 bytes",
        "half": "corrupt or cut off after 258 bytes",
        "text": "not a .tflite file: bytes 4 to 7",
        "zip": "looks like a zip file, such as .keras",
        "scrambled": "corrupt or cut off",
        "folder": "this is a folder",
        "missing": "there is no such file",
    }


def test_runner_names_a_file_that_is_no_model(tmp_path):
    for name, message in _broken(tmp_path).items():
        with pytest.raises(edge.ModelFileError, match=f"{name}.tflite.*{message}"):
            edge.Runner(tmp_path / f"{name}.tflite")


def test_runner_prints_nothing(files, capfd, tmp_path):
    runner = edge.Runner(files["float32"])
    runner(np.zeros((1, 8, 8, 1), np.float32))
    _broken(tmp_path)
    with pytest.raises(edge.ModelFileError):
        edge.Runner(tmp_path / "half.tflite")  # far enough for the runtime to complain
    assert capfd.readouterr() == ("", "")


def test_runner_on_the_gpu_equals_the_cpu_and_refuses_wrong_outputs(files, software_gpu):
    """In a process of its own: the driver is found through the environment, as Python starts."""
    script = """
import sys
import numpy as np
from tfcompress import edge
from tfcompress.edge import runner as runner_module
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.registry import Registry
folder = sys.argv[1]
rng = np.random.default_rng(0)
for name in ("fixed", "float16", "dynamic", "int8_fixed", "split"):
    runner = edge.Runner(f"{folder}/{name}.tflite", "gpu")
    x = rng.normal(size=(3, *runner.inputs[0].shape[1:])).astype("float32")
    difference = np.abs(runner(x) - edge.Runner(f"{folder}/{name}.tflite")(x)).max()
    print(name, difference)
try:
    edge.Runner(f"{folder}/onehot.tflite", "gpu")(rng.normal(size=(1, 8, 8, 4)).astype("float32"))
except edge.DelegateMismatch as error:
    print("mismatch", error.numbers["error"])
    print(error)
runner = edge.Runner(f"{folder}/onehot.tflite", "gpu", tolerance=100.0)
print("let through", runner(np.ones((1, 8, 8, 4), "float32")).shape)
"""
    folder = str(files["fixed"].parent)
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, env=software_gpu
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    differences = {line.split()[0]: float(line.split()[1]) for line in lines[:6]}
    # Outputs of order 1, float32 on both sides; those of "split" are of order 100.
    assert differences["fixed"] < 1e-5
    assert differences["split"] < 1e-3
    # Halves: 2^-11 of each term, had the driver real ones.
    assert differences["float16"] < 2e-2
    # The GPU does not round the activations to 8 bits.
    assert differences["dynamic"] < 0.1
    # Off by one output step of about 0.03, never by two.
    assert differences["int8_fixed"] < 0.06
    assert differences["mismatch"] > 1
    assert "onehot.tflite on the GPU differs from XNNPACK" in lines[6]
    assert "delegate='xnnpack'" in lines[6]
    assert lines[7] == "let through (1, 8, 8, 4)"


def test_runner_compares_outputs_once_for_each_shape_if_the_delegate_asks(monkeypatch):
    compared = []

    def compare(engine, arrays, tolerance):
        [output] = engine.read().values()
        compared.append((arrays["x"].shape, output.tolist(), tolerance))

    xnnpack = DELEGATES.get("xnnpack")
    checked = dataclasses.replace(xnnpack, name="checked", compare=compare)
    monkeypatch.setattr(runner_module, "DELEGATES", Registry("delegate"))
    runner_module.DELEGATES.add(checked)
    runner = edge.Runner(PROBE, "checked", tolerance=0.5)
    one, two = np.zeros((1, 4), np.float32), np.ones((2, 4), np.float32)
    for inputs in (one, one, two, one, two):
        runner(inputs)
    assert compared == [((1, 4), [[1.0] * 4], 0.5), ((2, 4), [[2.0] * 4] * 2, 0.5)]


@pytest.mark.parametrize("isolated", [False, True])
def test_runner_takes_and_gives_strings(files, isolated):
    runner = edge.Runner(files["words"], isolated=isolated)
    assert str(runner.inputs[1]) == "'words': string (any)"
    ids = np.array([2, 0], np.int32)
    for words in (["a", "bc", "é"], np.array([b"a", b"bc", "é".encode()], object)):
        assert runner([np.array(ids), np.array(words)]).tolist() == ["é".encode(), b"a"]
    with pytest.raises(TypeError, match=r"'words' must be strings, .*int64"):
        runner({"words": [1], "ids": [0]})


@pytest.mark.parametrize("isolated", [False, True])
def test_runner_keeps_variables_until_it_is_reset(files, isolated):
    one = np.ones((1, 3), np.float32)
    with edge.Runner(files["total"], isolated=isolated) as runner:
        assert [runner(one)[0, 0], runner(one)[0, 0]] == [1, 2]
        runner.reset()
        # The chunks of a fixed batch are runs like any other.
        np.testing.assert_array_equal(runner(np.ones((3, 3), np.float32))[:, 0], [1, 2, 3])


@pytest.mark.parametrize("isolated", [False, True])
def test_runner_runs_a_signature_without_inputs(files, isolated):
    runner = edge.Runner(files["total"], signature="clear", isolated=isolated)
    for outputs in (runner(), runner({}), runner([], batch_size=2)):
        np.testing.assert_array_equal(outputs, np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"takes 0 input.*\[\]\. Received: one array"):
        runner(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="takes 1 input"):
        edge.Runner(files["total"], isolated=isolated)()


@pytest.mark.parametrize("name", ["int8", "float16", "two"])
def test_runner_isolated_computes_the_same(files, name):
    here, there = edge.Runner(files[name]), edge.Runner(files[name], isolated=True)
    assert (here.inputs, here.outputs) == (there.inputs, there.outputs)
    rng = np.random.default_rng(5)
    given = {
        info.name: rng.normal(size=[4 if d is None else d for d in info.shape]).astype("float32")
        for info in here.inputs
    }
    expected = here.named(given)
    for key, value in there.named(given).items():
        np.testing.assert_array_equal(value, expected[key])
    assert there.engine.load_ns > 0


@pytest.mark.parametrize(("size", "requests"), [(runner_module._REQUEST, 1), (24, 3)])
def test_runner_isolated_sends_many_chunks_of_a_fixed_batch_at_once(
    files, monkeypatch, size, requests
):
    monkeypatch.setattr(runner_module, "_REQUEST", size)
    with edge.Runner(files["total"], isolated=True) as runner:
        asked = []
        ask = runner.engine._ask
        monkeypatch.setattr(runner.engine, "_ask", lambda *a, **k: asked.append(a) or ask(*a, **k))
        sums = runner(np.ones((5, 3), np.float32))
        np.testing.assert_array_equal(sums[:, 0], [1, 2, 3, 4, 5])
    assert len(asked) == requests


def test_runner_isolated_turns_a_crash_into_an_error(files):
    with pytest.raises(edge.ModelRefused, match=r"dead\.tflite: the runtime crashed.*SIGABRT"):
        edge.Runner(files["dead"], "reference", isolated=True)


def test_runner_isolated_whose_process_dies_says_so_and_starts_again_by_reset():
    runner = edge.Runner(PROBE, isolated=True)
    zeros = np.zeros((1, 4), np.float32)
    runner.engine._child.peer.kill()
    for _ in range(2):
        with pytest.raises(edge.ModelRefused, match=r"SIGKILL during 'run'"):
            runner(zeros)
    runner.reset()
    np.testing.assert_array_equal(runner(zeros), zeros + 1)
    runner.close()
    with pytest.raises(ValueError, match="this Runner is closed"):
        runner(zeros)


def test_runner_isolated_raises_what_it_raises_here(files, tmp_path):
    for path, options, kind in (
        (files["signatures"], {"signature": "nope"}, ValueError),
        (tmp_path / "half.tflite", {}, edge.ModelFileError),
    ):
        (tmp_path / "half.tflite").write_bytes(PROBE.read_bytes()[:300])
        messages = []
        for isolated in (False, True):
            with pytest.raises(kind) as caught:
                edge.Runner(path, isolated=isolated, **options)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
