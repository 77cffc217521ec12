"""Budgets: what they allow, and what they reject."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import budgets


@pytest.fixture(scope="module")
def model():
    """A dense layer of 8 x 5 and one of 5 x 2: 50 multiply-accumulates, 57 parameters."""
    return keras.Sequential([keras.Input((8,)), layers.Dense(5), layers.Dense(2)], name="net")


@pytest.mark.parametrize(
    ("budget", "cost", "limit"),
    [
        (budgets.Macs(0.5), 50, 25),
        (budgets.Macs(30), 50, 30),
        (budgets.Macs(1), 50, 1),  # An int is a number, never a share.
        (budgets.Macs(1.0), 50, 50),
        (budgets.Parameters(0.5), 57, 28),
        (budgets.Parameters(100), 57, 100),
    ],
    ids=str,
)
def test_cost_and_limit_are_in_the_unit_of_the_budget(model, budget, cost, limit):
    assert budgets.cost(budget, model) == cost
    assert budgets.limit(budget, model) == limit == budgets.allowed(budget, cost)


def test_cost_of_free_sizes_says_which_budgets_work():
    free = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)], name="free")
    with pytest.raises(ValueError, match=r"'free' cannot be counted.*Use `Parameters`"):
        budgets.cost(budgets.Macs(0.5), free)
    assert budgets.cost(budgets.Parameters(0.5), free) == 3 * 3 * 3 * 4 + 4
    assert budgets.limit(budgets.Macs(700), free) == 700


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: budgets.Macs(0.0), ValueError, "above 0"),
        (lambda: budgets.Macs(1.5), ValueError, r"Received: Macs\.most=1\.5"),
        (lambda: budgets.Parameters(0), ValueError, "above 0"),
        (lambda: budgets.Parameters("half"), TypeError, r"Received: Parameters\.most='half'"),
        (lambda: budgets.Macs(True), TypeError, r"Received: Macs\.most=True"),
        (lambda: budgets.Latency(), ValueError, "one of `most`"),
        (lambda: budgets.Latency(0.5, milliseconds=1.0), ValueError, "one of `most`"),
        (lambda: budgets.Latency(milliseconds=0.0), ValueError, "above 0"),
        (lambda: budgets.Latency(5), ValueError, "above 0 to 1"),
        (lambda: budgets.Latency(milliseconds=float("nan")), ValueError, "nan"),
        (lambda: budgets.Latency("5"), TypeError, r"Received: Latency\.most='5'"),
    ],
)
def test_wrong_budgets(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("amount", [0, 0.5, np.float32(0.5), budgets.Macs(7), budgets.Latency(0.5)])
def test_check_amount_accepts_shares_and_budgets(amount):
    budgets.check_amount(amount, "units")


@pytest.mark.parametrize(
    ("amount", "error", "message"),
    [
        ("half", TypeError, "`amount` must be a share of the {}.*Received: amount='half'"),
        (True, TypeError, "a budget: budgets.Macs.*Received: amount=True"),
        (1.0, ValueError, "from 0 to below 1.*Received: amount=1.0"),
        (-0.5, ValueError, "from 0 to below 1.*Received: amount=-0.5"),
        (float("nan"), ValueError, "from 0 to below 1.*Received: amount=nan"),
    ],
)
def test_all_functions_that_take_an_amount_reject_a_wrong_one_in_the_same_words(
    model, amount, error, message
):
    for function, share_of in (
        (tfc.prune_channels, "units"),
        (lambda *given: tfc.prune_channels_gradually(*given, print), "units"),
        (tfc.low_rank_plan, "full ranks"),
        (tfc.factorize, "full ranks"),
    ):
        with pytest.raises(error, match=message.format(share_of)):
            function(model, amount)


def test_unit_is_what_a_budget_counts():
    assert budgets.unit(budgets.Macs(0.5)) == "multiply-accumulates"
    assert budgets.unit(budgets.Parameters(5)) == "parameters"
