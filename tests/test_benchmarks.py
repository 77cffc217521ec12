"""The scripts of `benchmarks/` run: before a release, as their figures are measured then."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

import tfcompress as tfc

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def random_images(
    path: Path, shape: tuple[int, ...] = (32, 32, 3), label: tuple[int, ...] = (1,)
) -> None:
    random = np.random.default_rng(0)
    splits = {
        f"{what}_{split}": random.integers(0, high, (count, *size), "uint8")
        for split, count in (("train", 512), ("test", 256))
        for what, high, size in (("x", 256, shape), ("y", 10, label))
    }
    np.savez(path, **splits)


@pytest.fixture
def run(monkeypatch, tmp_path) -> Callable[..., int]:
    """Run a script's `main` in an empty folder; its exit status.

    In this process, whose converters start at once.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)

    def status(name: str, *arguments: str) -> int:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        return importlib.import_module(name.removesuffix(".py")).main()

    return status


def written(folder: Path, pattern: str) -> dict[str, int]:
    """When each of the files was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


@pytest.mark.large
def test_qat_cifar10_makes_and_tests_every_file_once(run, tmp_path):
    random_images(tmp_path / "data.npz")
    command = ["qat_cifar10.py", "--smoke", "--seeds", "1", "--longer", "--nets", "wide"]
    command += ["--data", "data.npz", "--cache", "cache", "--json", "out.json"]
    assert run(*command) == 0
    made = written(tmp_path / "cache", "*.tflite")
    stages = ["float32", "post-training", "QAT", "float32_longer"]
    if importlib.util.find_spec("tensorflow_model_optimization"):
        stages.append("tfmot_QAT")
    assert sorted(made) == sorted(f"{stage}.tflite" for stage in stages)
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    by_stage = {r["stage"].replace(" ", "_"): r for r in results}
    assert sorted(by_stage) == sorted(stages)
    assert by_stage["float32"]["agreement"] == 100
    # Kernels are most of the file, and are a quarter of the size.
    assert by_stage["QAT"]["bytes"] < by_stage["float32"]["bytes"] / 2
    assert by_stage["QAT"]["lsb"] <= 2
    assert run(*command) == 0
    assert written(tmp_path / "cache", "*.tflite") == made


@pytest.mark.large
def test_recipe_cifar10_makes_and_measures_every_stage_once(run, tmp_path):
    random_images(tmp_path / "data.npz")
    command = ["recipe_cifar10.py", "--smoke", "--seeds", "1", "--nets", "resnet8", "--control"]
    command += ["--data", "data.npz", "--cache", "cache"]
    assert run(*command, "--importances", "taylor", "random", "--json", "out.json") == 0
    made = written(tmp_path / "cache", "*.*")
    report = json.loads((tmp_path / "out.json").read_text())
    original, post_training, cut, cut_again, zeros, int8, control = report["results"]
    assert [r["stage"] for r in (original, int8)] == ["float32", "zeros, int8"]
    recipe = report["recipes"]["resnet8"]
    for result in (cut, cut_again):
        assert 0 < result["macs"] <= recipe["cuts"][result["stage"]]["macs"] * original["macs"]
    assert int8["macs"] == zeros["macs"] == cut_again["macs"]
    # The layers that are pruned hold most of the weights.
    assert cut_again["zeros"] < 0.01 < 0.6 * recipe["zeros"] < zeros["zeros"] <= int8["zeros"]
    assert (control["macs"], control["bytes"]) == (original["macs"], original["bytes"])
    sizes = [result["bytes"] for result in (original, cut, cut_again, int8)]
    assert sizes == sorted(sizes, reverse=True)
    assert post_training["bytes"] < original["bytes"] / 2
    # Zeros shorten the zip alone.
    assert abs(zeros["bytes"] - cut_again["bytes"]) < 100
    assert zeros["gzip_bytes"] < cut_again["gzip_bytes"]
    assert [c["importance"] for c in report["importances"]] == ["taylor", "random"]
    for comparison in report["importances"]:
        assert 0.4 < comparison["macs"] <= 0.5
    assert run(*command) == 0
    assert written(tmp_path / "cache", "*.*") == made


@pytest.mark.large
def test_post_training_measures_every_way(run, tmp_path):
    random_images(tmp_path / "data.npz")
    command = ["post_training.py", "--smoke", "--nets", "wide", "--epochs", "1"]
    assert run(*command, "--data", "data.npz", "--json", "out.json") == 0
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    found = {(r["way"], r["samples"]): r for r in results}
    assert len(found) == len(results) >= 9
    # The ranges were made uneven, and are made even again.
    assert found["Int8, equalized", 64]["snr_db"] > found["Int8", 64]["snr_db"] + 10
    assert found["Int4Weights, gptq", 500]["bytes"] < found["Int8", 64]["bytes"]
    assert all(r["float_macs"] == 0 for r in results)


@pytest.mark.large
def test_int8_architectures_compares_every_way(run, tmp_path):
    command = ["int8_architectures.py", "--nets", "dense MLP", "conv3d", "--json", "out.json"]
    assert run(*command) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    found = {(r["architecture"], r["way"], r["samples"]): r for r in report["results"]}
    assert len(found) == len(report["results"]) in (10, 12)  # with litert-quantizer
    for ranges in ("mse", "minmax", "percentile"):
        assert found["dense MLP", ranges, 64]["snr_db"] > 30
        assert found["dense MLP", ranges, 64]["float_macs"] == []
        # TFLite has no int8 form of it.
        assert "CONV_3D" in str(found["conv3d", ranges, 64]["float_macs"])
    assert [row["files"] for row in report["summary"]] == [2] * len(report["summary"])


@pytest.mark.slow("cuts the nets of the benchmark")
@pytest.mark.parametrize(
    ("net", "least", "most"),
    [("mobilenet", 0.45, 0.484), ("resnet8", 0.33, 0.37), ("resnet20", 0.40, 0.41)],
)
def test_the_first_cut_of_a_recipe_leaves_the_macs_that_the_readme_says(
    monkeypatch, net, least, most
):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("recipe_cifar10")
    recipe = module.RECIPES[net]
    original = module.cifar10.NETS[net](keras)
    small = recipe.cuts[module.CUT].of(original, original, recipe.round_to)
    assert least < module.macs(small) / module.macs(original) <= most


def test_every_importance_scores_a_net(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("importances_cifar10")
    assert set(benchmark.NAMES) == {
        "activation_mean", "activation_zeros", "bn_scale", "l1_norm", "l2_norm", "random", "taylor",
    }  # fmt: skip
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    groups = tfc.channel_groups(keras.Model(image, keras.layers.Dense(10)(x)))
    random = np.random.default_rng(0)
    images, labels = random.random((16, 8, 8, 3), "float32"), random.integers(0, 10, 16)
    for name in benchmark.NAMES:
        importance = benchmark.importance_of(name, images, labels, 0)
        (scores,) = importance(groups.model, groups.prunable)
        assert scores.shape == (6,) and np.isfinite(scores).all()


@pytest.mark.large
def test_sparse_files_are_smaller_by_what_is_zero(run, tmp_path):
    random_images(tmp_path / "data.npz", shape=(28, 28), label=())
    command = ["sparse_files.py", "--smoke", "--nets", "cnn", "--mnist", "data.npz"]
    assert run(*command, "--cache", "cache", "--json", "out.json") == 0
    report = json.loads((tmp_path / "out.json").read_text())
    found = {(r["stage"], r["form"]): r for r in report["results"]}
    assert len(found) == 5 * 4
    # A float32 weight, or a block of four, and one byte for its place.
    for stage, share in (("80% zeros", 4 / 5), ("90% zeros", 4 / 5), ("80% in blocks", 16 / 17)):
        result = found[stage, "float32"]
        assert result["zeros"] == pytest.approx(float(stage[:2]) / 100, abs=0.01)
        # The file has tables and biases, too: some 7 kB of 670.
        assert result["smaller"] == pytest.approx(share / (1 - result["zeros"]), rel=0.1)
        assert found[stage, "int8 weights"]["bytes"] < result["bytes"] / 1.9
    shared, pruned = found["80%, 16 values", "float32"], found["80% zeros", "float32"]
    assert abs(shared["bytes"] - pruned["bytes"]) < 1000
    assert shared["gzip_bytes"] < pruned["gzip_bytes"] / 2
    assert len(report["targets"]) == 4


@pytest.mark.large
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("pruning_overhead.py", ()),
        ("pruning_overhead.py", ("--net", "transformer")),
        ("qat_overhead.py", ()),
    ],
)
def test_overhead_measures_every_variant(script, options, run, tmp_path):
    command = [
        script,
        *options,
        "--json",
        "out.json",
        "--rounds",
        "1",
        "--steps",
        "2",
        "--batch",
        "4",
    ]
    assert run(*command) in (0, 1)  # Times of two steps meet a target by chance.
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    variants = results.get("Keras 3", results)
    assert len(variants) in (3, 4)
    for entry in variants.values():
        assert entry["median"]["ms"] > 0


@pytest.mark.large
def test_conversion_cost_measures_both_ways(run, tmp_path):
    assert run("conversion_cost.py", "--json", "out.json", "--nets", "mlp", "--rounds", "1") in (
        0,
        1,
    )
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert found["ratio"] == found["checked"] / found["plain"] > 0


@pytest.mark.large
def test_language_model_measures_every_file_once(run, tmp_path):
    words = np.random.default_rng(0).choice([f"word{i}" for i in range(300)], 9000)
    for part, count in (("test", 8000), ("valid", 1000)):
        (tmp_path / f"{part}.txt").write_text(" ".join(words[:count]), "utf-8")
    command = ["language_model.py", "--smoke", "--data", ".", "--cache", "cache"]
    command += ["--epochs", "1", "--pruning-epochs", "1", "--tokens", "300", "--rounds", "2"]
    run(*command, "--json", "out.json")  # so small a net misses the targets
    made = written(tmp_path / "cache", "*.*")
    found = json.loads((tmp_path / "out.json").read_text())
    rows = {row["file"]: row for row in found["perplexity"]}
    assert rows["int8"]["perplexity"] == pytest.approx(rows["float32"]["perplexity"], rel=0.01)
    assert rows["int4"]["bytes"] < rows["int8"]["bytes"] < rows["float32"]["bytes"]
    assert set(found["ms_a_token"]) == {
        "no cache",
        *(set(rows) - {"half zeros", "half zeros, int8"}),
    }
    assert all(len(times) == 2 for times in found["ms_a_token"].values())
    run(*command, "--parts", "speed", "--json", "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["perplexity"] == []
    assert set(again["ratios"]) == {"float32", "int8", "int4"}
    assert written(tmp_path / "cache", "*.*") == made


def test_surgeon_finds_the_rows_that_count(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    surgeon = importlib.import_module("surgeon")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 12))
    x[:, 6:] += 0.5 * x[:, :6]  # correlated, so that magnitudes mislead
    kernel = rng.normal(size=(12, 5))
    for block, rows in ((1, [0, 3, 7, 10]), (3, [3, 4, 5, 9, 10, 11])):
        wanted = x[:, rows] @ kernel[rows]
        found = surgeon.best_rows(x, wanted, len(rows) // block, block)
        assert np.flatnonzero(found.any(1)).tolist() == rows
        # Damping shrinks it by a percent or so.
        np.testing.assert_allclose(found[rows], kernel[rows], atol=0.1)


@pytest.mark.large
def test_surgeon_leaves_what_prune_channels_takes_out(monkeypatch):
    keras_hub = pytest.importorskip("keras_hub")
    monkeypatch.syspath_prepend(BENCHMARKS)
    minilm = importlib.import_module("minilm")
    distil = importlib.import_module("minilm_distil")
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}

    def encoder():
        keras.utils.set_random_seed(0)
        made = keras_hub.models.BertBackbone(50, **sizes, dropout=0.0, max_sequence_length=32)
        return tfc.open_layers(minilm.encoder(made))

    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (300, minilm.LENGTH)).astype("int32")
    data = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + (ids > 5)}
    teacher, student = encoder(), encoder()
    small = distil.cut(teacher, student, data)
    # 3 of 4 heads and 24 of 64 units; the products of attention count for more in so small a net.
    assert tfc.summary(small).total.macs < 0.61 * tfc.summary(teacher).total.macs
    found = small.predict(data, verbose=0)
    np.testing.assert_allclose(found, student.predict(data, verbose=0), atol=1e-5)
    plain = tfc.prune_channels(teacher, distil.HEADS, filters="self_attention_layer$")
    plain = tfc.prune_channels(plain, distil.UNITS, filters="intermediate_dense")
    exact = teacher.predict(data, verbose=0)
    near, far = (minilm.cosines(y, exact).mean() for y in (found, plain.predict(data, verbose=0)))
    assert near > far
