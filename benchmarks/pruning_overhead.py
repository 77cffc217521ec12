"""What pruning costs while a model trains: step time of `fit` with `Prune` against plain `fit`.

A net of six convolutions with batch normalization and ReLU, 32 to 128 channels, 287,000 weights,
trains on images of 32 x 32 x 3 in batches of 128: plainly, with masks computed anew every 100
steps, and with masks computed anew at every step. The three fits run at once and take turns, one
epoch each, so that they see the same machine. The first epoch, in which Keras traces and compiles,
does not count. A step lasts from one batch's beginning to the next's, callbacks included.

    python benchmarks/pruning_overhead.py --rounds 20 --json pruning_overhead.json

The images are random: nothing but time is measured. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

from tfcompress.edge.machine import machine
from tfcompress.pruning import Prune
from tfcompress.schedules import Polynomial

PLAIN = "plain"
TARGETS = {"every 100 steps": 1.01, "every step": 1.03}
FREQUENCIES = {"every 100 steps": 100, "every step": 1}


def build() -> keras.Model:
    """The net, compiled."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input((32, 32, 3))
    for channels in (32, 32, 64, 64, 128, 128):
        strides = 2 if channels != x.shape[-1] and channels > 32 else 1
        x = layers.Conv2D(channels, 3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
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


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """When each batch began, by epoch. It stands before `Prune`, whose time so counts."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[list[float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start a list."""
        self.epochs.append([])

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        self.epochs[-1].append(time.perf_counter())


class Turn(keras.callbacks.Callback):  # type: ignore[misc]
    """Trains for an epoch when it is this fit's turn."""

    def __init__(self, turns: Turns, mine: int) -> None:
        super().__init__()
        self.turns, self.mine = turns, mine

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Wait."""
        self.turns.wait(self.mine)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Hand over."""
        self.turns.pass_on()


def measure(rounds: int, steps: int, batch: int) -> dict[str, list[list[float]]]:
    """Milliseconds of each step but the last, by variant and round."""
    rng = np.random.default_rng(0)
    x = rng.random((steps * batch, 32, 32, 3), np.float32)
    y = rng.integers(0, 10, steps * batch)
    epochs = rounds + 1
    variants: dict[str, list[keras.callbacks.Callback]] = {PLAIN: []}
    for name, frequency in FREQUENCIES.items():
        # Sparsity grows to the end, so that each new mask differs from the one before.
        schedule = Polynomial(0.0, 0.8, begin=0, end=epochs * steps, frequency=frequency)
        variants[name] = [Prune(schedule)]
    turns = Turns(len(variants))
    models = [build() for _ in variants]

    def run(mine: int, callbacks: Sequence[keras.callbacks.Callback]) -> list[list[float]]:
        clock = Clock()
        try:
            models[mine].fit(
                x,
                y,
                batch_size=batch,
                epochs=epochs,
                verbose=0,
                callbacks=[Turn(turns, mine), clock, *callbacks],
            )
        except BaseException:
            turns.pass_on(broken=True)
            raise
        return [list(1000 * np.diff(epoch)) for epoch in clock.epochs[1:]]

    with ThreadPoolExecutor(len(variants)) as pool:
        futures = [pool.submit(run, i, calls) for i, calls in enumerate(variants.values())]
        return dict(zip(variants, (future.result() for future in futures), strict=True))


def ratios(times: dict[str, list[list[float]]]) -> dict[str, dict[str, Any]]:
    """Median and mean step of each variant, and their ratios to plain, round by round."""
    results: dict[str, dict[str, Any]] = {}
    for name, rounds in times.items():
        entry: dict[str, Any] = {}
        for statistic in (np.median, np.mean):
            values = np.array([statistic(steps) for steps in rounds])
            plain = np.array([statistic(steps) for steps in times[PLAIN]])
            low, middle, high = np.percentile(values / plain, [10, 50, 90])
            entry[statistic.__name__] = {
                "ms": float(np.median(values)),
                "ratio": float(middle),
                "ratio_p10": float(low),
                "ratio_p90": float(high),
            }
        results[name] = entry
    return results


def table(results: dict[str, dict[str, Any]]) -> Table:
    """The results to look at."""
    found = Table(title="Step time of fit with Prune, against plain fit")
    found.add_column("masks computed")
    for name in ("median step", "ratio (p10 to p90)", "mean step", "ratio (p10 to p90)", "target"):
        found.add_column(name, justify="right")
    for name, entry in results.items():
        cells = [name]
        for statistic in ("median", "mean"):
            value = entry[statistic]
            spread = f"({value['ratio_p10']:.3f} to {value['ratio_p90']:.3f})"
            cells += [f"{value['ms']:.1f} ms", f"{value['ratio']:.3f} {spread}"]
        found.add_row(*cells, f"<= {TARGETS[name]}" if name in TARGETS else "")
    return found


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description="Step time of fit with Prune, against plain fit.")
    parser.add_argument("--rounds", type=int, default=20, help="epochs of each that count")
    parser.add_argument("--steps", type=int, default=25, help="steps in an epoch")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    args = parser.parse_args()
    results = ratios(measure(args.rounds, args.steps, args.batch))
    Console().print(table(results))
    if args.json:
        content = {
            "machine": dataclasses.asdict(machine()),
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
            "rounds": args.rounds,
            "steps": args.steps,
            "batch": args.batch,
            "results": results,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(results[name]["median"]["ratio"] > limit for name, limit in TARGETS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
