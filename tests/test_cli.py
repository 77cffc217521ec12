"""The command line: what it prints, and with which code it ends."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tfcompress
from tests.golden.test_golden import HERE as GOLDEN
from tests.support.helpers import need
from tests.zoo.language_models import CHARACTERS, character_tokenizer
from tests.zoo.sparse_nets import converted
from tfcompress import budgets, converters, edge
from tfcompress.cli import main
from tfcompress.cli.conversion import _shapes
from tfcompress.cli.files import _slow_attention
from tfcompress.cost import latency
from tfcompress.edge.system.tflite import PROBE, sizes
from tfcompress.edge.targets.base import TARGETS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, samples, and the .tflite file that `convert` makes of them."""
    folder = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,), name="x"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(4, name="y"),
        ],
        name="tiny",
    )
    model.save(folder / "model.keras")
    samples = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    np.savez(folder / "samples.npz", x=samples)
    np.save(folder / "x.npy", samples)
    done = run("convert", folder / "model.keras", folder / "float.tflite")
    assert done.exit_code == 0, done.output
    assert f"{(folder / 'float.tflite').stat().st_size:,} bytes" in done.output
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_of_every_command_shows_an_example():
    for name in main.commands:
        text = run(name, "--help").output
        assert f"Example: tfcompress {name}" in text
    assert list(main.commands) == [
        "demo", "compress", "convert", "sparsify", "split", "c-array", "inspect", "check-sparse",
        "verify", "compare", "evaluate", "bench", "profile", "targets", "summary", "channels",
        "prune-channels", "low-rank", "equalize", "quantize", "quantize-aware", "qat-report",
        "generate",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def learned(folder):
    """A trained model and its data."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16)).astype("float32")
    y = (x.sum(1) > 0).astype("int64")
    model = keras.Sequential(
        [keras.Input((16,), name="x"), keras.layers.Dense(64, "relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(x, y, epochs=5, verbose=0)
    model.save(folder / "learned.keras")
    np.savez(folder / "xy.npz", x=x, y=y)
    return folder


def test_compress_writes_the_best_file_also_where_the_target_is_missed(learned):
    path = learned / "best.tflite"
    arguments = ("compress", learned / "learned.keras", "--data", learned / "xy.npz", "-o", path)
    missed = run(*arguments, "--size", "1kB", "--max-drop", 0.05, "--minutes", 0.001)
    assert missed.exit_code == 1
    assert "1,000 bytes wanted; the smallest at this accuracy is" in missed.output
    assert f"Wrote {path}: {path.stat().st_size:,} bytes." in missed.output

    met = run(*arguments, "--size", "1.5MB", "--max-drop", 0.05, "--minutes", 0.001, "--json")
    assert met.exit_code == 0, met.output
    assert json.loads(met.stdout)["best"]["bytes"] == path.stat().st_size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "small"), "a size such as 100kB"),
        (("--max-drop", "0.01", "--join"), "--join takes the --storage"),
        (("--minimize", "bytes"), "needs `accuracy_drop`"),
        ((), "at least one of"),
    ],
)
def test_compress_refuses_what_makes_no_sense(learned, options, words):
    path = learned / "unwritten.tflite"
    done = run(
        "compress", learned / "learned.keras", "--data", learned / "xy.npz", "-o", path, *options
    )
    assert done.exit_code == 2
    assert words in done.output
    assert not path.exists()


def test_convert_to_int8_from_an_npz(folder):
    path = folder / "int8.tflite"

    done = run(
        "convert", folder / "model.keras", path, "--precision", "int8", "--io", "int8", "--strict",
        "--calibration", folder / "samples.npz", "--batch-size", 1, "--json",
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "path": str(path),
        "bytes": path.stat().st_size,
        "gzip_bytes": sizes(path)[1],
        "float_ops": [],
        "kept_float": [],
        "kept_weights": {},
        "notes": [],
    }


def test_convert_chooses_ranges_and_corrects_biases_as_asked(folder):
    options = ["-p", "int8", "-c", folder / "samples.npz"]
    contents = []
    for extra in ([], ["--ranges", "mse"], ["--ranges", "percentile"], ["--bias-correction"]):
        path = folder / "m.tflite"
        done = run("convert", folder / "model.keras", path, *options, *extra)
        assert done.exit_code == 0, done.output
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3
    done = run("convert", folder / "model.keras", path, *options, "--ranges", "halves")
    assert done.exit_code == 2
    assert "halves" in done.output and "percentile" in done.output


def test_convert_to_weights_of_4_bits(folder):
    path, samples = folder / "int4.tflite", ["-c", folder / "samples.npz"]
    command = ["convert", folder / "model.keras", path, "-p", "int4-weights", *samples]
    done = run(*command, "--rounding", "nearest", "--keep", "nothing-like-it")
    assert done.exit_code == 2
    assert "No layer with a kernel" in done.output
    done = run(*command, "--budget", "100")
    assert done.exit_code == 1
    assert "the smallest possible file has" in done.output
    assert not path.exists()


def test_quantize_a_float_file(folder, tmp_path):
    out = tmp_path / "int8.tflite"
    command = ["quantize", folder / "float.tflite", "-o", out]
    done = run(*command, "--data", folder / "samples.npz", "--strict", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == out.stat().st_size
    done = run("quantize", out, "-o", tmp_path / "b.tflite", "-p", "weight-only", "--bits", "4")
    assert (done.exit_code, "is quantized already" in done.output) == (1, True)
    done = run(*command, "-p", "float16", "--data", folder / "x.npy")
    assert (done.exit_code, "--data goes with --precision" in done.output) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.tflite"]


def test_convert_with_another_precision_for_some_layers_is_checked(folder):
    command = ["convert", folder / "model.keras", folder / "never.tflite", "-p", "weight-only"]
    done = run(*command, "--layers", "head=int9")
    assert done.exit_code == 2
    assert "is not REGEX=PRECISION, with one of" in done.output
    done = run(*command, "--block", "32")
    assert done.exit_code == 2
    assert "activations='float32'" in done.output


def test_convert_takes_the_sizes_of_inputs(folder):
    command = ["convert", folder / "model.keras", folder / "never.tflite"]
    for given, said in [
        ("x=1,two", "is not INPUT=SIZES"),
        ("nothing=1,2", "a dict of input names"),
    ]:
        done = run(*command, "--shape", given)
        assert (done.exit_code, said in " ".join(done.output.split())) == (2, True), done.output


def test_sizes_given_again_are_those_of_another_signature(folder, tmp_path):
    assert _shapes(("a=1,2", "b=any,4")) == {"a": (1, 2), "b": (None, 4)}
    assert _shapes(("a=1,2", "b=4", "a=1,3")) == [
        {"a": (1, 2), "b": (4,)},
        {"a": (1, 3), "b": (4,)},
    ]
    command = ["convert", folder / "model.keras", tmp_path / "m.tflite"]
    done = run(*command, "--shape", "a=1", "--shape", "a=2", *["--shape", "b=1"] * 3)
    assert done.exit_code == 2
    assert "or as often as the others: a 2 time(s), b 3 time(s)" in " ".join(done.output.split())
    done = run(*command, "--shape", "x=1,16", "--shape", "x=2,16")
    assert done.exit_code == 0, done.output
    keys = [s.key for s in converters.inspect(tmp_path / "m.tflite").signatures]
    assert keys == ["serving_1", "serving_2"]


def test_convert_needs_calibration_for_int8(folder):
    path = folder / "never.tflite"
    done = run("convert", folder / "model.keras", path, "-p", "int8")
    assert done.exit_code == 1
    assert "Int8 needs samples" in done.output
    assert not path.exists()


@pytest.mark.parametrize(
    "options", [["--io", "int8"], ["--calibration", "samples.npz"], ["--strict"], ["--equalize"]]
)
def test_options_that_a_precision_does_not_have_are_bad_usage(folder, options):
    options = [folder / option if option.endswith(".npz") else option for option in options]
    done = run(
        "convert", folder / "model.keras", folder / "never.tflite", "-p", "dynamic_int8", *options
    )
    assert done.exit_code == 2
    assert f"{options[0]} goes with --precision int8 or " in done.output
    assert not (folder / "never.tflite").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "int7"], "'int7' is none of"),
        (["-p", "int8", "--io", "int7"], "`io` must be one of 'float32', 'int8', 'uint8'"),
    ],
)
def test_precisions_that_do_not_exist_are_bad_usage(folder, options, message):
    done = run("convert", folder / "model.keras", folder / "never.tflite", *options)
    assert done.exit_code == 2
    assert message in done.output


def test_convert_refuses_a_file_that_the_runtime_would_refuse(folder):
    command = ("convert", folder / "model.keras", folder / "never.tflite", "--runtime")
    done = run(*command, "1.4")
    assert done.exit_code == 1
    assert 'runtime="1.4" was asked for' in done.output
    assert run(*command, "newest").exit_code == 2
    assert not (folder / "never.tflite").exists()


def test_bench_on_several_targets_makes_one_report(folder, tmp_path):
    need(importlib.util.find_spec("tflite_micro"), "no tflite-micro: pip install 'tfcompress[mcu]'")
    report = tmp_path / "report.json"
    done = run(
        "bench", folder / "float.tflite", "--on", "local", "--on", "mcu", "--on",
        "ssh:nobody@127.0.0.1", "--runs", "2", "--seconds", "0", "--report", report,
    )  # fmt: skip
    assert done.exit_code == 1 and "ssh:nobody@127.0.0.1" in done.output
    results = edge.Report.load(report).results
    assert [result.target for result in results] == ["local", "mcu", "ssh:nobody@127.0.0.1"]
    assert [bool(result.estimated_by) for result in results] == [False, True, False]
    assert results[0].ok and results[2].status == "error"


def test_bench_on_a_phone(folder, tmp_path):
    program = tmp_path / "none"
    command = ("bench", folder / "float.tflite", "--on", "adb:X", "--delegate", "nnapi")
    done = run(*command, "--benchmark-model", program, "--json")
    assert done.exit_code == 1
    [result] = json.loads(done.stdout)["results"]
    assert (result["target"], result["delegate"]) == ("adb:X", "nnapi")
    assert f"There is no file {program}" in result["reason"]


def test_targets_says_what_can_be_used(monkeypatch):
    # Examples that ran before in this process registered others.
    own = {name: TARGETS.get(name) for name in ("local", "mcu", "ethos-u")}
    monkeypatch.setattr(TARGETS, "_items", own)
    done = run("targets", "--on", "ssh:nobody@127.0.0.1", "--json")
    found = {target["name"]: target for target in json.loads(done.output)}
    assert set(found) == {"local", "mcu", "ethos-u", "ssh:nobody@127.0.0.1"}
    assert found["local"]["available"] and not found["ssh:nobody@127.0.0.1"]["available"]
    assert "\nlocal: XNNPACK" in f"\n{run('targets').output}"


def test_profile(folder):
    shown = run("profile", folder / "float.tflite", "--runs", "3").output
    assert "Fully Connected (NC, F32) GEMM" in shown and "mean of 3 runs" in shown
    found = json.loads(run("profile", folder / "float.tflite", "--runs", "3", "--json").output)
    assert found["runs"] == 3 and found["ops"][0]["kernels"] == "XNNPACK"
    assert "mcu estimates" in run("profile", folder / "float.tflite", "--on", "mcu").output


def test_sparsify(folder, tmp_path):
    out = tmp_path / "small.tflite"
    done = run("sparsify", folder / "float.tflite", out, "--int8-weights", "--no-names", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["bytes"] == out.stat().st_size < found["bytes_before"]
    assert {w["dtype"] for w in found["weights"]} == {"float32"}
    shown = run("sparsify", folder / "float.tflite", out).output
    assert "no sparse encoding is smaller" in shown
    assert f"{out.stat().st_size:,} bytes; gzip" in shown


def test_c_array(folder, tmp_path):
    done = run("c-array", folder / "float.tflite", tmp_path / "model.cc")
    assert done.exit_code == 0, done.output
    assert f"Wrote {tmp_path / 'model.h'}" in done.output
    assert "resolver.AddFullyConnected()" in (tmp_path / "model.h").read_text()


def test_sparsify_of_a_dynamic_range_file_fails(folder, tmp_path):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    converters.convert(model, tmp_path / "dynamic.tflite", converters.DynamicInt8())
    done = run("sparsify", tmp_path / "dynamic.tflite", tmp_path / "out.tflite")
    assert done.exit_code == 1
    assert "dynamic-range file" in done.output
    assert not (tmp_path / "out.tflite").exists()


def test_inspect(folder):
    assert "FULLY_CONNECTED" in run("inspect", folder / "float.tflite").output
    found = json.loads(run("inspect", folder / "float.tflite", "--json").stdout)
    assert found["ops"] == {"FULLY_CONNECTED": 2}
    assert found["sparse_kernels"] == "safe"
    assert not {"load_error", "gzip_bytes"} & set(found)


def test_inspect_compresses_and_loads_if_asked(folder):
    path = folder / "float.tflite"
    found = json.loads(run("inspect", path, "--load", "--gzip", "--json").stdout)
    assert (found["load_error"], found["gzip_bytes"]) == (None, sizes(path)[1])
    shown = run("inspect", path, "--load", "--gzip").output
    assert "The runtime loads it." in shown
    assert f"{sizes(path)[1]:,} bytes after gzip." in shown


def test_messages_hold_no_terminal_escapes(tmp_path):
    path = tmp_path / "\x1b[31mred.tflite"
    path.write_bytes(b"no model")
    done = run("inspect", path)
    assert r"\x1b[31mred.tflite: not a .tflite file" in done.output
    assert "\x1b" not in done.output
    path.write_bytes(PROBE.read_bytes())
    done = run("inspect", path)
    assert r"\x1b[31mred.tflite: 516 bytes" in done.output
    assert "\x1b" not in done.output


def test_no_command_runs_files_of_the_current_folder(tmp_path):
    (tmp_path / "ai_edge_litert.py").write_text("open('ran.txt', 'w').close()\n")
    # An empty entry, as in `PYTHONPATH=$PYTHONPATH:/mine`, means the current folder.
    path = os.pathsep.join(["", *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", "from tfcompress.cli import main; main()", "inspect", "--load",
         str(PROBE)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "The runtime loads it." in done.stdout
    assert not (tmp_path / "ran.txt").exists()


def test_inspect_shows_what_sparse_weights_would_do_on_arm(folder, tmp_path):
    (tmp_path / "plain.tflite").write_bytes(converted("plain"))
    path = tmp_path / "plain.tflite"
    assert "With sparse weights on Arm: sparse kernels" in run("inspect", path).output
    assert json.loads(run("inspect", path, "--json").stdout)["sparse_kernels"] == "sparse kernels"
    assert "on Arm" not in run("inspect", folder / "float.tflite").output


def test_check_sparse_passes_only_what_engages_and_says_why_else(tmp_path):
    for name in ("plain", "max pooling"):
        (tmp_path / f"{name}.tflite").write_bytes(converted(name))
    done = run("check-sparse", tmp_path / "plain.tflite")
    assert done.exit_code == 0
    assert done.output.startswith("sparse kernels: ")

    done = run("check-sparse", tmp_path / "max pooling.tflite")
    assert done.exit_code == 1
    assert "MAX_POOL_2D of layer 'odd'" in done.output
    done = run("check-sparse", tmp_path / "max pooling.tflite", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["kind"] == "unsafe"
    assert found["violations"][0]["layer"] == "odd"


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_a_file_that_is_no_model(command, folder):
    path = folder / "text.tflite"
    path.write_text("hello, this is not a model")
    done = run(command, path)
    # inspect cannot answer; bench answers that it could not be measured.
    assert done.exit_code == {"inspect": 2, "bench": 1}[command]
    assert "not a .tflite file" in done.output
    assert "Traceback" not in done.output


def test_verify_without_bounds_only_shows(folder):
    done = run(
        "verify", folder / "model.keras", folder / "float.tflite", "--samples",
        folder / "samples.npz", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["samples"] == 64
    # Two sums of at most 32 products of numbers around 1, added in another order.
    assert found["outputs"][0]["max_error"] < 1e-5


def test_verify_by_layer_shows_each_layer(folder):
    command = ["verify", folder / "model.keras", folder / "float.tflite", "--by-layer"]
    done = run(*command, "--samples", folder / "samples.npz")
    assert done.exit_code == 0, done.output
    table = done.output.partition("By layer, the worst first")[2]
    assert "FULLY_CONNECTED" in table
    assert " y " in table


@pytest.mark.parametrize(("bound", "code"), [("1e-5", 0), ("1e-12", 1)])
def test_verify_with_a_bound_is_a_check(folder, bound, code):
    # A weight of the model is moved, so that the file is certainly off by more than 1e-12.
    model = keras.models.load_model(folder / "model.keras")
    model.layers[0].bias.assign(model.layers[0].bias + 1e-6)
    model.save(folder / "moved.keras")
    done = run(
        "verify", folder / "moved.keras", folder / "float.tflite", "--samples",
        folder / "samples.npz", "--max-error", bound,
    )  # fmt: skip
    assert done.exit_code == code, done.output


def test_samples_of_the_wrong_shape_are_bad_input(folder):
    np.savez(folder / "wrong.npz", x=np.zeros((8, 15), "float32"))
    done = run(
        "verify", folder / "model.keras", folder / "float.tflite", "--samples", folder / "wrong.npz"
    )
    assert done.exit_code == 2
    assert "15" in done.output
    assert "16" in done.output


def test_bench_prints_ratios_and_writes_a_report(folder):
    report = folder / "report.md"
    done = run(
        "bench", folder / "float.tflite", folder / "float.tflite", "--runs", 20, "--seconds", 0,
        "--report", report, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["results"]
    assert first["speedup"] == 1.0
    assert second["runs"] >= 20
    assert report.read_text().startswith("# ")


@pytest.mark.slow("converts attention")
def test_bench_says_what_is_faster_than_attention_in_int8(folder, tmp_path):
    x = keras.Input((8, 16))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 8)(x, x))
    data = np.random.default_rng(0).normal(size=(8, 8, 16)).astype("float32")
    path = tmp_path / "m.tflite"
    converters.convert(model, path, converters.Int8(data), batch_size=1)
    done = run("bench", path, "--runs", 20, "--seconds", 0)
    assert done.exit_code == 0, done.output
    assert "m. 100% of the multiply-accumulates are attention" in " ".join(done.stdout.split())

    def result(name, path, ms, **fields):
        return edge.BenchmarkResult(name, str(path), "xnnpack", median_ms=ms, **fields)

    int8 = result("int8", path, 3.0)
    others = [
        result("dynamic", folder / "float.tflite", 1.5),
        result("slow", folder / "float.tflite", 6.0),
        result("elsewhere", folder / "float.tflite", 1.0, target="pi"),
    ]
    [said] = _slow_attention([int8, *others])
    assert said.startswith("int8 on local: dynamic ran 2.0x as fast. 100% of")
    assert _slow_attention(others) == []


def test_bench_lists_the_delegates_that_are_registered(folder):
    assert "--delegate [xnnpack|reference|gpu|nnapi]" in run("bench", "--help").output
    done = run("bench", folder / "float.tflite", "--delegate", "tpu")
    assert done.exit_code == 2
    assert "'tpu' is none of xnnpack, reference, gpu, nnapi." in " ".join(done.output.split())


def test_summary(folder):
    found = json.loads(run("summary", folder / "model.keras", "--json").stdout)
    assert found["total"]["parameters"] == 16 * 32 + 32 + 32 * 4 + 4
    assert "Parameters" in run("summary", folder / "model.keras").output


def test_summary_of_two(folder, tmp_path):
    smaller = tfcompress.prune_channels(keras.models.load_model(folder / "model.keras"), 0.5)
    smaller.save(tmp_path / "smaller.keras")
    both = ["summary", folder / "model.keras", tmp_path / "smaller.keras"]
    found = json.loads(run(*both, "--json").stdout)
    assert found["total"]["left"]["macs"] == 0.5
    shown = run(*both)
    assert shown.exit_code == 0
    assert "->" in shown.output


def test_channels(folder):
    found = json.loads(run("channels", folder / "model.keras", "--json").stdout)
    hidden, last = found["groups"]
    assert (hidden["kind"], hidden["size"], hidden["why_kept"]) == ("units", 32, None)
    assert (last["producers"], last["why_kept"]) == (["y"], "it is an output of the model")
    [kernel, bias, reader] = hidden["members"]
    assert (kernel["weight"], kernel["axis"], kernel["role"]) == ("kernel", 1, "output")
    assert (bias["weight"], bias["axis"], bias["role"]) == ("bias", 0, "parameter")
    assert (reader["path"], reader["axis"], reader["role"]) == ("y", 0, "input")
    assert "it is an output" in " ".join(run("channels", folder / "model.keras").output.split())


def test_channels_of_filters(folder):
    found = json.loads(run("channels", folder / "model.keras", "--filters", "y", "--json").stdout)
    assert [group["why_kept"] is None for group in found["groups"]] == [False, False]
    nothing = run("channels", folder / "model.keras", "--filters", "conv")
    assert nothing.exit_code == 2
    assert "filters='conv'" in nothing.output


@pytest.mark.parametrize(
    ("options", "units"),
    [
        (["--amount", "0.5"], 16),
        (["--amount", "0.45", "--round-to", "4"], 20),  # 18 would be left.
        (["--macs", "0.25"], 8),
        (["--macs", str(5 * (16 + 4))], 5),
        (["--parameters", str(16 * 5 + 5 + 5 * 4 + 4), "--importance", "l1_norm"], 5),
    ],
)
def test_prune_channels(folder, tmp_path, options, units):
    path = tmp_path / "smaller.keras"

    done = run("prune-channels", folder / "model.keras", path, *options, "--json")

    assert done.exit_code == 0, done.output
    smaller = keras.models.load_model(path)
    assert smaller.get_layer("y").kernel.shape == (units, 4)
    total = json.loads(done.stdout)["total"]
    assert total["after"]["macs"] == units * (16 + 4)
    assert total["before"]["macs"] == 32 * (16 + 4)
    assert [file.name for file in tmp_path.iterdir()] == ["smaller.keras"]


def test_prune_channels_that_change_no_output(folder, tmp_path):
    model = keras.models.load_model(folder / "model.keras")
    kernel = model.get_layer("y").kernel
    kernel.assign(np.where(np.arange(32)[:, None] % 4, kernel.numpy(), 1e-20))
    model.save(tmp_path / "model.keras")
    assert "All weights of" not in run("summary", tmp_path / "model.keras").output

    done = run("prune-channels", tmp_path / "model.keras", tmp_path / "smaller.keras", "--dead")

    assert done.exit_code == 0, done.output
    smaller = keras.models.load_model(tmp_path / "smaller.keras")
    assert smaller.get_layer("y").kernel.shape == (24, 4)
    both = run("prune-channels", "a.keras", tmp_path / "b.keras", "--dead", "--macs", "0.5")
    assert both.exit_code == 2


def test_prune_channels_by_importances_that_want_data(folder, tmp_path):
    """The same widths and weights as by the function; a list of labels is named y."""
    model = keras.models.load_model(folder / "model.keras")
    x = np.load(folder / "samples.npz")["x"]
    y = np.arange(len(x)) % 4
    np.savez(tmp_path / "both.npz", x=x, y=y)
    loss = "sparse_categorical_crossentropy"
    by = tfcompress.importance
    for name, options, expected in (
        ("taylor", ["--loss", loss], by.taylor(x, y, loss)),
        ("activation_mean", [], by.activation_mean(x)),
        ("activation_zeros", [], by.activation_zeros(x)),
    ):
        path = tmp_path / f"{name}.keras"
        done = run(
            "prune-channels", folder / "model.keras", path, "--amount", "0.5",
            "--importance", name, "--samples", tmp_path / "both.npz", *options,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        right = tfcompress.prune_channels(model, 0.5, importance=expected)
        for one, other in zip(
            keras.models.load_model(path).get_weights(), right.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_prune_channels_to_a_latency_on_the_delegate_that_is_named(folder, tmp_path, monkeypatch):
    asked = []

    def measured(stopwatch, candidate):
        return candidate.get_layer("y").kernel.shape[0] / 32

    monkeypatch.setattr(latency.Stopwatch, "__init__", lambda _, *args: asked.append(args[0]))
    monkeypatch.setattr(latency.Stopwatch, "__call__", measured)
    path = tmp_path / "smaller.keras"
    options = ["--latency", "0.5", "--delegate", "reference", "--threads", "2"]
    done = run("prune-channels", folder / "model.keras", path, *options)
    assert done.exit_code == 0, done.output
    assert asked == [budgets.Latency(0.5, delegate="reference", threads=2)]
    assert 8 < keras.models.load_model(path).get_layer("y").kernel.shape[0] <= 16


@pytest.mark.parametrize("command", ["prune-channels", "low-rank"])
def test_a_latency_that_cannot_be_measured_is_bad_input(command, folder, tmp_path, monkeypatch):
    def refuse(files, delegate, threads):
        return [edge.BenchmarkResult("a", "a", delegate, "refused", "No adapters found.")]

    monkeypatch.setattr(latency.edge, "benchmark", refuse)
    monkeypatch.setattr(latency.Stopwatch, "_converted", lambda *args: args[-1])
    path = tmp_path / "smaller.keras"
    output = [path] if command == "prune-channels" else ["-o", path]
    done = run(command, folder / "model.keras", *output, "--latency", "0.5", "--delegate", "gpu")
    assert done.exit_code == 2
    assert "cannot be measured with the delegate 'gpu': No adapters found." in done.output
    assert not path.exists()


def test_prune_channels_shows_both_and_replaces_a_file(folder, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes((folder / "model.keras").read_bytes())
    done = run("prune-channels", path, path, "--amount", "0.75")
    assert done.exit_code == 0, done.output
    assert "->" in done.output
    assert f"Wrote {path}: {path.stat().st_size:,} bytes." in done.output
    assert keras.models.load_model(path).get_layer("y").kernel.shape == (8, 4)


TAYLOR = ["--importance", "taylor", "--samples", "{folder}/samples.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give one of --amount, --macs, --parameters, --latency and --dead"),
        (["--amount", "0.5", "--macs", "0.5"], "--latency and --dead"),
        (["--amount", "1"], "--amount"),
        (["--macs", "half"], "a share such as 0.5, or a whole number"),
        (["--macs", "1.5"], "at most 1.0 (a share)"),
        (["--macs", "3"], "the smallest possible is 80"),  # A tenth of 32 units, rounded up: 4.
        (["--macs", "0.5", "--importance", "taylor"], "--importance taylor needs --samples"),
        (["--macs", "0.5", *TAYLOR], "--importance taylor needs --loss"),
        (["--macs", "0.5", *TAYLOR[2:]], "--samples goes with --importance activation_mean, "),
        (["--macs", "0.5", "--importance", "tailor"], "is none of activation_mean, "),
        (["--macs", "0.5", "--loss", "mse"], "--loss goes with --importance taylor. Received"),
        (["--macs", "0.5", *TAYLOR, "--loss", "mse"], "wants an array named y"),
        (
            ["--macs", "0.5", *TAYLOR[:3], "{folder}/x.npy", "--loss", "mse"],
            "wants an array named y",
        ),
        (["--macs", "0.5", *TAYLOR, "--loss", "mess"], "Keras has no such loss"),
    ],
)
def test_prune_channels_says_what_is_wrong_and_writes_nothing(folder, tmp_path, options, message):
    options = [str(option).format(folder=folder) for option in options]
    done = run("prune-channels", folder / "model.keras", tmp_path / "never.keras", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["prune-channels", "low-rank"])
@pytest.mark.parametrize(
    ("name", "message"), [("small.h5", "saved as .keras"), ("no/small.keras", "does not exist")]
)
def test_where_a_model_cannot_be_written(command, name, message, folder, tmp_path):
    options = {
        "prune-channels": [tmp_path / name, "--amount", "0.5"],
        "low-rank": ["-o", tmp_path / name, "--amount", "0.5"],
    }
    done = run(command, folder / "model.keras", *options[command])
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_low_rank_shows_the_plan_and_writes_the_model_if_asked(folder, tmp_path):
    command = ["low-rank", folder / "model.keras", "--amount", "0.75", "--json"]
    plan = json.loads(run(*command).stdout)
    assert [layer["rank"] for layer in plan["layers"]] == [[4], [1]]
    # 16 * 32 and 32 * 4, through ranks of 4 and 1.
    assert plan["macs_after"] == 4 * (16 + 32) + (32 + 4)
    path = tmp_path / "small.keras"
    assert run(*command, "-o", path).exit_code == 0
    small = keras.models.load_model(path)
    assert tfcompress.summary(small).total.macs == plan["macs_after"]
    shown = run(*command[:-1], "-o", path)
    assert "Rank" in shown.output
    assert f"Wrote {path}: {path.stat().st_size:,} bytes." in shown.output


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        (["--macs", "0.5"], 250, 320),
        (["--macs", "300"], 250, 300),
        (["--parameters", "0.5"], 0, 640),
        (["--energy", "0.5"], 0, 639),
    ],
)
def test_low_rank_takes_the_budgets_that_prune_channels_takes(folder, options, least, most):
    done = run("low-rank", folder / "model.keras", *options, "--json")
    assert done.exit_code == 0, done.output
    assert least <= json.loads(done.stdout)["macs_after"] <= most


def test_low_rank_writes_nothing_where_nothing_gets_cheaper(folder, tmp_path):
    path = tmp_path / "never.keras"
    done = run("low-rank", folder / "model.keras", "--amount", "0", "-o", path)
    assert done.exit_code == 1
    assert "No layer gets cheaper" in done.output
    assert not path.exists()
    none = run("low-rank", folder / "model.keras")
    assert none.exit_code == 2
    assert "Give one of --amount, --macs, --parameters, --latency and --energy" in none.output


@pytest.fixture(scope="module")
def qat(folder):
    """A quantization-aware model whose last layer stays in float, and the int8 file of it."""
    model = keras.models.load_model(folder / "model.keras")
    qat = tfcompress.quantize_aware(model, float_last=True)
    with np.load(folder / "samples.npz") as samples:
        tfcompress.calibrate(qat, samples["x"])
    qat.save(folder / "qat.keras")
    return folder / "qat.keras"


def test_convert_of_a_quantization_aware_model_needs_no_calibration(qat, folder):
    path = folder / "qat.tflite"

    done = run("convert", qat, path, "-p", "int8", "--json")

    assert done.exit_code == 0, done.output
    (macs, border) = json.loads(done.stdout)["float_ops"]
    assert macs.startswith("FULLY_CONNECTED of layer")
    assert border.startswith("DEQUANTIZE")
    # Float all through from the last int8 tensor: it differs by float's own rounding.
    check = ["verify", qat, path, "--samples", folder / "samples.npz", "--max-error", "1e-5"]
    assert run(*check).exit_code == 0


def test_convert_of_a_quantization_aware_model_wants_int8_alone(qat, folder):
    path = folder / "never.tflite"
    for options in ([], ["-p", "int8", "-c", folder / "samples.npz"]):
        done = run("convert", qat, path, *options)
        assert done.exit_code == 1
        assert "Int8()" in done.output
    assert not path.exists()


def test_qat_report(qat, folder):
    found = json.loads(run("qat-report", qat, "--json").stdout)
    assert [layer["kernel"] for layer in found["layers"]] == ["", "int8 per channel", "float"]
    assert found["layers"][-1]["path"] == "y"
    shown = run("qat-report", qat)
    assert shown.exit_code == 0
    assert "kept in float on request" in " ".join(shown.output.split())
    assert run("qat-report", folder / "model.keras").exit_code == 2


def test_summary_of_a_quantization_aware_model(qat, folder):
    float_, int8 = (
        json.loads(run("summary", path, "--json").stdout)["total"]
        for path in (folder / "model.keras", qat)
    )
    assert (float_.pop("bits"), int8.pop("bits")) == ([32], [8, 32])
    assert float_ == int8


@pytest.mark.parametrize(
    "command", [["channels"], ["prune-channels", "never.keras", "--amount", "0.5"]]
)
def test_channels_are_cut_before_quantization(qat, command):
    done = run(command[0], qat, *command[1:])
    assert done.exit_code == 2
    assert "before `quantize_aware`" in " ".join(done.output.split())


@pytest.mark.slow("starts processes that import TensorFlow")
def test_custom_layers_come_from_a_module_of_the_users(folder, tmp_path, monkeypatch):
    source = (
        "import keras\n"
        "@keras.saving.register_keras_serializable('cli_test')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    (tmp_path / "my_layers.py").write_text(source)
    make = (
        "import keras, my_layers\n"
        "keras.Sequential([keras.Input((2,)), my_layers.Twice()]).save('twice.keras')\n"
    )
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    without = run("summary", "twice.keras")
    assert without.exit_code == 2
    assert "--import" in without.output
    assert run("summary", "twice.keras", "--import", "my_layers").exit_code == 0


def test_split_writes_two_files_or_says_why_not(folder, tmp_path):
    path, parts = folder / "float.tflite", [tmp_path / "1.tflite", tmp_path / "2.tflite"]
    done = run("split", path, *parts, "--at", 1, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["cut"]["at"] == 1
    assert all(part.stat().st_size for part in parts)
    done = run("split", path, *parts, "--at", 99)
    assert done.exit_code == 2
    assert "`at`" in done.output


def test_equalize_shows_the_plan_and_writes_the_model(folder, tmp_path):
    path, samples = tmp_path / "even.keras", folder / "samples.npz"
    done = run("equalize", folder / "model.keras", path, "--data", samples, "--json")
    assert done.exit_code == 0, done.output
    scaled, kept = json.loads(done.output)["channels"]
    assert (scaled["readers"], scaled["why_kept"]) == (["y"], "")
    assert kept["why_kept"] == "it is an output of the model"
    with np.load(samples) as file:
        x = file["x"]
    model, even = (keras.models.load_model(p) for p in (folder / "model.keras", path))
    np.testing.assert_allclose(even(x), model(x), atol=1e-5)  # sums of 32 products around 1
    assert not np.array_equal(even.weights[0], model.weights[0])


def test_equalize_writes_nothing_where_nothing_can_be_scaled(folder, tmp_path):
    path, options = tmp_path / "even.keras", ["--data", folder / "samples.npz", "--filters", "^y$"]
    done = run("equalize", folder / "model.keras", path, *options)
    assert done.exit_code == 1
    assert "Nothing can be equalized" in done.output
    assert not path.exists()


def test_quantize_aware_writes_a_calibrated_model(folder, tmp_path):
    path = tmp_path / "qat.keras"
    options = ["--data", folder / "samples.npz", "--filters", "dense"]
    done = run("quantize-aware", folder / "model.keras", "-o", path, *options, "--json")
    assert done.exit_code == 0, done.output
    kernels = {layer["path"]: layer["kernel"] for layer in json.loads(done.output)["layers"]}
    assert [kernel for kernel in kernels.values() if kernel] == ["int8 per channel", "float"]
    qat = keras.models.load_model(path)
    with np.load(folder / "samples.npz") as samples:
        x = samples["x"]
    assert qat.get_layer("fake_quant_x").range() == (x.min(), x.max())


def test_quantize_aware_takes_an_observer_of_the_users(folder, tmp_path, monkeypatch):
    source = (
        "import tensorflow as tf\n"
        "from tfcompress.quantization.observers.base import Observer, register_observer\n"
        "@register_observer('half')\n"
        "class Half(Observer):\n"
        "    def update(self, low, high, values, first):\n"
        "        return tf.reduce_min(values) / 2, tf.reduce_max(values) / 2\n"
    )
    (tmp_path / "my_observer.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = ["-o", "qat.keras", "--data", folder / "samples.npz"]

    unknown = run("quantize-aware", folder / "model.keras", *options, "--ranges", "halves")
    assert unknown.exit_code == 2
    assert "moving_average" in unknown.output
    assert not (tmp_path / "qat.keras").exists()
    options += ["--ranges", "half", "--import", "my_observer"]
    done = run("quantize-aware", folder / "model.keras", *options)
    assert done.exit_code == 0, done.output
    with np.load(folder / "samples.npz") as samples:
        last = samples["x"][32:]  # the batch that this observer saw last
    found = keras.models.load_model("qat.keras").get_layer("fake_quant_x").range()
    assert found == (last.min() / 2, last.max() / 2)


def test_a_missing_file_is_bad_usage():
    assert run("inspect", "no-such-file.tflite").exit_code == 2


@pytest.fixture
def demo(request, tmp_path):
    """The folder that the demo has written, and what it said on stderr."""
    made = request.config.getoption("demo")
    if made:
        return Path(made), Path(made, "stderr.txt").read_text()
    done = subprocess.run(
        [sys.executable, "-c", "from tfcompress.cli import main; main()", "demo", "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "out", done.stderr


@pytest.mark.slow("trains, converts and measures eight files in a fresh process")
def test_demo_without_console_noise(demo):
    out, noise = demo
    assert noise == ""
    results = json.loads((out / "report.json").read_text())["results"]
    on_cpu = [result for result in results if result["delegate"] == "xnnpack"]
    assert len(on_cpu) == len(list(out.glob("*.tflite"))) == 8
    assert "pruned int8" in [result["name"] for result in on_cpu]
    for result in on_cpu:
        assert result["status"] == "ok", result["reason"]
        assert result["bytes"] == (out / result["path"].rpartition("/")[2]).stat().st_size
        # 540 digits, the last 4 epochs at a low rate: seeds differ by less than a point.
        assert result["metrics"]["accuracy"] > 0.97
        if result["name"].startswith("pruned"):
            # At most 6 of 151,000 weights from 80%: each kernel is rounded by itself; int8 and
            # dynamic turn a few more into zero.
            assert 0.7999 < result["metrics"]["zeros"] < 0.83
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "report.md").read_text().count("\n| ") >= 9


LM = GOLDEN / "language_model.tflite"


def test_generate_continues_ids_and_text(tmp_path):
    expected = list(edge.Generator(LM).generate([3, 1, 4], 5))
    done = run("generate", LM, "--tokens", "3,1,4", "--new", 5)
    assert (done.exit_code, done.output) == (0, " ".join(map(str, expected)) + "\n")
    words = tmp_path / "tokenizer.json"
    character_tokenizer().save(str(words))
    options = ["--prompt", CHARACTERS[3] + CHARACTERS[1] + CHARACTERS[4], "--tokenizer", words]
    text = "".join(CHARACTERS[token] for token in expected)
    assert run("generate", LM, *options, "--new", 5).output == text + "\n"
    found = json.loads(run("generate", LM, *options, "--new", 5, "--json").output)
    assert found == {"prompt": [3, 1, 4], "tokens": expected, "text": text}
    drawn = ["--temperature", 2, "--top-k", 9, "--top-p", 0.9, "--seed", 1, "--stop", expected[1]]
    same = {"temperature": 2, "top_k": 9, "top_p": 0.9, "seed": 1, "stop": [expected[1]]}
    wanted = list(edge.Generator(LM).generate([3], **same))
    assert run("generate", LM, "--tokens", 3, *drawn).output.split() == list(map(str, wanted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give --tokens or --prompt"),
        (["--tokens", "1", "--prompt", "a"], "Give --tokens or --prompt"),
        (["--prompt", "a"], "goes with --tokenizer"),
        (["--tokens", "a,b"], "is no list of ids"),
        (["--tokens", "50"], "ids from 0 to 49"),
        (["--prompt", "a", "--tokenizer", LM], "tokenizer"),
    ],
)
def test_generate_refuses_what_is_no_prompt(options, message):
    done = run("generate", LM, *options)
    assert done.exit_code == 2
    assert message in done.output


def test_bench_runs_a_signature(tmp_path):
    done = run("bench", LM, "--signature", "decode", "--runs", 10, "--seconds", 0, "--json")
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.output)["results"]
    assert (found["status"], found["input_shapes"]["tokens"]) == ("ok", [1, 1])
    assert run("bench", LM, "--signature", "other", "--runs", 1, "--seconds", 0).exit_code == 1
