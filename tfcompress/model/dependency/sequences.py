"""Rules for recurrent layers and attention: where units, heads and widths come from."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from tfcompress.model.keras_private import attention_projections
from tfcompress.model.layers import rule_class

from .call import Call, check_activation, keep_all
from .units import Ids, Labelled, Labels, fixed

__all__ = ["attention", "grouped_attention", "query_key_value", "rnn"]


_GATES = {layers.LSTM: 4, layers.GRU: 3, layers.SimpleRNN: 1}


def rnn(call: Call) -> list[Labels]:
    """Follow units through an LSTM, GRU or SimpleRNN: each is a column of every gate."""
    layer = call.operation
    if layer.stateful:
        return keep_all(call)
    cell = layer.cell
    call.keep(call.x[1:-1], "a recurrence runs along it")
    out = call.new_units(layer.units, "units")
    gates = np.tile(out, _GATES[rule_class(layer)])
    call.member(cell.kernel, 0, "input", call.channels)
    call.member(cell.kernel, 1, "output", gates)
    call.member(cell.recurrent_kernel, 0, "input", out)
    call.member(cell.recurrent_kernel, 1, "output", gates)
    call.member(cell.bias, -1, "parameter", gates)
    call.size("units", out)
    for activation in (layer.activation, getattr(layer, "recurrent_activation", None)):
        check_activation(call, activation, out)
    for state in call.tensors()[1:]:
        call.keep((*state, out), "there is an initial state")
    return [(*fixed(shape[:-1]), out) for shape in call.shapes]


def attention(call: Call) -> Labels | list[Labels]:
    """Follow heads, and widths of keys, values and output, through MultiHeadAttention."""
    layer = call.operation
    if layer.get_config()["use_gate"] or len(layer.output_dense.kernel.shape) != 3:
        return keep_all(call)
    heads = call.new_units(layer.num_heads, "heads")
    keys = call.new_units(layer.key_dim, "key width")
    values = call.new_units(layer.value_dim, "value width")
    query, key, value = query_key_value(call)
    out = call.new_units(int(layer.output_dense.kernel.shape[-1]), "width")
    for dense, x, width in (
        (layer.query_dense, query, keys),
        (layer.key_dense, key, keys),
        (layer.value_dense, value, values),
    ):
        _projection(call, dense, x, heads, width)
    _scale(call, layer.query_dense, keys)
    _output(call, layer.output_dense, heads, values, out)
    for entry, ids in (("num_heads", heads), ("key_dim", keys), ("value_dim", values)):
        call.size(entry, ids)
    call.coupling.size(layer, ("output_shape", 0), out)
    return _attended(call, query, out, heads)


def grouped_attention(call: Call) -> Labels | list[Labels]:
    """Follow heads through GroupQueryAttention; one of keys and values has several of queries."""
    layer = call.operation
    if layer.use_gate:
        return keep_all(call)
    heads = call.new_units(layer.num_key_value_heads, "heads")
    queries = np.repeat(heads, layer.num_repeats)
    width = call.new_units(layer.head_dim, "head width")
    query, key, value = query_key_value(call)
    projections = attention_projections(layer)
    _projection(call, projections.query, query, queries, width)
    _scale(call, projections.query, width)
    _projection(call, projections.key, key, heads, width)
    _projection(call, projections.value, value, heads, width)
    out = query[-1]
    assert out is not None, call.path
    _output(call, projections.output, queries, width, out)
    call.size("num_key_value_heads", heads)
    call.size("num_query_heads", queries)
    call.size("head_dim", width)
    return _attended(call, query, out, heads)


def query_key_value(call: Call) -> tuple[Labelled, Labelled, Labelled]:
    """Return the labels of what attention reads, and keep its masks."""
    given = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
    query, value, key = given["query"], given["value"], given.get("key")
    key = value if key is None else key
    for x in call.tensors():
        if x is query or x is key or x is value:
            call.keep(x[1:-1], "attention runs along it")
        else:
            call.keep(x, "it is a mask of attention")
    return query, key, value


def _projection(call: Call, dense: Any, x: Labels, heads: Ids, width: Ids) -> None:
    assert x[-1] is not None, call.path
    call.member(dense.kernel, 0, "input", x[-1], dense)
    call.member(dense.kernel, 1, "output", heads, dense)
    call.member(dense.kernel, 2, "output", width, dense)
    call.member(dense.bias, 0, "parameter", heads, dense)
    call.member(dense.bias, 1, "parameter", width, dense)


def _scale(call: Call, queries: Any, width: Ids) -> None:
    """Note weights to rescale, because attention divides by the root of the width."""
    for variable in (queries.kernel, queries.bias):
        call.coupling.scaled[id(variable)] = width


def _output(call: Call, dense: Any, heads: Ids, width: Ids, out: Ids) -> None:
    call.member(dense.kernel, 0, "input", heads, dense)
    call.member(dense.kernel, 1, "input", width, dense)
    call.member(dense.kernel, 2, "output", out, dense)
    call.member(dense.bias, 0, "parameter", out, dense)


def _attended(call: Call, query: Labels, out: Ids, heads: Ids) -> list[Labels]:
    """Return the labels of the output, and of the attention weights if they are returned."""
    if len(call.shapes) > 1:
        call.keep((heads,), "the attention of each head is given back")
    return [(*query[:-1], out), *(fixed(shape) for shape in call.shapes[1:])]
