"""`Registry`: functions by name, with what they need, and errors that say which names there are."""

import pytest

from tfcompress.model.registry import Registry


@pytest.fixture
def registry():
    found = Registry("importance", needs=("weights", "data"))

    @found.register("l2_norm")
    def l2_norm(model):
        return "l2"

    @found.register("taylor", needs="data")
    def taylor(x):
        return "taylor"

    return found


def test_names_lists_all_or_what_needs_something(registry):
    assert registry.names() == ["l2_norm", "taylor"]
    assert registry.names("data") == ["taylor"]
    assert (registry.needs("l2_norm"), registry.needs("taylor")) == ("weights", "data")


def test_get_returns_the_function_itself(registry):
    assert registry.get("taylor")(None) == "taylor"


def test_get_of_an_unknown_name_says_which_there_are(registry):
    with pytest.raises(ValueError) as error:
        registry.get("l2-norm")
    assert str(error.value) == (
        "There is no importance named 'l2-norm'. There are: l2_norm, taylor. Did you mean "
        "'l2_norm'? Register your own with `register`."
    )


def test_register_rejects_a_name_that_another_function_has(registry):
    with pytest.raises(ValueError, match=r"another importance named 'taylor': .*taylor"):
        registry.register("taylor")(lambda x: x)
    assert registry.get("taylor")(None) == "taylor"


def test_register_replaces_the_function_of_a_module_that_runs_again():
    registry = Registry("importance")
    for value in (1, 2):

        @registry.register("own")
        def own(value=value):
            return value

    assert registry.get("own")() == 2


def test_register_rejects_unknown_needs(registry):
    with pytest.raises(ValueError, match=r"one of 'weights', 'data'. Received: needs='labels'"):
        registry.register("own", needs="labels")
