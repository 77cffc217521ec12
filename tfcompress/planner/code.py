"""A script that makes the best file again, without the planner."""

from __future__ import annotations

from .recipe import Outcome
from .workbench import Workbench

__all__ = ["script"]


def script(outcome: Outcome | None, bench: Workbench) -> str:
    """Return a Python script that does what a recipe says.

    Args:
        outcome: The best; None for the original itself.
        bench: The original, and what was measured how.

    Returns:
        The script. It loads the model and its data from files that it names.
    """
    from .baseline import batch_of

    lines = ["import keras", "import numpy as np", "", "from tfcompress import converters", ""]
    lines += ['model = keras.models.load_model("model.keras")']
    precision, sparse = "converters.Float32()", ""
    if outcome is not None:
        file = outcome.recipe.file
        precision = file.code()
        stored = file.sparse()
        sparse = f"sparse=converters.{stored!r}, " if stored else ""
        if file.needs_samples:
            names = sorted(bench.samples)
            [count] = {len(array) for array in bench.samples.values()}
            lines += [
                'data = np.load("data.npz")',
                f"rows = np.linspace(0, len(data[{names[0]!r}]) - 1, {count}).round().astype(int)",
                f"samples = {{name: data[name][rows] for name in {names!r}}}",
            ]
    lines += [
        "converters.convert(",
        f'    model, "best.tflite", {precision}, {sparse}batch_size={batch_of(bench.model)}',
        ")",
        "",
    ]
    return "\n".join(lines)
