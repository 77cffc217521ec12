"""`factorize`: layers with large kernels become several with small ones, of low rank."""

from __future__ import annotations

import warnings

import keras

from tfcompress.cost.budgets import Budget
from tfcompress.model.filters import Filters
from tfcompress.model.graph import calls

from . import factors
from .candidates import factorable
from .plan import LowRankPlan, low_rank_plan
from .rewrite import rewrite

__all__ = ["factorize"]


def factorize(
    model: keras.Model,
    amount: float | Budget | LowRankPlan | None = None,
    *,
    energy: float | None = None,
    filters: Filters = None,
    round_to: int = 1,
    refine: int = 0,
) -> keras.Model:
    """Return a copy of a model with kernels replaced by products of smaller ones.

    A `Dense`, an `EinsumDense`, an `Embedding` and a convolution over a single position become two
    layers, by a truncated SVD. Any other convolution becomes up to three, by Tucker-2: to fewer
    channels, over the positions, to all channels. The last of them has the bias and the activation.
    A layer that would not get cheaper stays as it is: `print(low_rank_plan(model, ...))` says so
    beforehand. Train the result some epochs more, at a small learning rate, to win back accuracy.
    The first and the last layers bear least: `filters` keeps them out, such as
    `"^(?!stem|classes)"`.

    The new layers are called after the old one, "head_1" and "head_2". The last keeps the old name
    where it is an output of the model, because losses and .tflite files go by that name. Each has
    the dtype policy, `trainable` and the kernel regularizer of the old layer. Zeros from pruning
    are lost: factorize first, then prune, then quantize.

    >>> x = keras.Input((64,), name="x")
    >>> model = keras.Sequential([x, keras.layers.Dense(48, name="hidden"), keras.layers.Dense(2)])
    >>> small = factorize(model, 0.75)
    >>> [layer.name for layer in small.layers[:3]], model.count_params(), small.count_params()
    (['x', 'hidden_1', 'hidden_2'], 3218, 1444)

    Args:
        model: A built model, nested ones included; it stays as it is. A subclassed one is read off
            its `call` where that is sound, and becomes a functional one.
        amount: The share of each full rank to cut, from 0 to below 1; or what is to be left of the
            model: `budgets.Macs`, `budgets.Parameters` or `budgets.Latency`; or a plan that
            `low_rank_plan` made for this model, which holds all other arguments. Defaults to None.
        energy: Share of the squared singular values that each kernel keeps at least, above 0 to 1.
            Give this or `amount`. Defaults to None.
        filters: Layers that may be factorized: a regular expression searched in the layer's path, a
            list of layers or names, or a function of the layer. Defaults to all.
        round_to: Ranks are multiples of this, rounded up. Defaults to 1.
        refine: Sweeps of HOOI over what Tucker-2 begins with. Defaults to 0.

    Returns:
        A functional model of ordinary Keras layers, not compiled. A warning says when all of its
        layers stayed as they were.

    Raises:
        TypeError: If `model` is no Keras model, or an argument has a wrong type.
        ValueError: If an argument has a wrong value; if `filters` or one of its entries selects no
            layer with a kernel; if the model is not built, quantization-aware, or subclassed and
            cannot be read off its `call`; if a weight is NaN; if a budget is impossible; or if a
            plan was made for another model or is given together with other arguments.

    Reference:
        Eckart & Young 1936; Tucker-2: Kim et al. 2016, https://arxiv.org/abs/1511.06530
    """
    if isinstance(amount, LowRankPlan):
        given = {"energy": energy, "filters": filters, "round_to": round_to, "refine": refine}
        defaults = {"energy": None, "filters": None, "round_to": 1, "refine": 0}
        unused = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        if unused:
            raise ValueError(f"The plan holds everything. Received besides: {', '.join(unused)}")
        model, plan = factorable(model), amount
    else:
        model = factorable(model)
        plan = low_rank_plan(
            model, amount, energy=energy, filters=filters, round_to=round_to, refine=refine
        )
    if not plan.factorized:
        warnings.warn(
            f"No layer of {model.name!r} is factorized; print(low_rank_plan(model, ...)) says why.",
            stacklevel=2,
        )
    return rewrite(model, _ranks(model, plan), plan.refine)


def _ranks(model: keras.Model, plan: LowRankPlan) -> dict[int, tuple[int, ...]]:
    """Return the planned ranks, by `id(layer)`."""
    there = {"/".join(part.name for part in lineage): lineage[-1] for lineage, _ in calls(model)}
    found = {}
    for planned in plan.factorized:
        layer = there.get(planned.path)
        fits = layer is not None and not factors.why_not(layer)
        shape = tuple(factors.variable(layer).shape) if fits else None
        if shape != planned.kernel:
            raise ValueError(
                f"The plan was made for another model ({plan.model!r}): it replaces a "
                f"{planned.type} {planned.path!r} with a kernel of shape {planned.kernel}. In "
                f"{model.name!r} there is {'no such layer' if shape is None else shape}."
            )
        found[id(layer)] = planned.rank
    return found
