"""How much is cut: shares, budgets, rounding, and what cannot be had."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tests.support.clocks import latency_by_macs
from tests.support.helpers import as_id
from tfcompress import budgets, edge, importance
from tfcompress.cost import latency


def network(stem=16, narrow=8, wide=24):
    """Three groups, of 16 (a residual), 8 and 24 channels."""
    i = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(stem, 3, padding="same", activation="relu", name="stem")(i)
    y = layers.Conv2D(narrow, 1, activation="relu", name="narrow")(x)
    x = layers.Add()([x, layers.Conv2D(stem, 3, padding="same", name="back")(y)])
    x = layers.Conv2D(wide, 3, activation="relu", name="wide")(x)
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(i, x, name="network")


def widths(model):
    return tuple(model.get_layer(name).filters for name in ("stem", "narrow", "wide"))


@pytest.mark.parametrize(
    ("amount", "options", "expected"),
    [
        (0.0, {}, (16, 8, 24)),
        (0.5, {}, (8, 4, 12)),
        (0.3, {}, (12, 6, 17)),  # never more than the share
        (0.3, {"round_to": 4}, (12, 8, 20)),
        (0.3, {"round_to": 8}, (16, 8, 24)),
        (0.9, {"round_to": 8}, (8, 8, 8)),
        (0.95, {}, (2, 1, 3)),  # 0.9 of a group at most
        (0.99, {"max_pruning_ratio": 1.0}, (1, 1, 1)),
        (0.5, {"max_pruning_ratio": 0.25}, (12, 6, 18)),
        (0.5, {"filters": "wide"}, (16, 8, 12)),
        (0.5, {"filters": ["narrow"]}, (16, 4, 24)),
        (0.5, {"filters": lambda layer: layer.name == "stem"}, "nothing"),
    ],
    ids=as_id,
)
def test_shares_of_each_group(amount, options, expected):
    if expected == "nothing":  # the stem goes with the layer that is added to it
        with pytest.raises(ValueError, match=r"back\s+is\s+not\s+in\s+`filters`"):
            tfc.prune_channels(network(), amount, **options)
        return
    assert widths(tfc.prune_channels(network(), amount, **options)) == expected


def test_the_lowest_of_all_go_first():
    def scores(model, groups):
        return [
            np.linspace(1, 2, group.size) ** (4 if group.size == 24 else 0.1) for group in groups
        ]

    # The scores of `wide` are spread most, relative to their mean.
    small = tfc.prune_channels(network(), 0.2, importance=scores, scope="global")
    assert widths(small)[0] > 12
    assert widths(small)[1] > 6
    assert widths(small)[2] < 18
    assert sum(widths(small)) == 48 - 9


def test_what_is_left_are_the_highest_in_their_order():
    model = network()
    kernel = model.get_layer("narrow").kernel
    order = [5, 2, 7, 0, 1, 3, 4, 6]

    def scores(model, groups):
        return [np.argsort(order) if g.size == 8 else np.arange(g.size) for g in groups]

    small = tfc.prune_channels(model, 0.5, importance=scores, filters="narrow")
    expected = kernel.numpy()[..., sorted(order[4:])]
    np.testing.assert_array_equal(small.get_layer("narrow").kernel, expected)


@pytest.mark.parametrize("options", [{}, {"round_to": 4}], ids=as_id)
@pytest.mark.parametrize(
    "budget",
    [budgets.Macs(0.5), budgets.Macs(60_000), budgets.Parameters(0.3), budgets.Parameters(3000)],
    ids=as_id,
)
def test_budgets_are_kept_and_used(budget, options):
    model = network()
    small = tfc.prune_channels(model, budget, **options)
    allowed = budgets.limit(budget, model)
    used = budgets.cost(budget, small)
    # Cutting one channel less would be too much; a channel is worth up to a fifth of it.
    assert 0.8 * allowed < used <= allowed
    if options:
        assert all(width % 4 == 0 for width in widths(small))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("round_to", [1, 2, 4, 8])
@pytest.mark.parametrize("budget", [budgets.Macs(0.5), budgets.Parameters(0.5)], ids=as_id)
def test_no_group_could_be_left_larger_within_the_budget(budget, round_to, seed):
    model = network()
    allowed = budgets.limit(budget, model)
    small = tfc.prune_channels(model, budget, round_to=round_to, importance=importance.random(seed))
    left = widths(small)
    assert budgets.cost(budget, small) <= allowed
    for index, original in enumerate(widths(model)):
        more = [width + round_to * (i == index) for i, width in enumerate(left)]
        assert more[index] > original or budgets.cost(budget, network(*more)) > allowed


def test_a_budget_that_is_met_already_leaves_the_model():
    small = tfc.prune_channels(network(), budgets.Macs(1.0))
    assert widths(small) == (16, 8, 24)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (budgets.Macs(0.001), "multiply-accumulates: the smallest possible is"),
        (budgets.Parameters(20), "cannot be cut to 20 parameters"),
    ],
    ids=as_id,
)
def test_impossible_budgets_say_what_is_possible(budget, message):
    with pytest.raises(ValueError, match=message):
        tfc.prune_channels(network(), budget)


def test_latency(monkeypatch):
    """The search itself, with a clock that counts multiply-accumulates."""
    model = network()
    seen = latency_by_macs(monkeypatch, model)
    small = tfc.prune_channels(model, budgets.Latency(0.5))
    share = tfc.summary(model, small).total.left["macs"]
    assert 0.4 < share <= 0.5
    assert len(seen) <= 7
    with pytest.raises(ValueError, match=r"smallest possible takes 0\.0\d+ times its own"):
        tfc.prune_channels(model, budgets.Latency(0.001))


@pytest.mark.slow("measures latencies")
def test_latency_is_measured(tmp_path):
    i = keras.Input((32, 32, 8))
    x = layers.Conv2D(128, 3, padding="same", activation="relu")(i)
    x = layers.Conv2D(128, 3, padding="same", activation="relu")(x)
    model = keras.Model(i, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    small = tfc.prune_channels(model, budgets.Latency(0.5))
    # Two thirds of the work lie in 128 x 128 channels: half the time is about 0.7 of them each.
    assert 8 < small.layers[1].filters < 128
    stopwatch = latency.Stopwatch(budgets.Latency(milliseconds=1.0), model, tmp_path)
    assert stopwatch(small) > 0
    assert edge.delegates()["xnnpack"].available


@pytest.mark.parametrize(
    ("amount", "options", "error", "message"),
    [
        (1.0, {}, ValueError, "below 1"),
        (-0.1, {}, ValueError, "Received: amount=-0.1"),
        (float("nan"), {}, ValueError, "nan"),
        ("half", {}, TypeError, r"budgets\.Macs"),
        (0.5, {"scope": "model"}, ValueError, "'model'"),
        (0.5, {"round_to": 0}, ValueError, "`round_to`"),
        (0.5, {"max_pruning_ratio": 0}, ValueError, "`max_pruning_ratio`"),
        (0.5, {"max_pruning_ratio": "all"}, TypeError, "`max_pruning_ratio`"),
        (0.5, {"importance": "l2"}, ValueError, "named 'l2'.* There are: .*l2_norm"),
        (0.5, {"importance": 2}, TypeError, "l2_norm.*Received: 2"),
        (0.5, {"importance": "taylor"}, ValueError, r"'taylor' needs data, such as data=\(x, y\)"),
        (0.5, {"importance": "l2_norm", "data": [1.0]}, ValueError, "'l2_norm' needs no data"),
        (
            0.5,
            {"importance": "activation_mean", "data": [1.0], "loss": "mse"},
            ValueError,
            "needs no loss.*loss: taylor",
        ),
        (0.5, {"importance": "taylor", "data": (1, 2, 3)}, ValueError, "a tuple of 3"),
        (0.5, {"importance": importance.l2_norm, "data": [1.0]}, ValueError, "go with the name"),
        (0.5, {"importance": lambda m, g: [np.zeros(1)] * len(g)}, ValueError, r"shape \(1,\)"),
        (0.5, {"importance": lambda m, g: []}, ValueError, "0 arrays"),
        (0.5, {"importance": lambda m, g: [np.full(x.size, np.nan) for x in g]}, ValueError, "not"),
        (0.5, {"filters": "nothing"}, ValueError, "stem, narrow, back, wide, head"),
        (0.5, {"filters": "head"}, ValueError, "nothing to cut"),
    ],
    ids=as_id,
)
def test_wrong_arguments(amount, options, error, message):
    with pytest.raises(error, match=message):
        tfc.prune_channels(network(), amount, **options)


def test_weights_that_are_not_finite_are_named():
    model = network()
    model.get_layer("wide").bias.assign(np.full(24, np.nan))
    with pytest.raises(ValueError, match=r"'wide/bias'.*NaN"):
        tfc.prune_channels(model, 0.5)


@pytest.mark.slow("trains after each cut")
def test_gradually(capsys):
    model, seen = network(), []

    def fine_tune(model, step):
        seen.append((step, *widths(model)))
        model.compile("adam", "mse", jit_compile=False)
        model.fit(np.ones((8, 8, 8, 3)), np.ones((8, 3)), verbose=0)

    small = tfc.prune_channels_gradually(model, 0.75, fine_tune, steps=2, filters="^(?!head)")
    assert seen == [(0, 8, 4, 12), (1, 4, 2, 6)]
    assert small.compiled
    seen.clear()
    small = tfc.prune_channels_gradually(model, budgets.Macs(0.25), fine_tune, steps=2)
    macs = budgets.cost(budgets.Macs(1.0), model)
    assert 0.2 * macs < budgets.cost(budgets.Macs(1.0), small) <= 0.25 * macs
    assert 8 < seen[0][1] + seen[0][2] < 24  # half of the way
    with pytest.raises(ValueError, match="`steps`"):
        tfc.prune_channels_gradually(model, 0.5, fine_tune, steps=0)
    with pytest.raises(TypeError, match="Latency"):
        tfc.prune_channels_gradually(model, budgets.Latency(0.5), fine_tune)
    with pytest.raises(TypeError, match=r"no argument 'ratio'.*max_pruning_ratio"):
        tfc.prune_channels_gradually(model, 0.5, fine_tune, ratio=0.5)


def test_gradually_says_what_cannot_be_before_it_trains():
    def fine_tune(model, step):
        pytest.fail("it trained")

    model = network()
    for amount, options, message in (
        (0.5, {"steps": 2.5}, "`steps` must be an integer from 1. Received: steps=2.5"),
        (0.5, {"steps": True}, "steps=True"),
        (0.5, {"scope": "all"}, "scope"),
        (0.5, {"importance": "taylor"}, "needs data"),
        (budgets.Macs(0.001), {"scope": "global"}, "cannot be cut to .* the smallest possible is"),
        (budgets.Parameters(0.5), {"max_pruning_ratio": 0.1}, "Raise `max_pruning_ratio`"),
        (budgets.Macs(0.05), {"round_to": 16}, "the smallest possible is"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            tfc.prune_channels_gradually(model, amount, fine_tune, **options)
    with pytest.raises(TypeError, match="fine_tune=None"):
        tfc.prune_channels_gradually(model, 0.5, None)


@pytest.mark.parametrize(
    ("sizes", "share", "steps", "options", "expected"),
    [
        ((4, 4), 0.5, 3, {}, [2, 2]),
        ((16, 32), 0.5, 3, {"round_to": 8}, [8, 16]),
        ((8, 16), 0.5, 3, {}, [4, 8]),
        ((64, 64), 0.5, 10, {}, [32, 32]),
        ((6, 6), 0.9, 4, {"max_pruning_ratio": 0.5}, [3, 3]),
    ],
    ids=as_id,
)
def test_many_steps_cut_as_much_as_one(sizes, share, steps, options, expected):
    parts = [layers.Dense(size) for size in sizes]
    model = keras.Sequential([keras.Input((4,)), *parts, layers.Dense(2)])
    gradual = tfc.prune_channels_gradually(
        model, share, lambda model, step: None, steps=steps, **options
    )
    at_once = tfc.prune_channels(model, share, **options)
    for small in (gradual, at_once):
        assert [layer.units for layer in small.layers[1:3]] == expected
    gradual = tfc.prune_channels_gradually(
        model, share, lambda model, step: None, steps=steps, scope="global", max_pruning_ratio=1.0
    )
    assert sum(layer.units for layer in gradual.layers[1:3]) == sum(sizes) - int(share * sum(sizes))


def test_what_the_layers_say_of_themselves_stays():
    i = keras.Input((6,))
    options = {"kernel_regularizer": "l2", "activation": "tanh", "name": "a", "trainable": False}
    x = layers.Dense(8, kernel_constraint="non_neg", **options)(i)
    model = keras.Model(i, layers.Dense(2, dtype="mixed_float16", name="b")(x), name="model")
    small = tfc.prune_channels(model, 0.5, importance=importance.l1_norm)
    one, other = (m.get_layer("a").get_config() for m in (model, small))
    assert other["units"] == 4
    assert one | {"units": 4} == other
    assert small.get_layer("b").dtype_policy.name == "mixed_float16"
    assert (small.name, not small.compiled) == ("model", True)
