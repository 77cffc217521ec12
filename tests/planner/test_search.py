"""Decisions, on figures that a made-up net has: what fits is known, nothing is trained."""

import dataclasses
import itertools

import pytest

from tfcompress.planner.candidates import free
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.search import confirm, decide, goals
from tfcompress.planner.steps.channels import Channels
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.steps.low_rank import LowRank
from tfcompress.planner.steps.qat import QuantizationAware
from tfcompress.planner.steps.zeros import Zeros
from tfcompress.planner.target import Figures, Target, fits, met_by

ORIGINAL = Figures(100_000, 0.99, 1.0, 1.0)
RUNGS = (1, 3, 9, 27)
LOSSES = {0: 0.5, 1: 0.06, 3: 0.03, 9: 0.02, 27: 0.015}


def made_up(recipe, least_loss=0.0):
    """Bytes and time follow from what is left; the loss falls with training and with what is."""
    left = time = 1.0
    for change in recipe.changes:
        match change:
            case Channels(macs):
                left, time = left * macs, time * macs
            case LowRank(share):
                left, time = left * share, time * share
            case Zeros(share):
                left *= 1 - 0.8 * share
    loss = LOSSES[recipe.epochs] * (1.2 - left) if recipe.changes else 0.0
    if QuantizationAware() in recipe.changes:
        loss /= 2
    size = int(1000 + ORIGINAL.bytes * recipe.file.bits / 32 * left)
    figures = Figures(size, 0.99 - loss, time, time)
    return Outcome(recipe, figures, max(loss, least_loss))


def run(target, tries=200, outcome_of=made_up, rungs=RUNGS, **options):
    outcomes = []
    for _ in range(tries):
        decision = decide(outcomes, [], target, ORIGINAL, rungs, **options)
        assert not decision.wait
        if decision.recipe is None:
            return outcomes, decision.why
        assert decision.recipe not in [o.recipe for o in outcomes]
        outcomes.append(outcome_of(decision.recipe))
    pytest.fail("it never ends")


def test_nothing_is_trained_where_a_way_to_make_a_file_does():
    outcomes, why = run(Target(bytes=30_000, accuracy_drop=0.01))
    assert why == "the target is met"
    assert not any(outcome.recipe.changes for outcome in outcomes)


def test_costs_come_before_training_and_only_what_fits_is_trained():
    target = Target(bytes=8_000, accuracy_drop=0.03)
    outcomes, why = run(target)
    assert why == "the target is met"
    for place, outcome in enumerate(outcomes):
        if outcome.recipe.epochs:
            costs = [o for o in outcomes[:place] if o.recipe == outcome.recipe.at(0)]
            assert len(costs) == 1
            assert fits(target, costs[0].figures.bytes, costs[0].figures.latency)
    assert any(o.recipe.changes and o.figures.bytes > 8_000 for o in outcomes), "none was refused"


