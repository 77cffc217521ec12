"""`factorize`: layers with large kernels -> several with small ones, of low rank."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.filters import Filters
from tfcompress.model.graph import Node, calls, copy_layer, functional, is_graph, rebuild
from tfcompress.model.keras_private import producer
from tfcompress.model.layers import walk

from . import factors
from .plan import LowRankLayer, LowRankPlan
from .planning import factorable, low_rank_plan

__all__ = ["factorize"]


def factorize(
    model: keras.Model,
    plan: LowRankPlan | None = None,
    *,
    energy: float | None = None,
    ratio: float | None = None,
    parameters: float | None = None,
    macs: float | None = None,
    filters: Filters = None,
    round_to: int = 1,
    refine: int = 0,
) -> keras.Model:
    """A copy of a model with kernels replaced by products of smaller ones.

    A `Dense`, an `EinsumDense`, an `Embedding` and a convolution over a single position become two
    layers, by a truncated SVD; any other convolution up to three, by Tucker-2: to fewer channels,
    over the positions, to all channels. Bias and activation go to the last of them. A layer that
    would not get cheaper stays as it is: `print(low_rank_plan(model, ...))` says so beforehand.
    Train the result some epochs more, at a small learning rate, to win back accuracy. What comes
    right after the inputs or before the outputs bears least: `filters` keeps it out, such as
    `"^(?!stem|classes)"`.

    The new layers are called after the old one, "head_1" and "head_2"; the last keeps its name
    where it is an output of the model, which losses and .tflite files go by. Each has its dtype
    policy, `trainable`, and the regularizer of its kernel. Zeros from pruning are lost: factorize
    first, then prune, then quantize.

    >>> x = keras.Input((64,), name="x")
    >>> model = keras.Sequential([x, keras.layers.Dense(48, name="hidden"), keras.layers.Dense(2)])
    >>> small = factorize(model, ratio=0.25)
    >>> [layer.name for layer in small.layers[:3]], model.count_params(), small.count_params()
    (['x', 'hidden_1', 'hidden_2'], 3218, 1444)

    Args:
        model: A built model, nested ones included; it stays as it is. A subclassed one is read off
            its `call` where that is sound, and becomes a functional one.
        plan: From `low_rank_plan`, of this model; or give its arguments:
        energy: Share of the squared singular values that each kernel keeps at least, above 0 to 1.
        ratio: Rank as a share of the full rank, above 0 to 1.
        parameters: Share of the model's parameters that is left at most, above 0 to 1.
        macs: Share of its multiply-accumulates that is left at most, above 0 to 1.
        filters: Which layers, as everywhere. Defaults to all.
        round_to: Ranks are multiples of this. Defaults to 1.
        refine: Sweeps of HOOI over what Tucker-2 begins with. Defaults to 0.

    Returns:
        A functional model of ordinary Keras layers, not compiled. A warning says when all of its
        layers stayed as they were.

    Raises:
        TypeError: As `low_rank_plan`.
        ValueError: As `low_rank_plan`; or `plan` was made for another model, or given together with
            other arguments.

    Reference:
        Eckart & Young 1936; Tucker-2: Kim et al. 2016, https://arxiv.org/abs/1511.06530
    """
    rules = {"energy": energy, "ratio": ratio, "parameters": parameters, "macs": macs}
    if plan is None:
        model = factorable(model)
        plan = low_rank_plan(model, **rules, filters=filters, round_to=round_to, refine=refine)
    else:
        if not isinstance(plan, LowRankPlan):
            raise TypeError(
                "`plan` must come from low_rank_plan; a share has a name, such as energy=0.9. "
                f"Received: plan={plan!r}"
            )
        others = {**rules, "filters": filters, "round_to": round_to, "refine": refine}
        unused = [
            f"{name}={value!r}"
            for name, value in others.items()
            if value != {"round_to": 1, "refine": 0}.get(name)
        ]
        if unused:
            raise ValueError(f"The plan holds everything. Received besides: {', '.join(unused)}")
        model = factorable(model)
    if not plan.factorized:
        warnings.warn(
            f"No layer of {model.name!r} is factorized; print(low_rank_plan(model, ...)) says why.",
            stacklevel=2,
        )
    return _Factorizer(model, plan).build(model)


class _Factorizer:
    """Builds the factorized copy of a model and of those nested in it, each layer once."""

    def __init__(self, model: keras.Model, plan: LowRankPlan) -> None:
        self.refine = plan.refine
        self.planned = _match(model, plan)
        self.taken = {part.name for _, lineage in walk(model) for part in lineage}
        self.outputs = _outputs(model)
        self.copies: dict[int, list[Layer]] = {}

    def build(self, model: keras.Model) -> keras.Model:
        return rebuild(model, self._call, model.name)

    def _call(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if node.call.is_input:
            return args[0]
        if not isinstance(operation, Layer):
            return operation(*args, **kwargs)
        if key not in self.copies:
            if key in self.planned:
                return self._replace(operation, args, kwargs)
            nested = is_graph(operation)
            copy = self.build(operation) if nested else copy_layer(operation, args, kwargs)
            self.copies[key] = [copy]
        first, *then = self.copies[key]
        outputs = first(*args, **kwargs)
        for layer in then:
            outputs = layer(outputs)
        return outputs

    def _replace(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """Call the new layers for the first time, which builds them, and assign their weights."""
        planned = self.planned[id(layer)]
        kernel = factors.kernel_of(layer)
        number = factors.count(layer, planned.rank, planned.full_rank)
        names = self._names(layer, number)
        made = factors.replace(layer, kernel, planned.rank, self.refine, names)
        outputs = None
        for new, weights in made:
            outputs = new(*args, **kwargs) if outputs is None else new(outputs)
            factors.variable(new).assign(weights)
        last = made[-1][0]
        if getattr(last, "bias", None) is not None:
            last.bias.assign(layer.bias)
        self.copies[id(layer)] = [new for new, _ in made]
        return outputs

    def _names(self, layer: Layer, number: int) -> list[str]:
        base = layer.name
        while any(f"{base}_{i}" in self.taken for i in range(1, number + 1)):
            base += "_factor"
        names = [f"{base}_{i}" for i in range(1, number + 1)]
        if id(layer) in self.outputs:
            names[-1] = layer.name
        self.taken.update(names)
        return names


def _match(model: keras.Model, plan: LowRankPlan) -> dict[int, LowRankLayer]:
    """What is planned, by the layer's id."""
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
        found[id(layer)] = planned
    return found


def _outputs(model: keras.Model) -> set[int]:
    """Ids of the layers whose names are those of outputs, of the model or of nested ones."""
    models = [model, *(part for _, lineage in walk(model) for part in lineage[-1:])]
    graphs = [functional(part) for part in models if is_graph(part)]
    return {id(producer(t)) for graph in graphs for t in graph.outputs}
