"""A script that makes the best file again, without the planner."""

from __future__ import annotations

from .baseline import batch_of
from .recipe import Outcome, Recipe
from .training import Training, epochs_after, initial_rate, steps_of
from .workbench import Workbench

__all__ = ["script"]

_DATA = """
data = np.load("data.npz")  # the training data: inputs by name, and targets as y
"""
_TRAIN = """

def train(student, epochs, seed, *callbacks):
    keras.utils.set_random_seed(seed)
    learner = {learner}
    rate = keras.optimizers.schedules.CosineDecay({rate}, epochs * {steps}, {last})
    optimizer = model.optimizer.get_config() | {{"learning_rate": rate}}
    learner.compile(
        type(model.optimizer).from_config(optimizer), model.loss, jit_compile=False
    )
    x = {{name: data[name] for name in {names}}}
    learner.fit(
        {x}, data["y"], batch_size={batch}, epochs=epochs, callbacks=list(callbacks)
    )


small = keras.models.clone_model(model)
small.set_weights(model.get_weights())"""


def script(outcome: Outcome | None, bench: Workbench) -> str:
    """Return a Python script that does what a recipe says.

    Args:
        outcome: The best; None for the original itself.
        bench: The original, and what was measured how.

    Returns:
        The script. It loads the model and its data from files that it names.
    """
    lines = ["import keras", "import numpy as np", "", "import tfcompress as tfc"]
    lines += ["from tfcompress import converters", ""]
    lines += ['model = keras.models.load_model("model.keras")']
    precision, sparse, made = "converters.Float32()", "", "model"
    if outcome is not None:
        recipe = outcome.recipe
        aware = any(change.finish_code() for change in recipe.changes)
        precision = recipe.file.code().replace("calibration=samples", "") if aware else (
            recipe.file.code()
        )  # fmt: skip
        stored = recipe.file.sparse()
        sparse = f"sparse=converters.{stored!r}, " if stored else ""
        if recipe.file.needs_samples or recipe.changes:
            names = sorted(bench.samples)
            [count] = {len(array) for array in bench.samples.values()}
            lines += [
                *_DATA.strip().splitlines(),
                f"rows = np.linspace(0, len(data[{names[0]!r}]) - 1, {count}).round().astype(int)",
                f"samples = {{name: data[name][rows] for name in {names!r}}}",
            ]
        if recipe.changes:
            lines += _changed(recipe, bench.training)
            made = "small"
    lines += [
        "converters.convert(",
        f'    {made}, "best.tflite", {precision}, {sparse}batch_size={batch_of(bench.model)}',
        ")",
        "",
    ]
    return "\n".join(lines)


def _changed(recipe: Recipe, training: Training) -> list[str]:
    """Return the lines that change and train the model, as `Training.changed` does."""
    names = sorted(training.samples)
    steps = steps_of(training.data, training.batch_size) or 1
    text = _TRAIN.format(
        learner="tfc.Distiller(model, student)" if training.distils else "student",
        rate=f"{initial_rate(training.model.optimizer):.7g}" if training.fine_tune is None else "",
        steps=steps,
        last=training.last_rate,
        names=names,
        x="x" if len(names) > 1 else f"x[{names[0]!r}]",
        batch=training.batch_size,
    )
    if training.fine_tune is not None:
        text = "\n\nfrom my_module import fine_tune as train  # your own\n\nsmall = model"
    lines = text.splitlines()
    lines += [line for change in recipe.changes if (line := change.code())]
    done = 0

    def call(seen: Recipe, epochs: int) -> str:
        callbacks = [
            code
            for change in recipe.changes
            for code in change.callbacks_code(epochs * steps, not done)
        ]
        arguments = ["small", str(epochs)]
        if training.fine_tune is None:
            arguments += [str(training.seed_of(seen)), *callbacks]
        return f"train({', '.join(arguments)})"

    for epochs in (e for e in training.rungs if e <= recipe.epochs):
        lines.append(call(recipe.plain().at(epochs), epochs - done))
        done = epochs
    finishing = [line for change in recipe.changes if (line := change.finish_code())]
    if finishing:
        lines += [*finishing, call(recipe, epochs_after(recipe))]
    return lines