def test_one_of_three_goes_on_to_the_next_rung_and_the_best_ones_do():
    outcomes, why = run(Target(bytes=8_000, accuracy_drop=0.0001))
    assert why == "all that may be within the bounds was tried"
    on = {e: [o for o in outcomes if o.recipe.epochs == e and o.recipe.changes] for e in RUNGS}
    assert len(on[1]) > 3
    for below, above in itertools.pairwise(RUNGS):
        assert len(on[above]) <= -(-len(on[below]) // 3) + 1  # and one, trained for int8
        worst = max(next(o.loss for o in on[below] if o.recipe == a.recipe.at(below))
                    for a in on[above] if QuantizationAware() not in a.recipe.changes)  # fmt: skip
        assert sorted(o.loss for o in on[below])[: len(on[above])][-1] >= worst


def test_training_for_int8_comes_last_and_only_where_int8_loses_too_much():
    def outcome_of(recipe):
        found = made_up(recipe)
        return dataclasses.replace(found, loss=0.3) if recipe.file.bits == 4 else found

    outcomes, _ = run(Target(bytes=8_000, accuracy_drop=0.0001), outcome_of=outcome_of)
    aware = [o for o in outcomes if QuantizationAware() in o.recipe.changes]
    assert len(aware) == 1
    assert aware[0] is outcomes[-1]
    outcomes, _ = run(Target(bytes=8_000, accuracy_drop=0.03))
    assert not any(QuantizationAware() in o.recipe.changes for o in outcomes)


def test_original_that_does_not_bear_int8_is_changed_with_training_for_it():
    def outcome_of(recipe):
        found = made_up(recipe)
        return dataclasses.replace(found, loss=0.3) if not recipe.changes else found

    outcomes, _ = run(Target(bytes=8_000, accuracy_drop=0.03), outcome_of=outcome_of)
    changed = [o.recipe for o in outcomes if o.recipe.changes]
    assert changed
    assert all(QuantizationAware() in recipe.changes for recipe in changed)


def test_goals_go_down_while_bytes_are_minimized():
    target = Target(accuracy_drop=0.03, minimize="bytes")
    outcomes, _ = run(target)
    good = [o for o in outcomes if met_by(target, o.figures, o.loss)]
    free = [o.figures.bytes for o in good if not o.recipe.changes]
    assert min(o.figures.bytes for o in good) < min(free) / 2
    assert goals(outcomes, target)[0].bytes < min(o.figures.bytes for o in good)


def test_latency_is_met_by_fewer_channels_and_not_by_zeros():
    outcomes, why = run(Target(latency=0.4, accuracy_drop=0.04))
    assert why == "the target is met"
    trained = [o.recipe for o in outcomes if o.recipe.epochs]
    assert not any(isinstance(change, Zeros) for recipe in trained for change in recipe.changes)


def test_step_that_fails_again_and_again_is_given_up():
    def outcome_of(recipe):
        if any(isinstance(change, Channels) for change in recipe.changes):
            return Outcome(recipe, why="There is nothing to cut")
        return made_up(recipe)

    outcomes, why = run(Target(bytes=8_000, accuracy_drop=0.03), outcome_of=outcome_of)
    assert why == "the target is met"
    assert sum(o.figures is None for o in outcomes) == 2


def test_zeros_are_left_out_where_they_cannot_be_kept():
    outcomes, _ = run(Target(bytes=8_000, accuracy_drop=0.03), callbacks=False)
    assert not any(isinstance(c, Zeros) for o in outcomes for c in o.recipe.changes)


def test_without_training_the_free_ones_are_all():
    outcomes, why = run(Target(bytes=1_000, accuracy_drop=0.03), rungs=())
    assert why == "nothing can be trained"
    assert not any(o.recipe.changes for o in outcomes)


def estimated(recipe, off=0.0, error=0.004):
    """What comes of a recipe, judged by some samples if nothing is trained for it."""
    found = made_up(recipe)
    if recipe.epochs:
        return found
    return dataclasses.replace(found, loss=found.loss + off, samples=500, error=error)


def run_with_estimates(target, off):
    """As `run`, where untrained files are judged by some samples until they are confirmed."""
    outcomes, confirmed = [], []
    for _ in range(200):
        decision = decide(outcomes, [], target, ORIGINAL, RUNGS)
        if decision.recipe is None:
            return outcomes, confirmed
        if decision.confirms:
            outcomes = [o for o in outcomes if o.recipe != decision.recipe]
            confirmed.append(decision.recipe)
        outcomes.append(
            made_up(decision.recipe) if decision.confirms else estimated(decision.recipe, off)
        )
    pytest.fail("it never ends")


@pytest.mark.parametrize("off", [-0.05, 0.0, 0.004, 0.017])
def test_estimate_counts_for_nothing_until_it_is_confirmed(off):
    target = Target(bytes=30_000, accuracy_drop=0.01)
    outcomes, confirmed = run_with_estimates(target, off)
    met = [o for o in outcomes if not o.samples and met_by(target, o.figures, o.loss)]
    assert met, "what only an estimate speaks against is measured, and wins"
    assert all(recipe.file.bits <= 8 for recipe in confirmed)
    assert not any(o.recipe.epochs for o in outcomes)


def test_only_what_may_be_the_best_is_measured_on_all_data():
    target = Target(bytes=8_000, accuracy_drop=0.03)
    outcomes, confirmed = run_with_estimates(target, 0.0)
    assert any(not o.samples and met_by(target, o.figures, o.loss) for o in outcomes)
    assert len(confirmed) < sum(bool(o.samples) for o in outcomes)
    _, confirmed = run_with_estimates(Target(bytes=30_000, accuracy_drop=0.01), 0.02)
    assert confirmed == [], "0.02 are more than 0.01 and two standard errors"


def test_workers_confirm_different_files():
    files = [estimated(recipe) for recipe in free([], Target(accuracy_drop=0.01))]
    target = Target(bytes=30_000, accuracy_drop=0.01)
    first = confirm(files, [], target, ORIGINAL)
    second = confirm(files, [first.recipe], target, ORIGINAL)
    assert first.confirms
    assert second.recipe not in (None, first.recipe)
    assert confirm(files, [o.recipe for o in files], target, ORIGINAL).wait


def test_least_loss_is_looked_for_where_it_is_not_bounded():
    outcomes, why = run(Target(bytes=8_000))
    assert why == "all that may be within the bounds was tried"
    assert max(o.recipe.epochs for o in outcomes) == RUNGS[-1]
    outcomes, why = run(Target(bytes=60_000))
    assert why == "the target is met"
    assert not any(o.recipe.changes for o in outcomes)


def test_worker_waits_for_others_only_where_nothing_else_is_to_do():
    target = Target(bytes=30_000, accuracy_drop=0.01)
    first = decide([], [], target, ORIGINAL, RUNGS).recipe
    second = decide([], [first], target, ORIGINAL, RUNGS).recipe
    assert second not in (None, first)
    outcomes, _ = run(target)
    last = outcomes.pop().recipe
    assert decide(outcomes, [last], target, ORIGINAL, RUNGS).wait
    assert decide(outcomes, [], target, ORIGINAL, RUNGS).recipe == last


def test_decision_depends_on_nothing_but_what_is_known():
    target = Target(bytes=8_000, accuracy_drop=0.0001)
    outcomes, _ = run(target)
    for place, outcome in enumerate(outcomes):
        assert decide(outcomes[:place], [], target, ORIGINAL, RUNGS).recipe == outcome.recipe
    assert Recipe(Int8File()) in [o.recipe for o in outcomes]
