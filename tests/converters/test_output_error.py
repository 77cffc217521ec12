import json
import math

import numpy as np
import pytest

from tfcompress import converters
from tfcompress.converters import VerificationError
from tfcompress.converters.output_error import channel_r2, compare


def test_nan_is_never_close():
    a = np.array([[1.0, np.nan, 2.0]])
    same = compare("y", a, a.copy(), None)
    assert (same.max_error, same.snr_db, same.nonfinite) == (0, math.inf, 0)
    for other in (np.array([[1.0, 0.0, 2.0]]), np.array([[np.nan, np.nan, 2.0]])):
        assert compare("y", a, other, None).nonfinite == 1
        assert compare("y", a, other, 0.5).max_lsb == math.inf
    infinite = compare("y", np.array([[np.inf, 1.0]]), np.array([[-np.inf, 1.0]]), None)
    assert infinite.nonfinite == 1
    broken = converters.Verification("f", "xnnpack", 1, (infinite,))
    with pytest.raises(VerificationError, match="NaN or infinite on one side"):
        broken.raise_if_above(top1_below=0)
    assert (
        json.loads(json.dumps(broken.to_dict(), allow_nan=False))["outputs"][0]["max_error"] is None
    )


def test_zeros_and_vectors():
    zero = np.zeros((2, 3))
    assert compare("y", zero, zero, None).cosine == 1
    off = compare("y", zero, zero + 1, None)
    assert (off.cosine, off.snr_db) == (0, -math.inf)
    assert compare("y", np.ones(3), np.ones(3), None).top1 is None
    assert compare("y", np.ones((3, 1)), np.ones((3, 1)), None).top1 is None
    with pytest.raises(ValueError, match=r"'y' has shape \(3, 2\).*\(2, 3\)"):
        compare("y", zero, zero.T, None)


def test_channel_r2_is_that_of_numpy_and_none_where_nothing_varies():
    rng = np.random.default_rng(0)
    a = rng.normal([1e3, 0, 7], [200, 1e-2, 0], (4, 9, 3)).astype("float32")
    b = (a + rng.normal(0, 1e-2, a.shape)).astype("float32")
    first, second, constant = channel_r2(a, b)
    wanted = [1 - ((b - a)[..., c] ** 2).mean() / a[..., c].astype("f8").var() for c in (0, 1)]
    np.testing.assert_allclose([first, second], wanted, rtol=1e-3)
    assert constant is None
    assert second < 0.2 < first
    error = compare("y", a, b, None)
    assert (error.worst_channel, error.worst_r2) == (1, second)
    assert channel_r2(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == (None,)
    assert compare("y", np.ones((3, 2)), np.ones((3, 2)), None).worst_r2 is None
