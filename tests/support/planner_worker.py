"""Processes that call `compress` on a tiny net, to be killed.

Trials are real: models are changed, saved, converted and measured. What stands for training is
quick, and processes start at once, as in `warm_children`.
"""

import socket
import sys
from pathlib import Path

import numpy as np

from tests.support.warm_children import CONTEXT, warm_children


def make_net(path: Path) -> None:
    """Write a net that tells which half of 16 numbers has the larger sum."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(*_data(), epochs=5, verbose=0)
    model.save(path)


def _data():
    x = np.random.default_rng(0).normal(size=(400, 16)).astype("float32")
    return x, (x[:, :8].sum(1) > x[:, 8:].sum(1)).astype("int64")


def _fine_tune(model, epochs):
    """Move each weight a little, by random numbers that `compress` has seeded."""
    for weight in model.trainable_variables:
        noise = np.random.normal(size=weight.shape)
        weight.assign(weight + 0.02 / epochs * noise)


def _work(pipe, net, storage, trials, database, host, lease):
    sys.modules.pop("keras", None)  # the process that this one is forked off forbids it
    import keras

    import tfcompress as tfc
    from tfcompress.planner import measure, search, study
    from tfcompress.planner.recipe import Recipe
    from tfcompress.planner.steps.int8 import Int8File

    measure._RUNS, measure._SECONDS = 3, 0.01
    study._LEASE, study._RENEW = lease, lease / 10
    if host:
        socket.gethostname = lambda: host
    search.free = lambda outcomes, target: [] if outcomes else [Recipe(Int8File())]
    data = _data()
    target = tfc.Target(accuracy_drop=0.04, minimize="bytes")
    with warm_children():
        found = tfc.compress(
            keras.models.load_model(net), data, data, target, fine_tune=_fine_tune,
            storage=storage, database=database, trials=trials,
            progress=lambda result: pipe.send(len(result.outcomes)),
        )  # fmt: skip
    tried = [
        [o.recipe.label(), o.figures and o.figures.bytes, o.loss, o.why] for o in found.outcomes
    ]
    best = found.best
    pipe.send({"best": [best.done, best.figures.bytes, best.loss], "tried": tried})


class Worker:
    """A process that calls `compress`.

    Args:
        net: What `make_net` wrote.
        storage: The folder that workers share.
        trials: Largest number of trials.
        database: URL of a database. Defaults to None, the journal.
        host: The machine that it says that it runs on. Defaults to None, the true one.
        lease: Seconds after which its trial is given to others, if it does not say that it lives.
            Defaults to 60.
    """

    def __init__(self, net, storage, trials, database=None, host=None, lease=60.0):
        self._pipe, theirs = CONTEXT.Pipe()
        arguments = (theirs, net, storage, trials, database, host, lease)
        self.process = CONTEXT.Process(target=_work, args=arguments)
        self.process.start()
        theirs.close()

    def told(self, timeout=240.0):
        """Return what it says next: a number of trials, or what it found; None if it died."""
        try:
            return self._pipe.recv() if self._pipe.poll(timeout) else None
        except EOFError:
            return None

    def finish(self):
        """Return what it found at the end, and how often it told of a trial before."""
        count = 0
        while isinstance(said := self.told(), int):
            count += 1
        if said is None:
            self.kill()
            raise AssertionError(f"it said nothing, and ended with {self.process.exitcode}")
        self.process.join()
        return said, count

    def kill(self):
        """Kill it as `kill -9` does."""
        self.process.kill()
        self.process.join()
        self._pipe.close()
