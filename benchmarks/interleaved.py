"""Several fits that run at once and take turns, a few steps each, so that they see one machine.

What a change costs a training step is a few percent, and the machine's own speed changes by more
from minute to minute. The other scripts here measure with this.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras as keras3
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.table import Table

from tfcompress.edge.system.machine import machine

Array = npt.NDArray[np.float64]
Variant = tuple[Any, Sequence[Any]]

PLAIN = "plain"
WARM_UP = 2


def parser(description: str) -> argparse.ArgumentParser:
    """The options that `measure` wants."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--rounds", type=int, default=60, help="turns of each that count")
    found.add_argument("--steps", type=int, default=5, help="steps in a turn")
    found.add_argument("--batch", type=int, default=128, help="samples in a batch")
    found.add_argument("--jit", action="store_true", help="compile the steps with XLA")
    found.add_argument("--json", type=Path, help="write the results here, too")
    return found


def build(jit: bool, wrap: Callable[[Any], Any] = lambda model: model, keras: Any = keras3) -> Any:
    """Six convolutions with batch normalization and ReLU, 287,000 weights; compiled.

    Args:
        jit: Whether XLA compiles the steps.
        wrap: What to make of the net first.
        keras: Keras 3, or tf_keras.
    """
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = x = keras.Input((32, 32, 3))
    for channels in (32, 32, 64, 64, 128, 128):
        strides = 2 if channels != x.shape[-1] and channels > 32 else 1
        x = layers.Conv2D(channels, 3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = wrap(keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit)
    return model


def images(batch: int) -> tuple[Any, Any]:
    """A batch of random images, with classes."""
    rng = np.random.default_rng(0)
    return rng.random((batch, 32, 32, 3), np.float32), rng.integers(0, 10, batch)


def measure(
    variants: dict[str, Variant],
    args: argparse.Namespace,
    keras: Any = keras3,
    data: Callable[[int], tuple[Any, Any]] = images,
) -> dict[str, Array]:
    """Milliseconds of each step of `fit` on random data.

    Args:
        variants: By name, a compiled model of `build` and the callbacks of its fit.
        args: The options of `parser`. `WARM_UP` more turns are taken, which do not count.
        keras: Keras 3, or tf_keras.
        data: Makes inputs and classes for a batch of so many samples. Defaults to `images`.

    Returns:
        By name, an array `(rounds, steps)`.
    """
    total = (args.rounds + WARM_UP) * args.steps
    batches = tf.data.Dataset.from_tensors(data(args.batch)).repeat(total)
    turns = _Turns(len(variants))

    class Callback(_Stopwatch, keras.callbacks.Callback):  # type: ignore[misc]
        pass

    def run(mine: int, model: Any, callbacks: Sequence[Any]) -> Array:
        watch = Callback(turns, mine, args.steps)
        try:
            model.fit(batches, shuffle=False, verbose=0, callbacks=[watch, *callbacks])
        except BaseException:
            turns.pass_on(broken=True)
            raise
        return watch.milliseconds()[WARM_UP:]

    with ThreadPoolExecutor(len(variants)) as pool:
        futures = [pool.submit(run, i, *variant) for i, variant in enumerate(variants.values())]
        return dict(zip(variants, (future.result() for future in futures), strict=True))


def save(args: argparse.Namespace, results: dict[str, Any], packages: Sequence[str] = ()) -> None:
    """Write the results with their circumstances, if that was asked for."""
    if not args.json:
        return
    content = {
        "machine": dataclasses.asdict(machine()),
        **{name: version(name) for name in ("tensorflow", "keras", *packages)},
        "rounds": args.rounds,
        "steps": args.steps,
        "batch": args.batch,
        "jit_compile": args.jit,
        "results": results,
    }
    args.json.write_text(json.dumps(content, indent=2) + "\n")


def ratios(times: dict[str, Array]) -> dict[str, dict[str, Any]]:
    """Median and mean step of each variant, and their ratios to plain, turn by turn."""
    results: dict[str, dict[str, Any]] = {}
    for name, steps in times.items():
        entry: dict[str, Any] = {}
        for statistic in (np.median, np.mean):
            turn_by_turn = statistic(steps, axis=1) / statistic(times[PLAIN], axis=1)
            low, middle, high = np.percentile(turn_by_turn, [10, 50, 90])
            entry[statistic.__name__] = {
                "ms": float(statistic(steps)),
                "ratio": float(middle),
                "ratio_p10": float(low),
                "ratio_p90": float(high),
                "ratio_overall": float(statistic(steps) / statistic(times[PLAIN])),
            }
        results[name] = entry
    return results


def missed(results: dict[str, dict[str, Any]], targets: dict[str, float]) -> list[str]:
    """Variants whose median or mean step is above the target, as a ratio to plain."""
    return [
        name
        for name, limit in targets.items()
        if max(results[name]["median"]["ratio"], results[name]["mean"]["ratio_overall"]) > limit
    ]


def table(
    title: str, column: str, results: dict[str, dict[str, Any]], targets: dict[str, float]
) -> Table:
    """The results to look at."""
    found = Table(title=title)
    for name in (column, "median", "ratio (p10, p90 of turns)", "mean", "ratio", "target"):
        found.add_column(name, justify="left" if name == column else "right")
    for name, entry in results.items():
        median, mean = entry["median"], entry["mean"]
        found.add_row(
            name,
            f"{median['ms']:.1f} ms",
            f"{median['ratio']:.3f} ({median['ratio_p10']:.3f}, {median['ratio_p90']:.3f})",
            f"{mean['ms']:.1f} ms",
            f"{mean['ratio_overall']:.3f}",
            f"<= {targets[name]}" if name in targets else "",
        )
    return found


class _Turns:
    """Whose turn it is, of several threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.current = 0
        self.broken = False
        self.changed = threading.Condition()

    def wait(self, mine: int) -> None:
        """Until it is `mine`; an error if another thread failed."""
        with self.changed:
            self.changed.wait_for(lambda: self.broken or self.current == mine)
        if self.broken:
            raise RuntimeError("another of the fits failed")

    def pass_on(self, broken: bool = False) -> None:
        """To the next."""
        with self.changed:
            self.current = (self.current + 1) % self.count
            self.broken |= broken
            self.changed.notify_all()


class _Stopwatch:
    """Hands over after every few steps, and notes how long each of its own took.

    It stands before the callbacks to measure, so that what they do at the beginning of a batch
    counts.
    """

    def __init__(self, turns: _Turns, mine: int, steps: int) -> None:
        super().__init__()
        self.turns, self.mine, self.steps = turns, mine, steps
        self.begun: list[float] = []
        self.ended: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Wait for the first turn."""
        self.turns.wait(self.mine)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time; let the others have theirs."""
        if batch:
            self.ended.append(time.perf_counter())
            if batch % self.steps == 0:
                self.turns.pass_on()
                self.turns.wait(self.mine)
        self.begun.append(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the last."""
        self.ended.append(time.perf_counter())
        self.turns.pass_on()

    def milliseconds(self) -> Array:
        """Of every step, `(turns, steps)`."""
        return 1000 * np.subtract(self.ended, self.begun).reshape(-1, self.steps)
