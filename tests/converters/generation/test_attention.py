import numpy as np
import pytest

from tfcompress import converters


def reference(query, keys, values, positions, scale, window, soft_cap):
    """Attend for one query and one head at a time."""
    _, length, heads, width = query.shape
    groups = keys.shape[1]
    out = np.zeros(query.shape)
    for row in range(length):
        for head in range(heads):
            group = head // (heads // groups)
            scores = keys[0, group] @ query[0, row, head] * (scale or width**-0.5)
            if soft_cap:
                scores = soft_cap * np.tanh(scores / soft_cap)
            for place in range(len(scores)):
                ago = positions[row] - place
                if ago < 0 or (window and ago >= window):
                    scores[place] = -np.inf
            weights = np.exp(scores - scores.max())
            out[0, row, head] = weights @ values[0, group] / weights.sum()
    return out


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize(
    ("heads", "scale", "window", "soft_cap"),
    [(2, None, None, None), (4, 0.7, None, None), (6, None, 2, 1.5)],
)
def test_attention_over_a_cache_matches_a_reference(length, heads, scale, window, soft_cap):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, length, heads, 8)).astype("float32")
    key, value = rng.normal(size=(2, 1, length, 2, 8)).astype("float32")
    old = rng.normal(size=(2, 1, 2, 9, 8)).astype("float32")
    positions = np.arange(4, 4 + length, dtype="int32")
    found, cache = converters.cached_attention(
        query, key, value, tuple(old), positions, scale=scale, window=window, soft_cap=soft_cap
    )
    new = old.copy()
    new[:, :, :, 4 : 4 + length] = np.stack([key, value]).transpose(0, 1, 3, 2, 4)
    np.testing.assert_array_equal(np.stack(cache), new)
    expected = reference(query, *new, positions, scale, window, soft_cap)
    # float32 against float64.
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": np.ones((3, 8))}, "`query` must be a tensor of shape"),
        ({"key": np.ones((1, 3, 3, 8))}, "4 heads of queries are no multiple of 3 heads of keys"),
        ({"value": np.ones((1, 3, 1, 8))}, "`value` must have the shape of `key`"),
        ({"cache": (np.ones((1, 9, 2, 8)),) * 2}, "`cache` must be keys and values of shape"),
        ({"positions": np.arange(2)}, "`positions` must be"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changed, message):
    sound = {
        "query": np.ones((1, 3, 4, 8)),
        "key": np.ones((1, 3, 2, 8)),
        "value": np.ones((1, 3, 2, 8)),
        "cache": (np.ones((1, 2, 9, 8)),) * 2,
        "positions": np.arange(3),
    }
    with pytest.raises(ValueError, match=message):
        converters.cached_attention(**{**sound, **changed})
