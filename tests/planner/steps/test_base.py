"""A step of a user's, registered as theirs is, is chosen, trained, and written into the script."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.planner import search
from tfcompress.planner.candidates import entrants
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.steps.base import STEPS, ChangeStep, register_step
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.target import Figures, Target

ORIGINAL = Figures(100_000, 0.99, 1.0, 1.0)
TARGET = Target(bytes=8_000, accuracy_drop=0.01)


@dataclass(frozen=True)
class EvenChannels(ChangeStep):
    """Cut the same share of the channels of each layer."""

    share: float

    name: ClassVar[str] = "even_channels"
    order: ClassVar[int] = 0

    @classmethod
    def choices(cls):
        return [cls(0.25), cls(0.75)]

    def left(self):
        return (1 - self.share) ** 2

    def label(self):
        return f"{self.share:.0%} of the channels cut"

    def rewrite(self, model):
        return tfc.prune_channels(model, self.share)


@dataclass(frozen=True)
class Frozen(ChangeStep):
    """Nothing but callbacks and an end."""

    name: ClassVar[str] = "frozen"
    order: ClassVar[int] = 5
    finishes: ClassVar[bool] = True

    @classmethod
    def choices(cls):
        return [cls()]

    def label(self):
        return "frozen"

    def callbacks(self, steps, first):
        return [keras.callbacks.TerminateOnNaN()]

    def finish(self, model, samples):
        return model


@pytest.fixture
def registered(monkeypatch):
    """The steps above, in the registry for one test."""
    monkeypatch.setattr(STEPS, "_items", dict(STEPS._items))
    register_step(EvenChannels)
    register_step(Frozen)


def changes(**options):
    done = [Outcome(Recipe(Int8File()), Figures(25_000, 0.99, 1.0, 0.5), 0.0)]
    found = entrants(done, TARGET, TARGET, ORIGINAL, **options)
    return [change for entrant in found for change in entrant.recipe.changes]


@pytest.mark.usefixtures("registered")
def test_choices_of_a_registered_step_enter_the_race():
    assert {c for c in changes() if isinstance(c, EvenChannels)} == {
        EvenChannels(0.25),
        EvenChannels(0.75),
    }
    assert Frozen() in changes()


@pytest.mark.usefixtures("registered")
def test_step_that_trains_with_callbacks_is_left_out_where_they_cannot_be_given():
    found = changes(callbacks=False)
    assert EvenChannels(0.75) in found
    assert not any(isinstance(change, Frozen) for change in found)


def test_step_that_is_not_registered_is_not_chosen():
    assert not any(isinstance(change, EvenChannels) for change in changes())


@pytest.mark.usefixtures("registered")
def test_code_of_a_step_calls_its_methods():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    names = {"small": net}
    exec(EvenChannels(0.25).code(), names)
    assert names["small"].layers[-2].units == 6
    names = {"small": net, "samples": {}}
    exec(Frozen().code(), names)
    [callback] = eval(f"[{', '.join(Frozen().callbacks_code(5, True))}]", names)
    assert isinstance(callback, keras.callbacks.TerminateOnNaN)
    exec(Frozen().finish_code(), names)
    assert names["small"] is net


@pytest.mark.parametrize("name", [n for n in STEPS.names() if issubclass(STEPS.get(n), ChangeStep)])
def test_steps_of_ours_are_mild_first(name):
    kind = STEPS.get(name)
    choices = kind.choices()
    left = [step.left() for step in choices]
    assert left == sorted(left, reverse=True)
    assert all(0 < share < 1 for share in left)
    assert len({step.label() for step in choices}) == len(choices)


@pytest.mark.slow("trains and converts a changed model in the command")
def test_compress_command_chooses_a_step_of_the_users(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from tfcompress.cli import main

    (tmp_path / "my_step.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "import tfcompress as tfc\n"
        "from tfcompress.planner.steps.base import ChangeStep, register_step\n"
        "@register_step\n"
        "@dataclass(frozen=True)\n"
        "class Even(ChangeStep):\n"
        "    share: float\n"
        "    name: ClassVar[str] = 'my_even_channels'\n"
        "    order: ClassVar[int] = 0\n"
        "    @classmethod\n"
        "    def choices(cls): return [cls(0.75)]\n"
        "    def left(self): return (1 - self.share) ** 2\n"
        "    def label(self): return 'even channels'\n"
        "    def rewrite(self, model): return tfc.prune_channels(model, self.share)\n"
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype("float32")
    y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).astype("int64")
    model = keras.Sequential(
        [keras.Input((8,), name="x"), keras.layers.Dense(256, "relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(x, y, epochs=5, verbose=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(STEPS, "_items", dict(STEPS._items))
    int8 = Recipe(Int8File())  # the others would do, too
    monkeypatch.setattr(search, "free", lambda outcomes, _: [] if outcomes else [int8])
    for name in ("channels", "low_rank", "zeros"):
        monkeypatch.setattr(STEPS.get(name), "choices", classmethod(lambda cls: ()))
    model.save("model.keras")
    np.savez("xy.npz", x=x, y=y)
    done = CliRunner().invoke(
        main, ["compress", "model.keras", "--data", "xy.npz", "-o", "best.tflite", "--size",
               "3500", "--max-drop", "0.05", "--import", "my_step"],
        env={"COLUMNS": "160"},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "even channels, int8" in done.output
    assert (tmp_path / "best.tflite").stat().st_size <= 3500
