"""Sizes of inputs that a file fixes, where the model leaves them free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from tfcompress.edge.arguments import check_integer, refuse
from tfcompress.model.samples import InputSpec

InputShapes: TypeAlias = Mapping[str, Sequence[int | None]]
"""Name of an input -> its shape in the file, with the batch first; None for a size as it was."""


def with_shapes(
    inputs: Sequence[InputSpec], input_shapes: InputShapes | None
) -> tuple[InputSpec, ...]:
    """Return the inputs of a model as a file will have them.

    >>> words = InputSpec("words", (None, None), "int32")
    >>> with_shapes([words], {"words": (1, 128)})
    (InputSpec(name='words', shape=(1, 128), dtype='int32'),)

    Args:
        inputs: The inputs of a model, with the batch axis first.
        input_shapes: Name of an input -> its shape in the file; None for no such shapes.

    Returns:
        The inputs, with the sizes that are given.

    Raises:
        TypeError: `input_shapes` is no dict, or a shape in it is no tuple of integers.
        ValueError: There is no such input, a shape contradicts the model's, or inputs have
            different batches.
    """
    if input_shapes is None:
        return tuple(inputs)
    names = [spec.name for spec in inputs]
    wanted = (
        f"a dict of input names ({', '.join(map(repr, names))}) -> shapes, with the batch first"
    )
    if not isinstance(input_shapes, Mapping):
        refuse("input_shapes", wanted, input_shapes, TypeError)
    if not input_shapes or not set(input_shapes) <= set(names):
        refuse("input_shapes", wanted, input_shapes)
    fixed = tuple(
        replace(spec, shape=_fixed(spec, input_shapes[spec.name]))
        if spec.name in input_shapes
        else spec
        for spec in inputs
    )
    if len({spec.shape[0] for spec in fixed}) > 1:
        batches = ", ".join(f"{spec.name!r} {spec.shape[0]}" for spec in fixed)
        raise ValueError(
            f"All inputs of a file take the same number of samples. Received: {batches}. Give each "
            "the same first size in `input_shapes`, or None there and `batch_size`."
        )
    return fixed


def _fixed(spec: InputSpec, shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return the shape of an input in the file."""
    name = f"input_shapes[{spec.name!r}]"
    wanted = f"a tuple of {len(spec.shape)} sizes that agrees with the model's {spec.shape}"
    if not isinstance(shape, tuple | list):
        refuse(name, wanted, shape, TypeError)
    sizes = [None if size is None else check_integer(name, size, 1) for size in shape]
    if len(sizes) != len(spec.shape) or any(
        own is not None and size not in (None, own)
        for own, size in zip(spec.shape, sizes, strict=True)
    ):
        refuse(name, wanted, shape)
    return tuple(own if size is None else size for own, size in zip(spec.shape, sizes, strict=True))
