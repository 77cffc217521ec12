"""Which variables of a model are kernels, and which of their axes are outputs and inputs."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_bool

from .checks import check_built
from .filters import Filters, check, select_layers
from .layers import Lineage, own_weights, rule_class, trained, walk

__all__ = ["Kernel", "is_kernel", "kernels", "kernels_of", "select"]

_KERAS_KERNEL = re.compile(r"(\w+_)?(kernel|embeddings)")
_NOT_A_KERNEL = re.compile(
    r"(\w+_)?(bias|gamma|beta|alpha|scale|offset|limit|mean|variance)(_\w+)?"
)

DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel: a matrix of weights, from inputs to outputs, of one layer.

    Attributes:
        path: Layer path and variable name: `"block/conv/kernel"`.
        layer: The layer that owns it.
        variable: The variable.
        output_axes: Axes that run over the outputs: the rows of the matrix as TFLite stores it,
            which per-channel scales run along. For an `Embedding`, the vocabulary.
        input_axes: Axes that are summed over channel by channel: the columns. Empty for a
            depthwise kernel. Every other axis is spatial.
        depthwise: Whether each output sees a single input channel.
        lineage: The layer and those around it, outermost first, without the model itself.
    """

    path: str
    layer: keras.layers.Layer
    variable: keras.Variable
    output_axes: tuple[int, ...]
    input_axes: tuple[int, ...]
    depthwise: bool
    lineage: Lineage

    @property
    def layer_path(self) -> str:
        """Return the path of the layer."""
        return self.path.rpartition("/")[0]

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return int(np.prod(self.variable.shape))

    def numpy(self) -> npt.NDArray[Any]:
        """Return the weights in float32, or in float64 if they are stored so."""
        weights = np.asarray(self.variable.numpy())
        return weights if weights.dtype == np.float64 else weights.astype(np.float32, copy=False)


def kernels(model: keras.Model, depthwise: bool = False) -> list[Kernel]:
    """Return all trainable kernels of a built model, each once, in the order of its layers.

    In Keras' own layers these are the variables named `kernel`, `*_kernel` and `embeddings`. In
    other layers they are all trainable floating-point variables with two or more axes longer than
    one, unless the name says bias, gamma, beta, alpha, scale, offset, limit, mean or variance.
    Layers inside others are found, however deep. Frozen layers are left out. The kernels of a
    `Distiller` are those of its student.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> [(kernel.path, kernel.input_axes, kernel.output_axes) for kernel in kernels(model)]
    [('head/kernel', (0,), (1,))]

    Args:
        model: A built model.
        depthwise: Whether depthwise kernels count. Defaults to False, because they hold few
            weights, and each of these matters much.

    Returns:
        List of `Kernel`.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it is not built.
        RuntimeError: If Keras runs on another backend than TensorFlow.
    """
    return [kernel for kernel in _walk(trained(model)) if depthwise or not kernel.depthwise]


def kernels_of(layer: keras.layers.Layer) -> list[Kernel]:
    """Return the kernels of a built layer and of those inside it, trainable or not.

    >>> dense = keras.layers.Dense(2, name="head")
    >>> dense.build((None, 3))
    >>> [kernel.path for kernel in kernels_of(dense)]
    ['head/kernel']

    Args:
        layer: A built layer.

    Returns:
        List of `Kernel`; the paths begin with the layer's own name. Tables of embeddings are left
        out, because they are looked up in, not multiplied with.
    """
    found = []
    for _, lineage in walk(layer):
        owner = lineage[-1] if lineage else layer
        for variable in own_weights(owner):
            if is_kernel(owner, variable) and not isinstance(owner, keras.layers.Embedding):
                path = "/".join([layer.name, *(part.name for part in lineage), variable.name])
                found.append(Kernel(path, owner, variable, *_axes(owner, variable), (layer,)))
    return found


def select(model: keras.Model, filters: Filters = None, depthwise: bool = False) -> list[Kernel]:
    """Return the kernels of the layers that `filters` selects, at least one.

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> [kernel.path for kernel in select(model, ["b"])]
    ['b/kernel']

    Args:
        model: A built model.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        depthwise: Whether depthwise kernels count. Defaults to False.

    Returns:
        List of `Kernel`, not empty.

    Raises:
        TypeError: If `model` is no Keras model or `filters` has the wrong type.
        ValueError: If the model is not built or has no trainable kernel, or if `filters` or one of
            its entries selects no layer with one.
        RuntimeError: If Keras runs on another backend than TensorFlow.
    """
    check(filters)
    check_bool("depthwise", depthwise)
    model = trained(model)
    found = kernels(model, depthwise)
    hint = "" if depthwise else "Depthwise kernels count only with depthwise=True."
    selected = select_layers(
        model,
        filters,
        [(kernel.layer_path, kernel.lineage) for kernel in found],
        kind="layer with a trainable kernel",
        hint=hint,
    )
    if not found:
        raise ValueError(f"{model.name!r} has no layer with a trainable kernel. {hint}".strip())
    return [kernel for kernel in found if id(kernel.layer) in selected]


def _walk(model: keras.Model) -> list[Kernel]:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "tfcompress works with Keras on TensorFlow. Set KERAS_BACKEND=tensorflow before Keras "
            f"is imported. Received: the {keras.backend.backend()!r} backend"
        )
    check_built(model)
    found: list[Kernel] = []
    seen: set[int] = set()
    for path, lineage in walk(model):
        layer = lineage[-1] if lineage else model
        trainable = {id(variable) for variable in layer.trainable_variables}
        for variable in own_weights(layer):
            if id(variable) in seen or id(variable) not in trainable:
                continue
            seen.add(id(variable))
            if is_kernel(layer, variable):
                axes = _axes(layer, variable)
                name = f"{path}/{variable.name}"
                found.append(Kernel(name, layer, variable, *axes, lineage or (model,)))
    return found


def is_kernel(layer: keras.layers.Layer, variable: keras.Variable) -> bool:
    """Return whether a variable that the layer owns is a kernel, trainable or not."""
    shape = variable.shape
    if len(shape) < 2 or not keras.backend.is_float_dtype(variable.dtype):
        return False
    if rule_class(layer).__module__.split(".")[0] == "keras":
        return _KERAS_KERNEL.fullmatch(variable.name) is not None
    return sum(size > 1 for size in shape) >= 2 and _NOT_A_KERNEL.fullmatch(variable.name) is None


def _axes(
    layer: keras.layers.Layer, variable: keras.Variable
) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return the output axes, the input axes, and whether the kernel is depthwise."""
    last = len(variable.shape) - 1
    # ConvNeXt writes its depthwise convolutions as grouped ones.
    grouped = getattr(layer, "groups", 1) > 1 and variable.shape[-2] == 1
    if isinstance(layer, DEPTHWISE) or variable.name == "depthwise_kernel" or grouped:
        return (last - 1, last), (), True
    if isinstance(layer, keras.layers.EinsumDense):
        return (*_einsum_axes(layer.equation), False)
    if isinstance(layer, _TRANSPOSED):
        return (last - 1,), (last,), False
    if variable.name.endswith("embeddings") and isinstance(layer, keras.layers.Embedding):
        return (0,), (1,), False
    return (last,), (last - 1,), False


def _einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    operands, result = equation.replace(" ", "").replace("...", "").split("->")
    kernel = operands.split(",")[1]
    outputs = tuple(axis for axis, label in enumerate(kernel) if label in result)
    inputs = tuple(axis for axis, label in enumerate(kernel) if label not in result)
    return outputs, inputs
