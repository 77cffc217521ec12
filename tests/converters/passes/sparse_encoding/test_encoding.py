import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.converters.passes.sparse_encoding.encoding import BLOCKS, Plan, candidates, encode


def decode(encoding, shape):
    """TFLite's own way (FormatConverter::Populate), element by element."""
    rank, order, block_map = len(shape), encoding.traversal_order, encoding.block_map
    dense = np.zeros(shape, encoding.values.dtype)
    sizes = [encoding.levels[order[rank + i]].size for i in range(len(block_map))]
    values = iter(encoding.values)

    def walk(level, place, previous):
        if level == len(order):
            index = [0] * rank
            for axis, i in zip(order[:rank], place[:rank], strict=True):
                index[axis] = i
            for block, i in zip(order[rank:], place[rank:], strict=True):
                axis = block_map[block - rank]
                index[axis] = index[axis] * sizes[block - rank] + i
            dense[tuple(index)] = next(values)
            return
        info = encoding.levels[level]
        if info.indices is None:
            for i in range(info.size):
                walk(level + 1, [*place, i], previous * info.size + i)
        else:
            for i in range(int(info.segments[previous]), int(info.segments[previous + 1])):
                walk(level + 1, [*place, int(info.indices[i])], i)

    walk(0, [], 0)
    assert next(values, None) is None
    return dense


@st.composite
def arrays(draw):
    sizes = st.lists(st.sampled_from([1, 2, 3, 4, 8, 16, 20]), min_size=1, max_size=4)
    shape = draw(sizes.filter(lambda shape: np.prod(shape) <= 512))
    dtype = draw(st.sampled_from(["int8", "float16", "float32"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = rng.integers(-127, 128, shape).astype(dtype)
    for axis in draw(st.lists(st.integers(0, len(shape) - 1), max_size=2)):
        keep = rng.random(shape[axis]) > 0.5
        array *= np.expand_dims(keep, [a for a in range(len(shape)) if a != axis]).astype(dtype)
    return array * (rng.random(shape) > draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))).astype(dtype)


@settings(max_examples=30, deadline=None)
@given(arrays())
def test_every_candidate_decodes_to_the_array_and_costs_what_it_says(array):
    sizes = []
    for plan, size in candidates(array):
        encoding = encode(array, plan)
        np.testing.assert_array_equal(decode(encoding, array.shape), array)
        assert encoding.bytes == size
        sizes.append(size)
    assert encode(array).bytes == min(sizes)


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_found_along_any_axis(axis, block):
    shape = [2, 3, 4, 5]
    shape[axis] = 4 * block
    filled = np.random.default_rng(block).random(
        [n if a != axis else 4 for a, n in enumerate(shape)]
    )
    array = np.repeat((filled > 0.8).astype(np.int8), block, axis)
    smallest = encode(array)
    assert smallest.block_map == (axis,)
    assert smallest.levels[-1].size == block
    np.testing.assert_array_equal(decode(smallest, array.shape), array)


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)]
)
def test_indices_are_as_narrow_as_their_axis_allows(size, dtype):
    array = np.zeros((1, size), np.int8)
    array[0, -1] = 1
    level = encode(array, Plan(axis=1)).levels[1]
    assert level.indices.dtype == dtype
    assert level.indices[0] == size - 1
    assert level.segments.dtype == np.uint8


@pytest.mark.parametrize(
    ("count", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_segments_are_as_narrow_as_the_number_of_stored_blocks_allows(count, dtype):
    array = np.zeros((70_000, 2), np.int8)
    array[:count, 1] = 1
    level = encode(array, Plan(axis=1)).levels[1]
    assert level.segments.dtype == dtype
    assert level.segments[-1] == count


def test_an_array_of_zeros_keeps_one():
    assert encode(np.zeros((3, 4), np.float32)).values.tolist() == [0.0]


def test_zeros_of_either_sign_are_left_out():
    assert encode(np.array([[-0.0, 0.0, 1.0, -0.0]], np.float32)).values.tolist() == [1.0]


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_nothing_to_encode(shape):
    with pytest.raises(ValueError, match="no sparse encoding"):
        encode(np.zeros(shape, np.float32))
