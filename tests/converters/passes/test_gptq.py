import numpy as np
import pytest

from tfcompress.converters.passes.gptq import by_inputs, gptq
from tfcompress.converters.passes.rounding import best_scales, largest_scales, nearest


def layer(seed, rows=6, columns=40, samples=120):
    """Weights, and the inputs of a layer: correlated, as those of a real one are."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, columns)).astype(np.float32)
    mixed = rng.normal(size=(samples, columns)) @ rng.normal(size=(columns, columns))
    return weights, mixed / columns**0.5


def reference(weights, hessian, scales, damping=0.01):
    """The paper's formula as it stands: the rest is inverted anew after each column.

    "Optimal brain quantization" of one row: round weight p, and add to the rest F
    -(w_p - q_p) / [H_F^-1]_pp * [H_F^-1]_:,p.
    """
    columns = len(hessian)
    damped = hessian + damping * np.mean(np.diag(hessian)) * np.eye(columns)
    order = np.argsort(-np.diag(hessian), kind="stable")
    found = np.zeros(weights.shape, np.int8)
    blocks = scales.reshape(len(weights), -1).astype(np.float64)
    for row, steps in enumerate(np.repeat(blocks, columns // blocks.shape[1], axis=1)):
        left = weights[row].astype(np.float64)
        for place, p in enumerate(order):
            rest = order[place:]
            inverse = np.linalg.inv(damped[np.ix_(rest, rest)])
            integer = np.clip(np.rint(left[p] / steps[p]), -7, 7)
            found[row, p] = integer
            left[rest] -= (left[p] - integer * steps[p]) / inverse[0, 0] * inverse[:, 0]
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_gptq_equals_the_formula_of_the_paper(seed, monkeypatch):
    monkeypatch.setattr("tfcompress.converters.passes.gptq._BLOCK", 16)  # blocks of 16, 16 and 8
    weights, inputs = layer(seed, rows=2)
    hessian, scales = inputs.T @ inputs, largest_scales(weights)
    assert np.array_equal(gptq(weights, hessian, scales), reference(weights, hessian, scales))
    blocks = by_inputs(weights, hessian, block=8)
    assert blocks.scales.shape == (2 * 5,)
    assert np.array_equal(blocks.values, reference(weights, hessian, blocks.scales))


def error(weights, integers, scales, inputs):
    return np.square(inputs @ (weights - integers * scales[:, None]).T).sum()


def test_gptq_changes_the_outputs_less_than_the_nearest_integers():
    weights, inputs = layer(2)
    hessian, scales = inputs.T @ inputs, largest_scales(weights)
    ours = error(weights, gptq(weights, hessian, scales), scales, inputs)
    # Random correlated inputs; seen: 0.35 of the error.
    assert ours < 0.6 * error(weights, nearest(weights, scales), scales, inputs)


def test_gptq_rounds_each_weight_by_itself_where_inputs_do_not_correlate():
    weights, _ = layer(3)
    scales = largest_scales(weights)
    diagonal = np.diag(np.random.default_rng(0).uniform(1, 2, weights.shape[1]))
    assert np.array_equal(gptq(weights, diagonal, scales), nearest(weights, scales))


def test_gptq_takes_inputs_that_are_always_zero():
    weights, inputs = layer(4)
    inputs[:, 3] = 0
    scales = largest_scales(weights)
    found = gptq(weights, inputs.T @ inputs, scales)
    assert np.array_equal(found[:, 3], nearest(weights, scales)[:, 3])
    nothing = np.zeros((weights.shape[1],) * 2)
    assert np.array_equal(gptq(weights, nothing, scales), nearest(weights, scales))


def test_best_scales_have_the_least_error_of_all_that_are_tried():
    weights, _ = layer(5)
    importance = np.random.default_rng(1).uniform(0, 3, weights.shape[1])
    found = best_scales(weights, importance)

    def squared(scales):
        return np.square(weights - nearest(weights, scales) * scales[:, None]) @ importance

    for share in np.linspace(0.5, 1, 41):
        scales = (largest_scales(weights) * share).astype(np.float32)
        assert np.all(squared(found) <= squared(scales) * (1 + 1e-6))


def test_a_row_of_zeros_has_a_scale():
    zeros = np.zeros((2, 8), np.float32)
    assert np.array_equal(largest_scales(zeros), np.ones(2))
    assert np.array_equal(best_scales(zeros, np.ones(8)), np.ones(2))
    assert not nearest(zeros, np.ones(2)).any()
