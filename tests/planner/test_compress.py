"""`compress` as users call it."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import edge
from tfcompress.planner import workbench


@pytest.fixture(scope="module")
def result(net, digits):
    train, validation, test = digits
    target = tfc.Target(bytes=22_000, accuracy_drop=0.02)
    return tfc.compress(net, train, validation, target, test=test)


def test_compress_meets_a_target_without_training_and_measures_the_file(result, digits):
    assert result.met
    assert result.best.figures.bytes == result.best.file.stat().st_size <= 22_000
    x, y = digits[1]
    with edge.Runner(result.best, isolated=True) as runner:
        accuracy = float(np.mean(runner(x).argmax(-1) == y))
    assert result.best.figures.metric == accuracy
    assert result.best.loss == pytest.approx(result.original.metric - accuracy)
    assert result.best.test > 0.9 < result.original_test
    assert "x smaller" in result.why


def test_compress_lists_all_that_it_tried(result):
    shown = str(result)
    for outcome in result.outcomes:
        assert outcome.recipe.label() in shown
        assert outcome.figures is not None, outcome.why
    assert "float32" in shown and "best" in shown
    labels = [outcome.recipe.label() for outcome in result.outcomes]
    assert labels[:4] == ["float16", "dynamic int8", "int8", "int4 weights"]


def test_front_holds_nothing_that_another_beats(result):
    front = result.pareto
    sizes = [outcome.figures.bytes for outcome in front]
    losses = [outcome.loss for outcome in front]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)


def test_code_makes_the_same_file_again(result, net, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net.save("model.keras")
    np.savez("data.npz", image=digits[0][0])
    exec(compile(result.code(), "script", "exec"), {})
    assert (tmp_path / "best.tflite").read_bytes() == result.best.file.read_bytes()


def test_save_copies_the_file(result, tmp_path):
    result.save(tmp_path / "mine.tflite")
    assert (tmp_path / "mine.tflite").read_bytes() == result.best.file.read_bytes()
    with pytest.raises(ValueError, match=r"end in \.tflite"):
        result.save(tmp_path / "mine.bin")


def test_compress_says_what_is_missing_and_gives_the_closest(net, digits, monkeypatch, tmp_path):
    def only_float16(bench, recipe):
        if recipe.file.name != "float16":
            raise OSError(28, "No space left on device")
        return real(bench, recipe)

    real = workbench._tried
    monkeypatch.setattr(workbench, "_tried", only_float16)
    seen = []
    target = tfc.Target(bytes=1_000, accuracy_drop=0.02)
    found = tfc.compress(
        net, *digits[:2], target, storage=tmp_path / "run", progress=lambda r: seen.append(r.met)
    )
    assert not found.met
    assert found.best.done == "float16"
    assert f"1,000 bytes wanted; the smallest at this accuracy is {found.best.figures.bytes:,}" in (
        found.why
    )
    dropped = [o for o in found.outcomes if o.figures is None]
    assert {o.why for o in dropped} == {"[Errno 28] No space left on device"}
    assert len(seen) == len(found.outcomes) > len(dropped) > 0


def test_compress_gives_what_it_has_when_it_is_interrupted(net, digits, monkeypatch):
    def interrupted(bench, recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(workbench, "_tried", interrupted)
    found = tfc.compress(net, *digits[:2], tfc.Target(bytes=1_000, accuracy_drop=0.02))
    assert found.best.done == "nothing"
    assert found.best.file.stat().st_size == found.original.bytes
    assert not found.met


def test_compress_of_a_regression_with_two_inputs_by_name(monkeypatch):
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(200, 8)), "b": rng.normal(size=(200, 4))}
    x = {name: array.astype("float32") for name, array in x.items()}
    y = (x["a"].sum(1) - x["b"].sum(1)).astype("float32")
    inputs = {"a": keras.Input((8,), name="a"), "b": keras.Input((4,), name="b")}
    hidden = layers.Dense(128, activation="relu")(layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, layers.Dense(1, name="y")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    model.fit(x, y, epochs=20, verbose=0)

    found = tfc.compress(
        model, (x, y), (x, y), tfc.Target(bytes=7_000, accuracy_drop=0.5),
        metric="mean_squared_error",
    )  # fmt: skip

    assert found.met, found.why
    assert not found.bench.metric.higher_is_better
    assert any(o.recipe.file.name == "dynamic_int8" and o.figures for o in found.outcomes)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ({"validation": (np.zeros((0, 8, 8, 1)), np.zeros(0))}, "`validation` is empty"),
        ({"validation": (np.full((9, 8, 8, 1), np.nan), np.zeros(9))}, "NaN"),
        ({"validation": (np.zeros((9, 4)), np.zeros(9))}, "must have shape"),
        ({"metric": None}, "`metric`"),
        ({"metric": lambda predictions, targets: float("nan")}, "gives nan"),
        ({"target": 0.5}, "`target`"),
        ({"minutes": 0}, "`minutes`"),
        ({"device": "pi"}, "`target`"),
        ({"storage": __file__}, "`storage` must be a folder"),
    ],
)
def test_compress_refuses_bad_input_with_a_clear_word(spoiled, words, net, digits):
    arguments = {"train": digits[0], "validation": digits[1], "target": tfc.Target(bytes=10)}
    with pytest.raises((TypeError, ValueError), match=words):
        tfc.compress(net, **{**arguments, **spoiled})


def test_a_device_that_is_not_there_is_an_error_before_anything_is_tried(net, digits):
    class Gone:
        name, emulated = "gone", False

        def session(self, files):
            raise OSError("no route to host")

    with pytest.raises(edge.ModelRefused, match=r"'gone'.*no route to host"):
        tfc.compress(net, *digits[:2], tfc.Target(bytes=10), device=Gone())
