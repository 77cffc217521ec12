"""Every public function refuses an argument that makes no sense, in our words, before any work."""

import inspect
import linecache
import math
import subprocess
import traceback
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.contract.sound_calls import CALLED_BY_US, Call, public, table
from tests.test_house import ROOT
from tfcompress.channels.registry import IMPORTANCES as OF_CHANNELS
from tfcompress.converters.precisions import registry
from tfcompress.edge.targets.base import TARGETS
from tfcompress.pruning.importance import IMPORTANCES as OF_WEIGHTS

NAMES = [name for name, _ in public() if name not in CALLED_BY_US]

BAD = {
    "None": None,
    "text": "nonsense",
    "empty text": "",
    "bytes": b"x",
    "True": True,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "minus": -0.5,
    "NaN": math.nan,
    "infinite": math.inf,
    "huge": 10**30,
    "empty list": [],
    "list": [1],
    "list of None": [None],
    "dict": {"a": 1},
    "empty array": np.zeros((0, 4), np.float32),
    "class": dict,
    "object": object(),
    "function without arguments": lambda: None,
    "function of six": lambda a, b, c, d, e, f: None,
}


def model_of(*parts: Any) -> keras.Model:
    return keras.Sequential(list(parts), name="bad")


MODELS = {
    "unbuilt model": model_of(layers.Dense(2)),
    "zero-size model": model_of(keras.Input((0,)), layers.Dense(2)),
    "empty model": model_of(keras.Input((4,))),
}


def bad_values(call: Call, parameter: inspect.Parameter) -> dict[str, Any]:
    """Return the values that an argument must refuse, by their names."""
    hint = str(parameter.annotation)
    words = set(hint.replace("|", " ").replace("[", " ").replace("'", " ").split())
    legal = set()
    if parameter.default is None or "None" in words:
        legal.add("None")
    if "bool" in words:
        legal.add("True")
    if "float" in words:
        legal.add("fraction")
    legal |= set(call.legal.get(parameter.name, "").split(", "))
    values = BAD | (MODELS if "keras.Model" in words else {})
    return {name: value for name, value in values.items() if name not in legal}


def fault(call: Call, parameter: str, value: Any) -> str | None:
    """Return what is wrong with how a call refuses a value, or None."""
    try:
        call(**{parameter: value})
    except (TypeError, ValueError, OSError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = linecache.getline(last.filename, last.lineno or 0).strip()
        ours = last.filename.startswith(str(ROOT)) and line.startswith("raise ")
        if not ours:
            return f"raw {type(error).__name__}: {str(error)[:150]} ({last.filename}:{last.lineno})"
        told = [parameter.rstrip("s"), call.words.get(parameter), getattr(value, "name", value)]
        if not any(isinstance(word, str) and word in str(error).lower() for word in told if word):
            return f"does not name it: {type(error).__name__}: {str(error)[:150]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    else:
        return "accepted"
    return None


@pytest.fixture(autouse=True)
def registries_as_before(monkeypatch):
    """What a sound call registers is gone after it."""
    for owner, name in (
        (registry, "_PRECISIONS"),
        (TARGETS, "_items"),
        (OF_CHANNELS, "_found"),
        (OF_WEIGHTS, "_found"),
    ):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    return table(tmp_path_factory.mktemp("calls"))


def test_every_public_function_has_a_sound_call(calls):
    assert sorted(calls) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_make_no_sense_are_refused_before_any_work(name, calls, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # A process that starts is a fault.
    faults = {
        f"{parameter.name}={label}": found
        for call in calls[name]
        for parameter in call.parameters()
        for label, value in bad_values(call, parameter).items()
        if (found := fault(call, parameter.name, value)) is not None
    }
    assert not faults, "\n".join(f"{name}({key}): {found}" for key, found in faults.items())


def test_sound_calls_are_accepted(calls):
    for name in NAMES:
        for call in calls[name]:
            if not call.work:
                call()


@pytest.mark.slow("converts, measures and calibrates")
def test_sound_calls_that_work_are_accepted(calls):
    # In the order of the table: a file is written before it is read.
    for found in calls.values():
        for call in found:
            if call.work:
                done = call()
                getattr(done, "close", lambda: None)()
