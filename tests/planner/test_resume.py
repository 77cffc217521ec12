"""A worker that is killed, at any time, costs its trial only."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import json, sys
import keras
import numpy as np
import tfcompress as tfc
from tfcompress.planner import search
from tfcompress.planner.recipe import Recipe
from tfcompress.planner.steps.int8 import Int8File

search.free = lambda outcomes, target: [] if outcomes else [Recipe(Int8File())]
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 16)).astype("float32")
y = (x[:, :8].sum(1) > x[:, 8:].sum(1)).astype("int64")
model = keras.Sequential(
    [keras.Input((16,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(2)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
model.fit(x, y, epochs=5, verbose=0)
found = tfc.compress(
    model, (x, y), (x, y), tfc.Target(accuracy_drop=0.02, minimize="bytes"),
    storage=sys.argv[1], trials=int(sys.argv[2]), progress=lambda result: print("trial", flush=True)
)
tried = [[o.recipe.label(), o.figures and o.figures.bytes, o.loss] for o in found.outcomes]
print(json.dumps([found.best.done, found.best.figures.bytes, found.best.loss, tried]))
"""


def start(folder, trials):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(trials)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow("trains and converts in processes that are killed")
def test_kill_and_resume_give_the_same_best(tmp_path):
    expected = finish(start(tmp_path / "whole", 4))
    for trials, wait in ((1, 1.0), (1, 0.2)):
        process = start(tmp_path / "killed", 4)
        for _ in range(trials):
            if process.stdout.readline().strip() != "trial":
                break
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert finish(start(tmp_path / "killed", 4)) == expected


@pytest.mark.slow("trains and converts in two processes at once")
def test_worker_that_dies_costs_its_trial_only_and_workers_share_the_rest(tmp_path):
    first, second = start(tmp_path, 4), start(tmp_path, 4)
    assert first.stdout.readline().strip() == "trial"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    best = finish(second)
    labels = [label for label, _, _ in best[-1]]
    assert len(labels) == len(set(labels)) >= 4
    assert all(size for _, size, _ in best[-1])
