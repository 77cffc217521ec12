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

import interleaved
from interleaved import PLAIN, WARM_UP
from rich.console import Console

from tfcompress.pruning.prune import Prune
from tfcompress.pruning.schedules import Polynomial

TARGETS = {"every 100 steps": 1.01, "every step": 1.03}
FREQUENCIES = {"every 100 steps": 100, "every step": 1}


def variants(jit: bool, total: int) -> dict[str, interleaved.Variant]:
    """Plain, and pruned in `total` steps."""
    found: dict[str, interleaved.Variant] = {PLAIN: (interleaved.build(jit), [])}
    for name, frequency in FREQUENCIES.items():
        # Sparsity grows to the end, so that each new mask differs from the one before.
        schedule = Polynomial(0.0, 0.8, begin=0, end=total, frequency=frequency)
        found[name] = (interleaved.build(jit), [Prune(schedule)])
    return found


def main() -> int:
    """Measure, print, and compare with the targets."""
    title = "Step time of fit with Prune, against plain fit"
    args = interleaved.parser(title).parse_args()
    fits = variants(args.jit, (args.rounds + WARM_UP) * args.steps)
    results = interleaved.ratios(interleaved.measure(fits, args))
    Console().print(interleaved.table(title, "masks", results, TARGETS))
    interleaved.save(args, results)
    # The mean too: of 100 steps between two masks, the median sees none that computes one.
    return int(bool(interleaved.missed(results, TARGETS)))


if __name__ == "__main__":
    raise SystemExit(main())
