"""What pruning costs while a model trains: step time of `fit` with `Prune` against plain `fit`.

A net of six convolutions with batch normalization and ReLU, 32 to 128 channels, 287,000 weights,
trains on images of 32 x 32 x 3 in batches of 128: plainly, with masks computed anew every 100
steps, and with masks computed anew at every step. The three fits run at once and take turns, a few
steps each, so that they see the same machine. The first turns, in which Keras traces and compiles,
do not count. A step lasts from one batch's beginning to the next's, callbacks included.

    python benchmarks/pruning_overhead.py --json pruning_overhead.json
    python benchmarks/pruning_overhead.py --net transformer --batch 16

The second net has four blocks of attention and MLP, 256 wide, 3.7 million weights, and reads 64
tokens a sample. The data are random: nothing but time is measured. Without XLA, the steps are
shorter on a CPU and the test is the stricter one. Exits with 1 if a target is missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import interleaved
import keras
import numpy as np
from interleaved import PLAIN, WARM_UP
from keras import layers
from rich.console import Console

from tfcompress.pruning.prune import Prune
from tfcompress.pruning.schedules import Polynomial

EVERY_100, EVERY = "every 100 steps", "every step"
FREQUENCIES = {EVERY_100: 100, EVERY: 1}
# A mask costs as much as its weights, a step as much as weights times tokens: of few tokens and
# many weights, one mask costs a third of a step.
TARGETS = {
    "convolutions": {EVERY_100: 1.01, EVERY: 1.03},
    "transformer": {EVERY_100: 1.03},
}
VOCABULARY, LENGTH, WIDTH = 2048, 64, 256


def transformer(jit: bool) -> keras.Model:
    """Four blocks of attention and MLP, normalized before; compiled."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(tokens)
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, WIDTH // 4)(y, y)
        y = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(tokens, layers.Dense(10)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit)
    return model


def words(batch: int) -> tuple[Any, Any]:
    """A batch of random tokens, with classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, VOCABULARY, (batch, LENGTH), "int32"), rng.integers(0, 10, batch)


NETS: dict[str, tuple[Callable[[bool], Any], Callable[[int], tuple[Any, Any]]]] = {
    "convolutions": (interleaved.build, interleaved.images),
    "transformer": (transformer, words),
}


def variants(build: Callable[[bool], Any], jit: bool, total: int) -> dict[str, interleaved.Variant]:
    """Plain, and pruned in `total` steps."""
    found: dict[str, interleaved.Variant] = {PLAIN: (build(jit), [])}
    for name, frequency in FREQUENCIES.items():
        # Sparsity grows to the end, so that each new mask differs from the one before.
        schedule = Polynomial(0.0, 0.8, begin=0, end=total, frequency=frequency)
        found[name] = (build(jit), [Prune(schedule)])
    return found


def main() -> int:
    """Measure, print, and compare with the targets."""
    title = "Step time of fit with Prune, against plain fit"
    parser = interleaved.parser(title)
    parser.add_argument("--net", choices=NETS, default="convolutions")
    args = parser.parse_args()
    build, data = NETS[args.net]
    fits = variants(build, args.jit, (args.rounds + WARM_UP) * args.steps)
    results = interleaved.ratios(interleaved.measure(fits, args, data=data))
    targets = TARGETS[args.net]
    Console().print(interleaved.table(f"{title}: {args.net}", "masks", results, targets))
    interleaved.save(args, results)
    # The mean too: of 100 steps between two masks, the median sees none that computes one.
    return int(bool(interleaved.missed(results, targets)))


if __name__ == "__main__":
    raise SystemExit(main())
