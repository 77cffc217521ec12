import numpy as np
import pytest

from tfcompress import masks
from tfcompress.converters.passes.sparse_encoding.encoding import encode
from tfcompress.pruning import patterns


def random_scores(shape):
    return np.abs(np.random.default_rng(0).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("structure", [masks.SMALL_FILE, masks.FAST_DENSE, None], ids=str)
@pytest.mark.parametrize(
    ("sparsity", "single", "in_blocks"),
    [(0.5, (1.6, 1.0), (1.9, 1.6)), (0.8, (4.0, 2.5), (4.7, 4.0)), (0.9, (7.9, 4.8), (9.4, 7.9))],
)
def test_patterns_are_worth_what_their_table_says(structure, sparsity, single, in_blocks):
    axes = [((1,), (0,))]
    [mask] = masks.compute([random_scores((256, 256))], sparsity, structure, axes=axes)
    for dtype, times in zip((np.float32, np.int8), in_blocks if structure else single, strict=True):
        kernel = mask.T.astype(dtype)
        # Two digits, one of them rounded.
        assert kernel.nbytes / encode(kernel).bytes == pytest.approx(times, abs=0.051)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4)])
def test_n_of_m_rejects_sizes(n, m):
    with pytest.raises(ValueError, match=r"`NofM\.[nm]` must be"):
        patterns.NofM(n, m)


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (4, 0), (1, 1)])
def test_block_rejects_sizes(rows, columns):
    with pytest.raises(
        ValueError, match=r"Block.*(must be an integer from 1|more than one weight)"
    ):
        patterns.Block(rows, columns)


def test_masks_gives_the_patterns_too():
    for name in patterns.__all__:
        assert getattr(masks, name) is getattr(patterns, name)
