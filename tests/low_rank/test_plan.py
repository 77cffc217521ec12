"""Which ranks a plan chooses: by a share, by energy, within a budget; and what it says."""

import json

import keras
import pytest
from keras import layers

import tfcompress as tfc
from tests.low_rank.nets import check_costs, convnet, one, single
from tests.support.clocks import latency_by_macs
from tfcompress import budgets
from tfcompress.cost import latency

BUDGETS = {"parameters": budgets.Parameters, "macs": budgets.Macs}


@pytest.mark.parametrize("cost", BUDGETS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_budget_is_kept_by_equal_energy(cost, share):
    model = convnet()
    plan = tfc.low_rank_plan(model, BUDGETS[cost](share))
    after, before = getattr(plan, f"{cost}_after"), getattr(plan, cost)
    assert after <= share * before
    check_costs(tfc.factorize(model, plan), plan)
    # With a little more energy, the ranks would not fit. (None may be lost to layers left alone.)
    least = min(p.energy for p in plan.factorized)
    if cost == "parameters":
        assert tfc.low_rank_plan(model, energy=least + 1e-6).parameters_after > share * before


@pytest.mark.parametrize("cost", BUDGETS)
def test_a_budget_as_a_number_plans_as_the_share_does(cost):
    model = convnet()
    before = getattr(tfc.low_rank_plan(model, 0.5), cost)
    by_share = tfc.low_rank_plan(model, BUDGETS[cost](0.5))
    by_number = tfc.low_rank_plan(model, BUDGETS[cost](before // 2))
    assert by_number.layers == by_share.layers
    with pytest.raises(
        ValueError, match=rf"smallest possible is {BUDGETS[cost].__name__}"
    ) as error:
        tfc.low_rank_plan(model, BUDGETS[cost](10))
    smallest = int(str(error.value).split("possible is ")[1].split("=")[1].split(")")[0])
    assert getattr(tfc.low_rank_plan(model, BUDGETS[cost](smallest)), f"{cost}_after") == smallest
    with pytest.raises(ValueError, match="smallest possible"):
        tfc.low_rank_plan(model, BUDGETS[cost](smallest - 1))


def test_a_latency_budget_is_searched_by_measurements(monkeypatch):
    """The search itself, with a clock that counts multiply-accumulates."""
    model = convnet()
    seen = latency_by_macs(monkeypatch, model)
    plan = tfc.low_rank_plan(model, budgets.Latency(0.5))
    assert 0.4 < plan.macs_after / plan.macs <= 0.5
    assert len(seen) == 1 + latency.MEASUREMENTS
    check_costs(tfc.factorize(model, plan), plan)
    with pytest.raises(ValueError, match=r"smallest possible takes 0\.\d+ times its own latency"):
        tfc.low_rank_plan(model, budgets.Latency(0.001))


def test_a_budget_that_all_is_within_changes_nothing():
    plan = tfc.low_rank_plan(convnet(), budgets.Parameters(1.0))
    assert plan.parameters_after <= plan.parameters


@pytest.mark.parametrize("cost", BUDGETS)
def test_an_impossible_budget_says_what_is_possible(cost):
    model = convnet()
    budget = BUDGETS[cost]
    possible = rf"The smallest possible is {budget.__name__}\(most=0\.\d+\)"
    with pytest.raises(ValueError, match=possible) as caught:
        tfc.low_rank_plan(model, budget(0.001))
    smallest = float(str(caught.value).split("possible is ")[1].split("=")[1].split(")")[0])
    plan = tfc.low_rank_plan(model, budget(smallest))
    share = getattr(plan, f"{cost}_after") / getattr(plan, cost)
    assert share <= smallest < share + 2e-4
    assert all(min(p.rank) == 1 for p in plan.factorized)


def test_macs_of_free_sizes():
    model = keras.Sequential(
        [keras.Input((None, None, 8), name="x"), layers.Conv2D(32, 3, name="conv")], name="net"
    )
    plan = tfc.low_rank_plan(model, energy=0.5)
    assert plan.factorized
    assert plan.macs_after is None
    assert tfc.factorize(model, plan).count_params() == plan.parameters_after
    with pytest.raises(ValueError, match="inputs of fixed sizes"):
        tfc.low_rank_plan(model, budgets.Macs(0.5))


def test_embeddings_have_no_macs_to_save():
    words = keras.Input((6,), dtype="int32")
    h = layers.Embedding(50, 20, name="table")(words)
    model = keras.Model(words, layers.Dense(20, name="dense")(h))
    plan = tfc.low_rank_plan(model, budgets.Macs(0.5))
    assert {p.path: p.reason for p in plan.left_alone} == {"table": "its lookups cost no MACs"}
    assert [p.path for p in plan.factorized] == ["dense"]


def test_ranks_are_multiples():
    model = convnet()
    plan = tfc.low_rank_plan(model, energy=0.5, round_to=4)
    assert plan.factorized
    for planned in plan.factorized:
        assert planned.energy >= 0.5
        for rank, full in zip(planned.rank, planned.full_rank, strict=True):
            assert rank % 4 == 0 or rank == full
    [classes] = tfc.low_rank_plan(model, 0.8, filters=["classes"], round_to=4).layers[-1:]
    assert classes.rank == (4,)  # 0.2 of 10 is 2


@pytest.mark.parametrize("rule", [{"energy": 0.5}, {"amount": 0.5}])
def test_a_convolution_no_wider_than_round_to_is_left_alone(rule):
    model = single(layers.Conv2D(16, 3, name="conv"), (8, 8, 12))
    [planned] = tfc.low_rank_plan(model, **rule, round_to=16).layers
    assert planned.reason == "too small: not cheaper even at rank 12, 16"


def test_filters():
    model = convnet()
    plan = tfc.low_rank_plan(model, 0.7, filters="^inner/")
    assert [p.path for p in plan.factorized] == ["inner/conv"]
    assert {p.reason for p in plan.left_alone} == {"not selected by filters"}
    plan = tfc.low_rank_plan(model, 0.7, filters=[model.get_layer("inner"), "hidden"])
    assert [p.path for p in plan.factorized] == ["inner/conv", "hidden"]
    with pytest.raises(
        ValueError, match=r"'hiden' in `filters`.*There are: stem, twice, inner/conv"
    ):
        tfc.factorize(model, 0.7, filters=["hidden", "hiden"])
    with pytest.raises(TypeError, match="regular expression"):
        tfc.low_rank_plan(model, 0.7, filters=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Received: amount=None, energy=None"),
        ({"energy": 0.5, "amount": budgets.Macs(0.5)}, ValueError, r"amount=Macs.*, energy=0\.5"),
        ({"energy": 0}, ValueError, "energy=0"),
        ({"energy": 1.1}, ValueError, "energy=1.1"),
        ({"amount": -0.5}, ValueError, r"Received: amount=-0\.5"),
        ({"amount": 1.0}, ValueError, "below 1"),
        ({"amount": float("nan")}, ValueError, "Received: amount=nan"),
        ({"amount": "half"}, TypeError, r"budgets\.Macs.*amount='half'"),
        ({"amount": budgets.Macs}, TypeError, "amount=<class"),
        ({"energy": "0.9"}, TypeError, "energy='0.9'"),
        ({"energy": True}, TypeError, "energy=True"),
        ({"energy": 0.5, "round_to": 0}, ValueError, "round_to=0"),
        ({"energy": 0.5, "round_to": 1.5}, TypeError, "round_to=1.5"),
        ({"energy": 0.5, "refine": -1}, ValueError, "refine=-1"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    model = one(layers.Dense(16))
    for function in (tfc.low_rank_plan, tfc.factorize):
        with pytest.raises(error, match=message):
            function(model, **arguments)


def test_a_plan_prints_and_becomes_json():
    plan = tfc.low_rank_plan(convnet(), budgets.Macs(0.5))
    text = str(plan)
    assert f"{plan.macs:,} -> {plan.macs_after:,} MACs" in text.replace("\n", " ")
    for planned in plan.layers:
        assert planned.path in text
        assert planned.reason in text
    assert "3x3x16x16" in text
    held = json.loads(json.dumps(plan.to_dict()))
    assert held["macs_after"] == plan.macs_after
    assert [layer["path"] for layer in held["layers"]] == [p.path for p in plan.layers]


def test_a_plan_that_saves_little_says_that_it_will_not_be_faster():
    model = convnet()
    little, much = (tfc.low_rank_plan(model, budgets.Macs(share)) for share in (0.9, 0.5))
    left = f"{little.macs_after / little.macs:.0%} of the MACs are left"
    assert left in little.warning
    assert left in " ".join(str(little).split())
    assert little.to_dict()["warning"] == little.warning
    assert not much.warning
    assert "of the MACs are left" not in str(much)
