"""What a pass is: it reads the bytes of a .tflite file and returns the bytes of another one.

A pass is a module of this folder, or a file of yours that is written as if it were one. It defines

    def rewrite(content: bytes, **options) -> Rewritten

which runs in a child process. There, modules import their siblings only (`from .flatbuffer import
pack, unpack`) and never Keras or TensorFlow. After every run the result is compared with the file
that it must equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pass:
    """A pass to run, and its options.

    >>> Pass("sparsify", {"names": False}).options
    {'names': False}

    Attributes:
        module: Name of a module in `converters/passes`, such as "sparsify", or path of a .py file.
        options: Keyword arguments of the module's `rewrite`, as JSON values. Defaults to none.
    """

    module: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.module, str) or not self.module:
            raise TypeError(
                f"`module` must be the name of a pass or the path of a .py file. "
                f"Received: module={self.module!r}"
            )
        if not isinstance(self.options, dict):
            raise TypeError(
                f"`options` must be a dict of arguments. Received: options={self.options!r}"
            )


@dataclass(frozen=True)
class Rewritten:
    """The result of a pass.

    Attributes:
        content: The new file.
        report: What the pass did, as JSON values. Defaults to None.
        tolerance: How far the outputs may be from those of the file before: 0.0 for not at all,
            bit for bit; a share of the largest output; None for a pass that changes the results on
            purpose, whose file must only load. Defaults to 0.0.
        reference: File whose outputs the new one must have, if that is not the file before: a pass
            that rounds the weights first compares with the rounded file. Defaults to None.
    """

    content: bytes
    report: Any = None
    tolerance: float | None = 0.0
    reference: bytes | None = None


class Refused(ValueError):
    """The pass cannot rewrite the file.

    The message continues a sentence that begins with the name of the file: "is quantized already".
    """
