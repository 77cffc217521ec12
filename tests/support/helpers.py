"""What several tests share: missing components, names of parameters, programs on two devices."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap

import pytest


def need(condition: object, reason: str) -> None:
    """Skip the calling test on a user's machine, fail it in CI, where a component is missing."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def as_id(value: object) -> str:
    """A parameter's name: as it prints, but for addresses, which are others in each process."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))


TWO_CPUS = """
import keras
import numpy as np
import tensorflow as tf

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
"""


def on_two_cpus(program: str) -> None:
    """Run `program`, which has `strategy`, `keras`, `np` and `tf`, and fail if it does.

    Logical devices must be set before TensorFlow starts, hence the child process.
    """
    done = subprocess.run(
        [sys.executable, "-c", TWO_CPUS + textwrap.dedent(program) + "\nprint('fine')"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip().endswith("fine")


@contextlib.contextmanager
def eager():
    """Run functions of TensorFlow step by step: tracing one can take ten times as long."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
