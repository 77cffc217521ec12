"""`compress` as users call it."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import edge
from tfcompress.planner import candidates, search, study, workbench
from tfcompress.planner.recipe import Recipe
from tfcompress.planner.steps.float16 import Float16File
from tfcompress.planner.steps.int8 import Int8File


@pytest.fixture
def only(monkeypatch):
    """A function that leaves one way to make a file, so that a test takes less long."""

    def leave(name):
        steps = [step for step in candidates.file_steps() if step.name in (name, "int8")]
        monkeypatch.setattr(
            search, "free", lambda outcomes, target: [
                recipe
                for recipe in map(Recipe, (step for step in steps if step.name == name))
                if recipe not in [outcome.recipe for outcome in outcomes]
            ]
        )  # fmt: skip

    return leave


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


@pytest.fixture(scope="module")
def trained(net, digits, tmp_path_factory):
    """What comes of a target that takes training, and the folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            search, "free", lambda outcomes, target: [] if outcomes else [Recipe(Int8File())]
        )
        target = tfc.Target(bytes=9_000, accuracy_drop=0.03)
        yield tfc.compress(net, *digits[:2], target, storage=folder, trials=12), folder


@pytest.mark.slow("trains and converts changed models")
def test_compress_trains_what_fits_until_the_target_is_met(trained):
    found, _ = trained
    assert found.met, found.why
    assert found.best.outcome.recipe.epochs > 0
    assert found.best.file.stat().st_size == found.best.figures.bytes <= 9_000
    assert found.model.count_params() < found.bench.model.count_params()


@pytest.mark.slow("trains and converts changed models")
def test_code_repeats_a_trained_model_to_the_bit(trained, net, digits, tmp_path, monkeypatch):
    found, _ = trained
    monkeypatch.chdir(tmp_path)
    net.save("model.keras")
    np.savez("data.npz", image=digits[0][0], y=digits[0][1])
    exec(compile(found.code(), "script", "exec"), {})
    assert (tmp_path / "best.tflite").read_bytes() == found.best.file.read_bytes()


@pytest.mark.slow("trains and converts changed models")
def test_compress_with_the_storage_of_an_earlier_call_goes_on(trained, net, digits, monkeypatch):
    found, folder = trained
    monkeypatch.setattr(workbench, "_tried", None)  # trying anything again would be an error
    again = tfc.compress(net, *digits[:2], found.target, storage=folder)
    assert again.best.file == found.best.file
    assert again.outcomes == found.outcomes
    assert found.resume().best.file == found.best.file


def test_compress_without_training_says_why_it_ended(net, digits, only, tmp_path):
    only("int8")
    net.save(tmp_path / "net.keras")
    plain = keras.models.load_model(tmp_path / "net.keras", compile=False)
    found = tfc.compress(plain, *digits[:2], tfc.Target(bytes=9_000, accuracy_drop=0.03))
    assert not found.met
    assert "the model is not compiled: compile it" in found.why
    assert found.best.done == "int8"


def test_report_is_one_page_with_all_that_was_tried(result, tmp_path):
    page = result.report(tmp_path / "report.html").read_text("utf-8")
    assert result.why.partition(" (")[0] in page
    for outcome in result.outcomes:
        assert f"<td>{outcome.recipe.label()}</td>" in page
    assert "converters.convert(" in page
    with pytest.raises(ValueError, match=r"end in \.html"):
        result.report(tmp_path / "report.pdf")


def test_save_copies_the_file(result, tmp_path):
    result.save(tmp_path / "mine.tflite")
    assert (tmp_path / "mine.tflite").read_bytes() == result.best.file.read_bytes()
    with pytest.raises(ValueError, match=r"end in \.tflite"):
        result.save(tmp_path / "mine.bin")


