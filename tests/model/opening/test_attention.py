import numpy as np
import pytest
from keras import ops

from tfcompress.model.opening.attention import written_out


def reference(query, key, value, bias=0.0, mask=True, scale=None, causal=False):
    groups = query.shape[2] // key.shape[2]
    key, value = (np.repeat(x, groups, axis=2) for x in (key, value))
    scale = key.shape[-1] ** -0.5 if scale is None else scale
    scores = np.einsum("btnh,bsnh->bnts", query, key) * scale + bias
    seen = np.broadcast_to(mask, scores.shape)
    if causal:
        seen = seen & np.tril(np.ones(scores.shape[2:], bool))
    weights = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    return np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), value)


class DotProductAttention:
    attn_logits_soft_cap = None

    def __init__(self, is_causal):
        self.is_causal = is_causal


@pytest.mark.parametrize(
    ("heads", "causal", "options"),
    [
        (2, False, {}),
        (2, True, {}),
        (2, False, {"scale": 0.7}),
        (4, True, {"mask": np.array([[[[True, True, False, True, True]]]])}),
        (2, False, {"bias": np.linspace(-1, 1, 5, dtype="float32")}),
    ],
)
def test_attention_written_out_is_that_of_the_formula_and_of_keras(heads, causal, options):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 5, 4, 8)).astype("float32")
    key, value = rng.normal(size=(2, 2, 5, heads, 8)).astype("float32")
    attend = written_out(DotProductAttention(causal))
    found = attend(*map(ops.convert_to_tensor, (query, key, value)), **options)
    # float32, sums of 8 and of 5: some 1e-7 of values of about 1.
    np.testing.assert_allclose(
        found, reference(query, key, value, causal=causal, **options), atol=2e-6
    )
    keras_own = ops.dot_product_attention(query, key, value, is_causal=causal, **options)
    np.testing.assert_allclose(found, keras_own, atol=2e-6)


def test_other_operations_stay():
    assert written_out(ops.add) is None
