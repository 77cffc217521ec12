"""Two models side by side."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.cost.comparison import Comparison


def net(hidden=16, name="net"):
    x = keras.Input((8,), name="x")
    y = layers.Dense(hidden, name="hidden")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(y))
    return keras.Model(x, layers.Dense(4, name="head")(y), name=name)


def rows(comparison):
    """Parameters before and after, by path, of what has any."""
    found = {}
    for row in comparison.layers:
        counts = tuple(part and part.parameters for part in (row.before, row.after))
        if any(counts):
            found[row.path] = counts
    return found


def test_layers_are_matched_by_path():
    comparison = tfc.summary(net(16), net(4, name="small"))

    assert rows(comparison) == {
        "hidden": (8 * 16 + 16, 8 * 4 + 4),
        "norm": (4 * 16, 4 * 4),
        "head": (16 * 4 + 4, 4 * 4 + 4),
    }
    hidden, norm = (r for r in comparison.grouped() if r.path in ("hidden", "norm"))
    assert (hidden.before.macs, hidden.after.macs) == (8 * 16, 8 * 4)
    assert hidden.left == {"parameters": 0.25, "macs": 0.25, "bytes": 0.25}
    assert norm.left["macs"] is None  # Of nothing, nothing is left.
    total = comparison.total
    assert (total.before.macs, total.after.macs) == (8 * 16 + 16 * 4, 8 * 4 + 4 * 4)
    assert total.left["parameters"] == total.after.parameters / total.before.parameters


def test_each_side_is_the_summary_of_that_model():
    before, after = net(16), net(4)
    comparison = tfc.summary(before, after)
    assert comparison.before == tfc.summary(before)
    assert comparison.after == tfc.summary(after)
    assert comparison == Comparison(tfc.summary(before), tfc.summary(after))


def test_layers_of_one_model_alone_stand_where_they_were():
    model = net()
    small = tfc.factorize(model, 0.75, filters="hidden")

    comparison = tfc.summary(model, small)

    assert rows(comparison) == {
        "hidden": (8 * 16 + 16, None),
        "hidden_1": (None, 8 * 2),
        "hidden_2": (None, 2 * 16 + 16),
        "norm": (64, 64),
        "head": (68, 68),
    }
    assert list(rows(comparison)) == ["hidden", "hidden_1", "hidden_2", "norm", "head"]
    gone = next(row for row in comparison.layers if row.path == "hidden")
    assert gone.left == {"parameters": None, "macs": None, "bytes": None}
    lines = [line.split()[:4] for line in str(comparison).splitlines()]
    assert ["hidden", "144", "->", "-"] in lines
    assert ["hidden_1", "-", "->", "16"] in lines


def test_a_layer_that_moved_comes_once():
    def two(first, second):
        x = keras.Input((8,), name="x")
        y = layers.Dense(8, name=second)(layers.Dense(8, name=first)(x))
        return keras.Model(x, y, name="two")

    comparison = tfc.summary(two("a", "b"), two("b", "a"))
    assert rows(comparison) == {"a": (72, 72), "b": (72, 72)}


def test_what_the_models_hold_themselves_is_one_row_whatever_their_names():
    def model(name):
        a, b = keras.Input((3, 4)), keras.Input((4, 5))
        return keras.Model([a, b], keras.ops.matmul(a, b), name=name)

    comparison = tfc.summary(model("first"), model("second"))
    [own] = [row for row in comparison.grouped() if row.before and row.before.macs]
    assert (own.path, own.before.macs, own.after.macs) == ("second", 60, 60)
    assert "first -> second" in str(comparison)


def test_pruning_in_place_is_compared_by_two_summaries():
    model = net()
    before = tfc.summary(model)
    tfc.prune_weights(model, sparsity=0.5)

    comparison = Comparison(before, tfc.summary(model))

    zeros = {row.path: row.after.zeros - row.before.zeros for row in comparison.layers}
    assert zeros == {"net": 0, "x": 0, "hidden": 64, "norm": 0, "relu": 0, "head": 32}
    assert comparison.total.left == {"parameters": 1, "macs": 1, "bytes": 1}
    assert " -> " in str(comparison)
    assert "Bits" not in str(comparison)


def test_quantization_aware_models_are_float_models_with_other_bits():
    model = net()
    qat = tfc.quantize_aware(model, exclude=["head"])

    comparison = tfc.summary(model, qat)

    before = {r.path: (r.before.parameters, r.before.macs) for r in comparison.grouped()}
    after = {r.path: (r.after.parameters, r.after.macs) for r in comparison.grouped() if r.after}
    costs = {path: cost for path, cost in before.items() if any(cost)}
    assert {path: after[path] for path in costs} == costs
    bits = {r.path: (r.before.bits, r.after.bits) for r in comparison.layers if r.path in costs}
    assert bits == {"hidden": ((32,), (8,)), "norm": ((), ()), "head": ((32,), (32,))}
    assert "32 -> 8" in str(comparison)


def test_to_dict_is_json():
    data = json.loads(json.dumps(tfc.summary(net(16), net(4, name="small")).to_dict()))
    assert (data["before"], data["after"]) == ("net", "small")
    assert data["total"]["left"]["macs"] == 0.25
    by_path = {layer["path"]: layer for layer in data["layers"]}
    assert by_path["hidden"]["before"]["parameters"] == 144
    small = tfc.factorize(net(), 0.75, filters="hidden")
    layers_ = json.loads(json.dumps(tfc.summary(net(), small).to_dict()))["layers"]
    assert [layer["after"] for layer in layers_ if layer["path"] == "hidden"] == [None]


def test_unknown_sizes_give_no_share_until_inputs_are_given():
    def model(filters):
        x = keras.Input((None, None, 3))
        return keras.Model(x, layers.Conv2D(filters, 3, padding="same", name="conv")(x))

    unknown = tfc.summary(model(8), model(4))
    assert unknown.total.left["macs"] is None
    assert unknown.total.left["parameters"] == 0.5
    assert "?" in str(unknown)
    known = tfc.summary(model(8), model(4), inputs=np.zeros((1, 5, 6, 3), "float32"))
    assert known.total.after.macs == 5 * 6 * 9 * 3 * 4
    assert known.total.left["macs"] == 0.5


def test_deep_models_fold_and_fit():
    def deep(width):
        x = keras.Input((8,))
        y = x
        for i in range(60):
            y = layers.Dense(width, name=f"layer_{i}")(y)
        return keras.Model(x, layers.Dense(500, name="head")(y))

    comparison = tfc.summary(deep(8), deep(4))
    text = str(comparison)
    assert "21 smaller layers" in text
    assert max(map(len, text.splitlines())) <= 110
    [smaller] = [line.split() for line in text.splitlines() if "smaller layers" in line]
    # Each of 8 * 8 + 8 weights before, and 4 * 4 + 4 after.
    assert smaller[3:7] == ["1.51k", "->", "420", "(28%)"]
    assert comparison.table(max_rows=100).row_count == 61


def test_the_second_model_must_be_one():
    with pytest.raises(TypeError, match=r"goes by name: summary\(model, inputs=\.\.\.\)"):
        tfc.summary(net(), np.zeros((1, 8)))
    with pytest.raises(ValueError, match="'empty' is not built"):
        tfc.summary(net(), keras.Sequential([layers.Dense(2)], name="empty"))
