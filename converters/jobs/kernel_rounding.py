"""The kernels of a float .tflite file -> integers of 4 bits, before it is quantized.

The float kernels are replaced by the numbers that the integers stand for. The quantizer then finds
int8 steps for them, biases and ranges, and `store` puts the integers of 4 bits in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..passes.flatbuffer import pack, unpack
from ..passes.gptq import by_inputs
from ..passes.graph import Graph, graphs
from ..passes.int4 import Integers, is_same, on_grid, use
from ..passes.kernels import Kernel, belongs, find_kernels
from ..passes.rounding import largest_scales, nearest
from .allocation import allocate, relative_error
from .layer_inputs import hessian
from .tensor_values import Samples

Array = np.ndarray[Any, np.dtype[Any]]
Json = dict[str, Any]

_ALIGNED = 16


class KernelsRefused(ValueError):
    """No file of 4 bits can be made as it was asked for."""


@dataclass
class Rounded:
    """What became of the kernels.

    Attributes:
        integers: Name of the layer -> its kernels of 4 bits.
        kept: Name of the layer -> why it keeps 8 bits.
    """

    integers: list[tuple[str, Integers]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def quantize_in_4_bits(
    content: bytes, samples: Samples, request: Json, quantize: Callable[[bytes], bytes]
) -> tuple[bytes, Rounded]:
    """Quantize a calibrated file, with kernels in 4 bits.

    Args:
        content: A float file with measured ranges.
        samples: Samples for the inputs of the file.
        request: The fields of `KernelRequest`.
        quantize: Makes an int8 file of a float file.

    Returns:
        The file, and what became of its kernels.

    Raises:
        KernelsRefused: The smallest file is larger than the budget.
    """
    model = unpack(content)
    graph = graphs(model)[0]
    kernels = find_kernels(graph, request["tree"])
    _choose(kernels, request)
    if request["budget"] is not None:
        _fit(kernels, request["budget"], content, quantize)
    rounded = Rounded(kept={k.layer: k.why for k in kernels if k.why})
    for kernel in kernels:
        if not kernel.why:
            by_inputs = request["rounding"] == "gptq"
            integers = _gptq(graph, kernel, samples) if by_inputs else _nearest(graph, kernel)
            rounded.integers.append((kernel.layer, integers))
    small, missing = store(quantize(pack(model)), rounded.integers)
    for layer in missing:
        rounded.kept[layer] = "the quantizer stored other numbers for it"
    return small, rounded


def store_trained(content: bytes, request: Json) -> tuple[bytes, Rounded]:
    """Store the kernels of a model that was trained with weights of 4 bits.

    Args:
        content: The int8 file that the converter made of it.
        request: The fields of `KernelRequest`.

    Returns:
        The file, and what became of its kernels.

    Raises:
        KernelsRefused: No kernel was trained so, or the file is larger than the budget.
    """
    model = unpack(content)
    graph = graphs(model)[0]
    kernels = find_kernels(graph, request["tree"], "INT8")
    _choose(kernels, {**request, "ends": False})
    rounded = Rounded()
    for kernel in kernels:
        found = None if kernel.why else on_grid(graph, kernel.index)
        if found is not None:
            use(graph, kernel.index, found)
            rounded.integers.append((kernel.layer, found))
        else:
            rounded.kept[kernel.layer] = kernel.why or "it was trained with weights of 8 bits"
    if not rounded.integers:
        raise KernelsRefused(
            "no kernel was trained with weights of 4 bits. Train with quantize_aware(model, "
            "scheme=QuantizationScheme(weight_bits=4)), or give calibration samples with the float "
            "model that tfcompress.strip(model) returns"
        )
    small = pack(model)
    if request["budget"] is not None and len(small) > request["budget"]:
        raise KernelsRefused(
            f"the budget of {request['budget']:,} bytes cannot be met: the file has {len(small):,}"
        )
    return small, rounded


def store(content: bytes, kernels: list[tuple[str, Integers]]) -> tuple[bytes, list[str]]:
    """Store kernels in 4 bits in an int8 file that holds the numbers that they stand for.

    A kernel is found by its content, whatever the quantizer calls it.

    Args:
        content: An int8 file.
        kernels: Layers and their kernels.

    Returns:
        The file, and the layers whose kernels are not in it.
    """
    model = unpack(content)
    left = list(kernels)
    for graph in graphs(model):
        for kernel in find_kernels(graph, {}, "INT8"):
            for entry in left if not kernel.why else ():
                if is_same(graph, kernel.index, entry[1]):
                    use(graph, kernel.index, entry[1])
                    left.remove(entry)
                    break
    return pack(model), [layer for layer, _ in left]


def _choose(kernels: list[Kernel], request: Json) -> None:
    """Say of each kernel that was asked to keep 8 bits why it does."""
    for kernel in kernels:
        if belongs(kernel.layer, request["keep"]):
            kernel.why = kernel.why or "asked for"
        elif request["only"] is not None and not belongs(kernel.layer, request["only"]):
            kernel.why = kernel.why or "the precision of the rest of the file"
    if request["ends"] and request["budget"] is None and len(kernels) > 2:
        kernels[0].why = kernels[0].why or "the first layer: its errors go through all others"
        kernels[-1].why = kernels[-1].why or "the last layer: its errors are those of the output"


def _fit(
    kernels: list[Kernel], budget: int, content: bytes, quantize: Callable[[bytes], bytes]
) -> None:
    """Choose the kernels that keep 8 bits under a budget."""
    graph = graphs(unpack(content))[0]
    free = [kernel for kernel in kernels if not kernel.why]
    matrices = [_matrix(graph, kernel) for kernel in free]
    errors = [relative_error(matrix) for matrix in matrices]
    savings = [_bytes(matrix.size) - _bytes(-(-matrix.size // 2)) for matrix in matrices]
    size = len(pack(unpack(quantize(content))))
    smallest = _size(content, free, quantize)
    if smallest > budget:
        raise KernelsRefused(
            f"the budget of {budget:,} bytes cannot be met: the smallest possible file has "
            f"{smallest:,} bytes. int8 takes {size:,}, and {len(free)} kernel(s) in 4 bits save "
            f"{size - smallest:,}. Raise `budget`, give fewer layers in `keep`, or make the model "
            "smaller first"
        )
    least, taken = size - budget, free
    while least <= sum(savings):
        chosen = allocate(errors, savings, least)
        taken = [kernel for kernel, take in zip(free, chosen, strict=True) if take]
        # Steps and tables of another size may take a few bytes more than the kernels save.
        over = _size(content, taken, quantize) - budget
        if over <= 0:
            break
        least, taken = least + over, free
    for kernel in free:
        if kernel not in taken:
            kernel.why = "the budget allows it, and others save more bytes for their error"


def _size(content: bytes, kernels: list[Kernel], quantize: Callable[[bytes], bytes]) -> int:
    """Return the size of a file with some kernels in 4 bits, whichever integers they hold."""
    model = unpack(content)
    graph = graphs(model)[0]
    found = [(kernel.layer, _nearest(graph, kernel)) for kernel in kernels]
    return len(store(quantize(pack(model)), found)[0])


def _bytes(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _nearest(graph: Graph, kernel: Kernel) -> Integers:
    """Round a kernel to the nearest integers."""
    matrix = _matrix(graph, kernel)
    scales = largest_scales(matrix)
    return _put(graph, kernel, nearest(matrix, scales), scales)


def _gptq(graph: Graph, kernel: Kernel, samples: Samples) -> Integers:
    """Round a kernel on what enters it."""
    matrix = _matrix(graph, kernel)
    found = by_inputs(matrix, hessian(graph, kernel.nodes, samples))
    return _put(graph, kernel, found.values, found.scales)


def _put(graph: Graph, kernel: Kernel, values: Array, scales: Array) -> Integers:
    """Put what integers stand for in the place of a kernel."""
    shape = graph[kernel.index].shape
    graph.set_array(kernel.index, (values * scales[:, None]).astype(np.float32).reshape(shape))
    return Integers(values.reshape(shape), scales)


def _matrix(graph: Graph, kernel: Kernel) -> Array:
    array = graph.array(kernel.index)
    return array.reshape(len(array), -1)