def test_compress_says_what_is_missing_and_gives_the_closest(net, digits, monkeypatch, tmp_path):
    def only_float16(bench, recipe):
        if recipe.file.name != "float16" or recipe.changes:
            raise RuntimeError("no luck")
        return real(bench, recipe)

    real = workbench._tried
    monkeypatch.setattr(workbench, "_tried", only_float16)
    seen = []
    target = tfc.Target(bytes=1_000, accuracy_drop=0.02)
    found = tfc.compress(
        net, *digits[:2], target, storage=tmp_path / "run", progress=lambda r: seen.append(r.met)
    )
    assert not found.met
    assert found.best.done == "float16", str(found)
    assert f"1,000 bytes wanted; the smallest at this accuracy is {found.best.figures.bytes:,}" in (
        found.why
    )
    dropped = [o for o in found.outcomes if o.figures is None]
    assert {o.why for o in dropped} == {"no luck"}, str(found)
    assert len(seen) == len(found.outcomes) > len(dropped) > 0


class Leaving:
    """This machine, until it cannot be reached any more."""

    name, emulated, gone = "pi", False, False

    def session(self, files):
        if self.gone:
            raise OSError("no route to host")
        return edge.Local().session(files)


@pytest.mark.parametrize(
    "trouble",
    [
        "disk",
        pytest.param("device", marks=pytest.mark.slow("calls compress once more")),
        pytest.param("study", marks=pytest.mark.slow("calls compress once more")),
    ],
)
def test_compress_keeps_what_it_found_where_it_cannot_go_on(
    trouble, net, digits, monkeypatch, tmp_path
):
    recipes = [Recipe(Int8File()), Recipe(Float16File())]
    monkeypatch.setattr(search, "free", lambda outcomes, target: recipes[len(outcomes) :])
    words = {
        "disk": "the disk is full at best.tflite: make room",
        "device": r"the device 'pi' went away \(.*no route to host\): look after it",
        "study": r"the study cannot be kept \(gone\): look after it",
    }

    def tried(bench, recipe, *others):
        if recipe != recipes[0] and trouble == "disk":
            raise OSError(28, "No space left on device", "best.tflite")
        leaving.gone = recipe != recipes[0]
        if recipe != recipes[0] and trouble == "study":
            monkeypatch.setattr(study.Study, "_trials", gone)
        return real(bench, recipe, *others)

    def gone(self):
        raise ConnectionError("gone")

    real = workbench._tried
    monkeypatch.setattr(workbench, "_tried", tried)
    leaving = Leaving()
    device = leaving if trouble == "device" else edge.Local()
    target = tfc.Target(bytes=1_000, accuracy_drop=0.05)
    found = tfc.compress(net, *digits[:2], target, device=device, storage=tmp_path)
    assert [o.recipe for o in found.outcomes] == recipes[:1], "the second is not to blame"
    assert found.best.done == "int8"
    assert re.search(f"It ended early, as {words[trouble]}; then `resume", found.why)


def test_compress_gives_what_it_has_when_it_is_interrupted(net, digits, monkeypatch):
    def interrupted(bench, recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(workbench, "_tried", interrupted)
    found = tfc.compress(net, *digits[:2], tfc.Target(bytes=1_000, accuracy_drop=0.02))
    assert found.best.done == "nothing"
    assert found.best.file.stat().st_size == found.original.bytes
    assert not found.met


def test_best_file_is_measured_on_all_data_and_others_on_500_samples(net, digits, monkeypatch):
    recipes = [Recipe(Float16File()), Recipe(Int8File())]
    monkeypatch.setattr(search, "free", lambda outcomes, target: recipes[len(outcomes) :])
    x, y = (np.concatenate([part] * 3) for part in digits[1])  # 810 samples
    found = tfc.compress(net, digits[0], (x, y), tfc.Target(bytes=30_000, accuracy_drop=0.02))
    half, best = found.outcomes
    assert found.met
    assert found.best.outcome == best
    assert best.samples == 0
    with edge.Runner(found.best, isolated=True) as runner:
        assert best.figures.metric == float(np.mean(runner(x).argmax(-1) == y))
    assert half.recipe == recipes[0], "too large, and not worth more"
    assert half.samples == 500
    assert str(found).count("estimated") == 1


@pytest.mark.slow("measures some ten files")
def test_compress_of_a_regression_with_two_inputs_by_name(only):
    only("dynamic_int8")
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
        metric="mean_squared_error", trials=1,
    )  # fmt: skip

    assert not found.bench.metric.higher_is_better
    assert found.best.done == "dynamic int8", str(found)


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
