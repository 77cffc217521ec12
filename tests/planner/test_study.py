import dataclasses
import os
import subprocess
import sys

import pytest

from tfcompress.planner import study as module
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.steps.float16 import Float16File
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.study import Study, quiet
from tfcompress.planner.target import Figures

INT8, FLOAT16 = Recipe(Int8File()), Recipe(Float16File())
DONE = Outcome(INT8, Figures(10, 0.9, 1.0, 0.5), 0.01, file="a.tflite")


@pytest.fixture(params=["journal", "database"])
def opened(request, tmp_path):
    """A function that opens the study as another worker does."""
    url = f"sqlite:///{tmp_path}/study.db" if request.param == "database" else None
    with quiet():
        yield lambda name="net": Study(name, tmp_path, url)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(study, recipe, monkeypatch, pid, **options):
    """Lease a trial as a worker does that dies at once."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        patch.setattr(module.Study, "_end", lambda *arguments, **options: None)
        with study.claim(recipe, **options):
            pass


def test_outcome_is_seen_by_other_workers_and_kept(opened):
    with opened().claim(INT8) as claim:
        assert claim.recipe == INT8
        assert opened().running() == [INT8]
        claim.outcome = DONE
    assert opened().outcomes() == [DONE]
    assert opened().running() == []
    assert opened("another net").outcomes() == []


def test_claim_is_refused_to_a_second_worker(opened):
    with opened().claim(INT8) as first, opened().claim(INT8) as second:
        assert first is not None
        assert second is None
        first.outcome = DONE
    with opened().claim(INT8) as third:
        assert third is None


def test_failed_recipe_keeps_its_reason(opened):
    with opened().claim(INT8) as claim:
        claim.outcome = Outcome(INT8, why="no room")
    assert [o.why for o in opened().outcomes()] == ["no room"]


def test_interrupted_trial_is_given_back(opened):
    with pytest.raises(KeyboardInterrupt), opened().claim(INT8):
        raise KeyboardInterrupt
    assert opened().running() == []
    with opened().claim(INT8) as again:
        assert again is not None


def test_trial_of_a_dead_worker_is_done_by_another_one_twice_and_then_dropped(opened, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 2)
    study = opened()
    leave(study, INT8, monkeypatch, dead_pid())
    assert study.running() == []
    assert study.outcomes() == []
    leave(study, INT8, monkeypatch, dead_pid())
    assert study.running() == []
    assert [o.why for o in study.outcomes()] == ["2 workers died while they tried it"]


def test_lease_of_a_worker_elsewhere_runs_out(opened, monkeypatch):
    study = opened()
    with monkeypatch.context() as patch:
        patch.setattr(module.socket, "gethostname", lambda: "elsewhere")
        leave(study, FLOAT16, monkeypatch, 1)
    assert study.running() == [FLOAT16]
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 2 * module._LEASE)
    assert study.running() == []
    with study.claim(FLOAT16) as claim:
        assert claim is not None


def test_estimate_gives_way_to_what_is_measured_on_all_data(opened):
    study = opened()
    estimate = dataclasses.replace(DONE, samples=500, error=0.1)
    with study.claim(INT8) as claim:
        assert claim.estimate is None
        claim.outcome = estimate
    with study.claim(INT8) as again:
        assert again is None
    with study.claim(INT8, confirms=True) as first, opened().claim(INT8, confirms=True) as second:
        assert second is None
        assert first.estimate == estimate
        first.outcome = DONE
    assert opened().outcomes() == [DONE]
    with study.claim(INT8, confirms=True) as again:
        assert again is None


def test_estimate_that_workers_die_of_confirming_is_dropped(opened, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 2)
    study = opened()
    with study.claim(INT8) as claim:
        claim.outcome = dataclasses.replace(DONE, samples=500, error=0.1)
    for _ in range(2):
        leave(study, INT8, monkeypatch, dead_pid(), confirms=True)
        assert study.running() == []
    assert [o.why for o in study.outcomes()] == ["2 workers died while they tried it"]


def test_missing_optuna_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[planner\]'"):
        Study("net", tmp_path)
