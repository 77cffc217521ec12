"""`select_layers`: what filters select, and the one error when they select nothing."""

import keras
import pytest
from keras import layers

from tfcompress.model.filters import check, select_layers
from tfcompress.model.layers import walk


def network():
    block = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="first"), layers.ReLU(name="relu")], name="block_1"
    )
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(2, name="head")(block(x)), name="net")


def names(model, filters, **options):
    selected = select_layers(model, filters, **options)
    return [path for path, lineage in walk(model) if lineage and id(lineage[-1]) in selected]


def dense_only(model):
    return [
        (path, lineage) for path, lineage in walk(model)
        if lineage and isinstance(lineage[-1], layers.Dense)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("first|head", ["block_1/first", "head"]),
        ("^first", None),
        (["first"], ["block_1/first"]),
        (["block_1/relu", "head"], ["block_1/relu", "head"]),
        (lambda layer: isinstance(layer, layers.ReLU), ["block_1/relu"]),
        (lambda layer: False, None),
    ],
    ids=["regex", "regex of none", "name", "paths", "function", "function of none"],
)
def test_select_layers_returns_what_filters_select(filters, expected):
    if expected is None:
        with pytest.raises(ValueError, match="No layer in 'net' matches"):
            select_layers(network(), filters)
    else:
        assert names(network(), filters) == expected


def test_select_layers_takes_a_name_of_an_outer_layer_for_all_inside_it():
    found = names(network(), ["block_1"])
    assert {"block_1", "block_1/first", "block_1/relu"} <= set(found)
    assert "head" not in found


def test_select_layers_without_filters_selects_every_candidate():
    model = network()
    assert names(model, None, candidates=dense_only(model)) == ["block_1/first", "head"]
    assert select_layers(model, None, []) == set()


def test_select_layers_names_the_entry_that_matches_nothing_and_the_layers_that_there_are():
    model = network()
    with pytest.raises(ValueError) as error:
        select_layers(model, ["head", "frist"], dense_only(model), kind="Dense layer")
    assert str(error.value) == (
        "No Dense layer in 'net' matches 'frist' in `filters`. There are: block_1/first, head. "
        "Did you mean 'first'?"
    )


def test_select_layers_names_the_expression_the_argument_and_a_hint():
    with pytest.raises(ValueError) as error:
        select_layers(network(), "conv", hint="Build it first.", argument="exclude")
    message = str(error.value)
    assert message.startswith("No layer in 'net' matches the regular expression exclude='conv'.")
    assert message.endswith("The expression is searched in these paths. Build it first.")


def test_select_layers_compares_names_without_regard_to_case():
    with pytest.raises(ValueError, match=r"Did you mean 'head'\?"):
        select_layers(network(), ["HEAD"])


def test_select_layers_says_if_a_layer_is_of_another_kind():
    model = network()
    for entry in ("relu", model.get_layer("block_1").get_layer("relu")):
        with pytest.raises(ValueError, match="'relu' is a layer of the model, but not a Dense"):
            select_layers(model, [entry], dense_only(model), kind="Dense layer")


def test_select_layers_says_if_a_layer_belongs_to_another_model():
    with pytest.raises(ValueError, match=r"the layer 'head' in .* give the name 'head' instead"):
        select_layers(network(), [network().get_layer("head")])


def test_select_layers_says_that_a_function_returned_false():
    with pytest.raises(ValueError, match=r"filters=<function .* returns False for all of them"):
        select_layers(network(), lambda layer: layer.name == "tail")


def test_select_layers_shortens_a_long_list():
    x = keras.Input((2,))
    y = x
    for index in range(50):
        y = layers.ReLU(name=f"relu_{index}")(y)
    with pytest.raises(ValueError, match=r"relu_38 and 11 more\. Did you mean 'relu_49"):
        select_layers(keras.Model(x, y), ["relu-49"])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("(", ValueError),
        ("", ValueError),
        ([], ValueError),
        (3, TypeError),
        ([3], TypeError),
        (lambda: True, TypeError),
        (keras.layers.Dense, TypeError),
    ],
)
def test_check_names_the_argument(wrong, error):
    with pytest.raises(error, match="`exclude`"):
        check(wrong, "exclude")
