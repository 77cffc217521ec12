"""Units along reshaped axes: cutting before or after is the same."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.model.dependency.axes import einsum, reshape
from tfcompress.model.dependency.units import FIXED, Coupling


@st.composite
def shapes(draw):
    """Two shapes of as many elements."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 4]), min_size=1, max_size=5))

    def grouped():
        cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
        edges = [0, *cuts, len(factors)]
        return [math.prod(factors[a:b]) for a, b in itertools.pairwise(edges)]

    return grouped(), grouped()


@settings(deadline=None, max_examples=300)
@given(shapes(), st.data())
def test_reshape(both, data):
    before, after = both
    axis = data.draw(st.integers(0, len(before) - 1))
    coupling = Coupling()
    ids = coupling.new_units("layer", "layer", "units", before[axis])
    labels = tuple(ids if i == axis else np.full(n, FIXED) for i, n in enumerate(before))
    result = reshape(coupling, labels, after)
    assert [len(units) for units in result] == after

    roots = coupling.roots()
    removed = data.draw(st.sets(st.sampled_from(np.unique(roots[ids]).tolist())))
    removed -= set(coupling.reasons())
    if removed == set(roots[ids].tolist()):  # one unit always stays
        removed.pop()
    keep = ~np.isin(roots, list(removed))
    keep[FIXED] = True

    array = np.arange(math.prod(before)).reshape(before)
    first = np.compress(keep[ids], array, axis)
    second = array.reshape(after)
    for i, units in enumerate(result):
        second = np.compress(keep[units], second, i)
    np.testing.assert_array_equal(first.reshape(second.shape), second)


def test_a_split_axis_keeps_the_longest_part():
    coupling = Coupling()
    ids = coupling.new_units("layer", "layer", "units", 12)
    short, long = reshape(coupling, (ids,), (3, 4))
    np.testing.assert_array_equal(short, FIXED)
    assert len(np.unique(coupling.roots()[long])) == 4
    np.testing.assert_array_equal(coupling.roots()[ids].reshape(3, 4)[1], coupling.roots()[long])


def test_axes_of_unknown_size_keep_what_is_merged_with_them():
    coupling = Coupling()
    ids = coupling.new_units("layer", "layer", "units", 4)
    assert reshape(coupling, (None, ids), (None,)) == (None,)
    assert "unknown size" in coupling.reasons()[coupling.roots()[ids[0]]]


def test_einsum_unites_what_shares_a_letter():
    coupling = Coupling()
    a, b = (coupling.new_units(name, name, "units", 3) for name in "ab")
    batch, other = np.full(2, FIXED), np.full(5, FIXED)
    out = einsum(coupling, "bi,ij->bj", [(batch, a), (b, other)])
    np.testing.assert_array_equal(coupling.roots()[a], coupling.roots()[b])
    assert out is not None
    assert out[1] is other
    assert not coupling.reasons()
    einsum(coupling, "bi->b", [(batch, a)])
    assert len(coupling.reasons()) == 3
    assert einsum(coupling, "...i->...", [(batch, a)]) is None
