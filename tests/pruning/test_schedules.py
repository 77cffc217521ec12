import keras
import numpy as np
import pytest

from tfcompress import schedules

EXAMPLES = [
    schedules.Constant(0.5),
    schedules.Constant(0.5, begin=7, end=40, frequency=10),
    schedules.OneShot(0.9, step=5),
    schedules.Polynomial(0.1, 0.8, begin=10, end=57, frequency=10),
    schedules.Polynomial(0.0, 0.8, begin=0, end=0),
    schedules.Exponential(0.2, 0.9, begin=3, end=30, frequency=4),
]


def tfmot_polynomial(step, initial, final, begin, end, power):
    """PolynomialDecay as tensorflow_model_optimization computes it, in float64."""
    p = np.clip((step - begin) / (end - begin), 0.0, 1.0)
    return (initial - final) * (1 - p) ** power + final


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 0.5])
def test_polynomial_is_tfmots(power):
    schedule = schedules.Polynomial(0.2, 0.85, begin=100, end=1100, power=power)
    steps = np.arange(100, 1300, 13)
    expected = tfmot_polynomial(steps, 0.2, 0.85, 100, 1100, power)
    # Both are float64; the order of operations differs.
    np.testing.assert_allclose([schedule(int(s)) for s in steps], expected, rtol=1e-14)
    assert schedule(99) == 0.0


def test_exponential_removes_the_same_share_of_what_is_left():
    schedule = schedules.Exponential(0.0, 0.9, begin=0, end=10)
    density = 1 - np.array([schedule(step) for step in range(11)])
    # float64 arithmetic
    np.testing.assert_allclose(density[1:] / density[:-1], 0.1**0.1, rtol=1e-12)
    assert schedule(10) == 0.9


def test_updates_are_tfmots_and_one_at_the_end():
    schedule = schedules.Polynomial(0.0, 0.5, begin=10, end=57, frequency=10)
    by_tfmot = [s for s in range(100) if 10 <= s <= 57 and (s - 10) % 10 == 0]
    ours = [s for s in range(100) if schedule.last_update(s) == s]
    assert ours == [*by_tfmot, 57]


@pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
def test_next_update_follows_last_update(schedule):
    updates = [s for s in range(200) if schedule.last_update(s) == s]
    for step in range(100):
        past = [s for s in updates if s <= step]
        future = [s for s in updates if s > step]
        assert schedule.last_update(step) == (past[-1] if past else None)
        assert schedule.next_update(step) == (future[0] if future else None)


@pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
def test_reaches_final_at_target_step_and_stays(schedule):
    values = [schedule(step) for step in range(200)]
    assert all(0.0 <= value < 1.0 for value in values)
    assert all(value == schedule.final for value in values[schedule.target_step :])
    assert all(value == 0.0 for value in values[: schedule.begin])
    assert values == sorted(values)


@pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
def test_serializes(schedule):
    assert type(schedule).from_config(schedule.get_config()) == schedule
    config = keras.saving.serialize_keras_object(schedule)
    assert config["registered_name"].startswith("tfcompress>")
    assert keras.saving.deserialize_keras_object(config) == schedule


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: schedules.Constant(1.0), "sparsity=1.0"),
        (lambda: schedules.Constant(-0.1), "sparsity=-0.1"),
        (lambda: schedules.Constant(float("nan")), "sparsity=nan"),
        (lambda: schedules.Constant("0.5"), "sparsity='0.5'"),
        (lambda: schedules.Constant(True), "sparsity=True"),
        (lambda: schedules.Constant(0.5, frequency=0), "frequency=0"),
        (lambda: schedules.Constant(0.5, begin=10, end=9), "end=9"),
        (lambda: schedules.OneShot(0.5, step=-1), "step=-1"),
        (lambda: schedules.OneShot(0.5, step=1.5), "step=1.5"),
        (lambda: schedules.Polynomial(0.0, 1.2, 0, 10), "final=1.2"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0, 0.75), "begin=0, end=0.75"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0.0, 100.0), "end=100.0"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0.5, 0.2), "begin=0.5, end=0.2"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0.0, 0.75).in_steps(0, 0), "steps=0"),
        (lambda: schedules.Polynomial(2, 0.5, 0, 10), "initial=2"),
        (lambda: schedules.Polynomial(0.0, 0.5, 11, 10), "begin=11, end=10"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0, None), "end=None"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0, 10, power=0), "power=0"),
        (lambda: schedules.Polynomial(0.0, 0.5, 0, 10, power=float("inf")), "power=inf"),
        (lambda: schedules.Exponential(0.0, 0.5, 0, 10, frequency=2.0), "frequency=2.0"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises((TypeError, ValueError), match="Received") as raised:
        make()
    assert named in str(raised.value)


def test_numpy_numbers_are_numbers():
    schedule = schedules.Polynomial(np.float32(0.0), np.float64(0.5), np.int64(0), np.int32(10))
    assert schedule(10) == 0.5


@pytest.mark.parametrize(
    ("shares", "steps"),
    [
        (schedules.Constant(0.5, begin=0.25), schedules.Constant(0.5, begin=90)),
        (schedules.OneShot(0.5, step=1.0), schedules.OneShot(0.5, step=240)),
        (
            schedules.Polynomial(0.1, 0.8, begin=0.0, end=0.75),
            # From step 40 to 190: a twentieth of the way is 7 steps.
            schedules.Polynomial(0.1, 0.8, begin=40, end=190, frequency=7),
        ),
        (
            schedules.Exponential(0.0, 0.8, begin=2 / 20, end=4 / 20, frequency=1),
            schedules.Exponential(0.0, 0.8, begin=60, end=80, frequency=1),
        ),
        (schedules.Polynomial(0.0, 0.8, 3, 9), schedules.Polynomial(0.0, 0.8, 3, 9)),
    ],
)
def test_shares_of_a_fit_become_its_steps(shares, steps):
    """A fit of 200 steps, which begins at step 40."""
    assert shares.in_steps(40, 200) == steps


def test_a_schedule_in_shares_is_saved_as_it_is_and_has_no_steps():
    schedule = schedules.Polynomial(0.0, 0.8, begin=0.0, end=0.75)
    assert schedules.Polynomial.from_config(schedule.get_config()) == schedule
    for call in (schedule.last_update, schedule.next_update, schedule):
        with pytest.raises(ValueError, match="counts in shares of a fit"):
            call(10)
