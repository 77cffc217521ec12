import keras
import numpy as np
import pytest

from tfcompress.model import constraints


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])


def test_mask_constraint_gives_positive_zeros_and_drops_infinity(model):
    held = constraints.attach_mask(model.layers[0].kernel, model, "owner", "fit")
    held.mask.assign([[True, False], [False, True]])
    after = held(keras.ops.convert_to_tensor([[1.0, -2.0], [np.inf, 4.0]])).numpy()
    np.testing.assert_array_equal(after, [[1.0, 0.0], [0.0, 4.0]])
    assert not np.signbit(after).any()


def test_attach_mask_applies_the_inner_constraint_first_and_detach_restores_it(model):
    kernel = model.layers[0].kernel
    kernel.constraint = inner = keras.constraints.NonNeg()
    held = constraints.attach_mask(kernel, model, "owner", "fit")
    np.testing.assert_array_equal(held(keras.ops.convert_to_tensor([[-1.0, 2.0]] * 2))[0], [0, 2])
    assert constraints.masks(kernel.constraint) == [held]
    assert constraints.mask_owners(kernel) == ["owner"]
    constraints.detach(kernel, "owner")
    assert kernel.constraint is inner


def test_detach_removes_a_constraint_from_between_others(model):
    kernel = model.layers[0].kernel
    for owner in ("first", "second", "third"):
        constraints.attach_mask(kernel, model, owner, "fit")
    constraints.detach(kernel, "second")
    assert constraints.mask_owners(kernel) == ["third", "first"]


def test_detach_stale_keeps_the_constraints_of_this_fit(model):
    kernel = model.layers[0].kernel
    old, new = object(), object()
    constraints.attach_mask(kernel, model, "interrupted", old)
    constraints.attach_mask(kernel, model, "running", new)
    constraints.detach_stale(kernel, new)
    assert constraints.mask_owners(kernel) == ["running"]
