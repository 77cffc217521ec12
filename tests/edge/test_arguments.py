"""The checks of arguments: what they let through, and how they say what is wrong."""

import math

import numpy as np
import pytest

from tfcompress.edge import arguments


def test_numbers_of_numpy_become_plain_ones():
    assert type(arguments.check_integer("n", np.int64(3), 1)) is int
    assert type(arguments.check_number("x", np.float32(0.5), 0, 1)) is float
    assert type(arguments.check_threads(np.int32(2))) is int
    assert arguments.check_bool("on", np.True_) is True


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "`n` must be an integer from 1. Received: n=0"),
        (2**31, ValueError, "an integer from 1 to 2147483647. Received: n=2147483648"),
        pytest.param(
            10**5000, ValueError, "Received: n=a number that is too long to write", id="long"
        ),
        (True, TypeError, "n=True"),
        (1.0, TypeError, "n=1.0"),
        ("1", TypeError, "n='1'"),
    ],
)
def test_check_integer_says_what_is_wrong(value, error, message):
    with pytest.raises(error) as raised:
        arguments.check_integer("n", value, 1)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ({"least": 0, "most": 1}, "a number from 0 to 1"),
        ({"above": 0, "most": 1}, "a number above 0 to 1"),
        ({"least": 0, "below": 1}, "a number from 0 to below 1"),
        ({"above": 0}, "a finite number above 0"),
        ({}, "a finite number"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, None, 1j])
def test_check_number_tells_the_range(bounds, wanted, value):
    with pytest.raises((TypeError, ValueError)) as raised:
        arguments.check_number("x", value, **bounds)
    assert str(raised.value).startswith(f"`x` must be {wanted}. Received: x=")


def test_check_number_keeps_to_its_bounds():
    for good in (0, 1, 0.5):
        assert arguments.check_number("x", good, 0, 1) == good
    for bad in (0, 1):
        with pytest.raises(ValueError, match=f"x={bad}"):
            arguments.check_number("x", bad, above=0, below=1)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e9, "60", None])
def test_check_seconds_takes_a_time_that_can_pass(value):
    assert arguments.check_seconds("timeout", 0.5) == 0.5
    with pytest.raises(
        (TypeError, ValueError), match="a number of seconds above 0, at most a year"
    ):
        arguments.check_seconds("timeout", value)


def test_check_function_counts_the_arguments():
    class Callable:
        def __call__(self, model, step=0):
            return None

    def with_more(model, step, rest=None): ...

    for good in (print, with_more, Callable(), np.abs, lambda *given: None):
        assert arguments.check_function("f", good, "model", "step") is good
    for bad in (lambda model: None, lambda a, b, c: None, Callable, 3, None):
        with pytest.raises(TypeError, match=r"`f` must be a function that takes \(model, step\)"):
            arguments.check_function("f", bad, "model", "step")


def test_check_path_takes_whatever_names_a_file(tmp_path):
    assert arguments.check_path("path", tmp_path) == arguments.check_path("path", str(tmp_path))
    for bad in ("", "a\0b", b"a", 3, None, ["a"]):
        with pytest.raises((TypeError, ValueError), match="`path` must be the path of a file"):
            arguments.check_path("path", bad)


def test_a_large_value_is_cut_in_the_message():
    with pytest.raises(TypeError) as raised:
        arguments.check_text("name", np.zeros(10_000))
    assert len(str(raised.value)) < 200
