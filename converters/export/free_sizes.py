"""Inputs that leave sizes free besides the batch, and how to fix them."""

from __future__ import annotations

from collections.abc import Iterable

from tfcompress.model.samples import InputSpec

# Rank of an input and number of its free sizes -> their names.
_NAMES = {
    (3, 1): ("length",),
    (4, 2): ("height", "width"),
    (5, 3): ("depth", "height", "width"),
}


def how_to_fix_sizes(inputs: Iterable[InputSpec]) -> str:
    """Return how to fix the free sizes of a model's inputs.

    >>> how_to_fix_sizes([InputSpec("image", (None, 8, 8, 3), "float32")])
    ''
    >>> how_to_fix_sizes([InputSpec("words", (None, None), "int32")]).split(". ")[0]
    "Input 'words' has a free size: (None, None)"

    Args:
        inputs: The inputs of a model, with the batch axis first.

    Returns:
        Sentences that begin with the inputs; "" if all sizes but the batch are fixed.
    """
    free = [spec for spec in inputs if None in spec.shape[1:]]
    if not free:
        return ""
    told = " ".join(
        f"Input '{spec.name}' has a free {' and '.join(_free(spec))}: {spec.shape}."
        for spec in free
    )
    shapes = ", ".join(f"{spec.name!r}: ({_sizes(spec)})" for spec in free)
    return f"{told} Fix what is free; this needs no training: input_shapes={{{shapes}}}."


def _sizes(spec: InputSpec) -> str:
    """Return the sizes of an input with words for those that are free, except the batch."""
    names = iter(_free(spec))
    sizes = [next(names) if size is None else str(size) for size in spec.shape[1:]]
    return ", ".join([str(spec.shape[0]), *sizes])


def _free(spec: InputSpec) -> tuple[str, ...]:
    """Return the names of the free sizes, except the batch."""
    count = spec.shape[1:].count(None)
    return _NAMES.get((len(spec.shape), count), ("size",) * count)
