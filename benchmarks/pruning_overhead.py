"""What pruning costs while a model trains: step time of `fit` with `Prune` against plain `fit`.

A net of six convolutions with batch normalization and ReLU, 32 to 128 channels, 287,000 weights,
trains on images of 32 x 32 x 3 in batches of 128: plainly, with masks computed anew every 100
steps, and with masks computed anew at every step. The three fits run at once and take turns, a few
steps each, so that they see the same machine. The first turns, in which Keras traces and compiles,
do not count. A step lasts from one batch's beginning to the next's, callbacks included.

    python benchmarks/pruning_overhead.py --json pruning_overhead.json

The images are random: nothing but time is measured. Without XLA, the steps are shorter on a CPU and
the test is the stricter one. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers
from rich.console import Console
from rich.table import Table

from tfcompress.edge.machine import machine
from tfcompress.pruning import Prune
from tfcompress.schedules import Polynomial

Array = npt.NDArray[np.float64]

PLAIN = "plain"
WARM_UP = 2
TARGETS = {"every 100 steps": 1.01, "every step": 1.03}
FREQUENCIES = {"every 100 steps": 100, "every step": 1}


def build(jit: bool) -> keras.Model:
    """The net, compiled."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input((32, 32, 3))
    for channels in (32, 32, 64, 64, 128, 128):
        strides = 2 if channels != x.shape[-1] and channels > 32 else 1
        x = layers.Conv2D(channels, 3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit)
    return model


class Turns:
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


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands over after every few steps, and notes how long each of its own took.

    It stands before `Prune`, so that what `Prune` does at the beginning of a batch counts.
    """

    def __init__(self, turns: Turns, mine: int, steps: int) -> None:
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


def measure(rounds: int, steps: int, batch: int, jit: bool) -> dict[str, Array]:
    """Milliseconds of each step, by variant, `(rounds, steps)`."""
    rng = np.random.default_rng(0)
    total = (rounds + WARM_UP) * steps
    image, label = rng.random((batch, 32, 32, 3), np.float32), rng.integers(0, 10, batch)
    data = tf.data.Dataset.from_tensors((image, label)).repeat(total)
    variants: dict[str, list[keras.callbacks.Callback]] = {PLAIN: []}
    for name, frequency in FREQUENCIES.items():
        # Sparsity grows to the end, so that each new mask differs from the one before.
        variants[name] = [Prune(Polynomial(0.0, 0.8, begin=0, end=total, frequency=frequency))]
    turns = Turns(len(variants))
    watches = [Stopwatch(turns, mine, steps) for mine in range(len(variants))]
    models = [build(jit) for _ in variants]

    def run(mine: int, callbacks: list[keras.callbacks.Callback]) -> Array:
        try:
            models[mine].fit(data, shuffle=False, verbose=0, callbacks=[watches[mine], *callbacks])
        except BaseException:
            turns.pass_on(broken=True)
            raise
        return watches[mine].milliseconds()[WARM_UP:]

    with ThreadPoolExecutor(len(variants)) as pool:
        futures = [pool.submit(run, i, calls) for i, calls in enumerate(variants.values())]
        return dict(zip(variants, (future.result() for future in futures), strict=True))


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


def table(results: dict[str, dict[str, Any]]) -> Table:
    """The results to look at."""
    found = Table(title="Step time of fit with Prune, against plain fit")
    for name in ("masks", "median", "ratio (p10, p90 of turns)", "mean", "ratio", "target"):
        found.add_column(name, justify="left" if name == "masks" else "right")
    for name, entry in results.items():
        median, mean = entry["median"], entry["mean"]
        found.add_row(
            name,
            f"{median['ms']:.1f} ms",
            f"{median['ratio']:.3f} ({median['ratio_p10']:.3f}, {median['ratio_p90']:.3f})",
            f"{mean['ms']:.1f} ms",
            f"{mean['ratio_overall']:.3f}",
            f"<= {TARGETS[name]}" if name in TARGETS else "",
        )
    return found


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description="Step time of fit with Prune, against plain fit.")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each that count")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--jit", action="store_true", help="compile the steps with XLA")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    args = parser.parse_args()
    results = ratios(measure(args.rounds, args.steps, args.batch, args.jit))
    Console().print(table(results))
    if args.json:
        content = {
            "machine": dataclasses.asdict(machine()),
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
            "rounds": args.rounds,
            "steps": args.steps,
            "batch": args.batch,
            "jit_compile": args.jit,
            "results": results,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    # The mean too: of 100 steps between two masks, the median sees none that computes one.
    missed = [
        name
        for name, limit in TARGETS.items()
        if max(results[name]["median"]["ratio"], results[name]["mean"]["ratio_overall"]) > limit
    ]
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
