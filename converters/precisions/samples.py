"""What precisions take as calibration samples."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tfcompress.edge.arguments import check_path, refuse

__all__ = ["check_calibration"]


def check_calibration(data: Any) -> None:
    """Check samples as far as that goes without a model.

    What is in them is checked with the inputs of the model, when that is converted.

    >>> check_calibration(None)
    >>> check_calibration([])
    Traceback (most recent call last):
    ...
    ValueError: `calibration` must be samples: arrays, an iterable of them or the path of an .npz \
file. Received: calibration=[]

    Args:
        data: What was given as `calibration`. None for no samples.

    Raises:
        TypeError: It is nothing that holds samples.
        ValueError: It is empty, or the path of no file.
    """
    if isinstance(data, str | os.PathLike):
        if not check_path("calibration", data).is_file():
            raise ValueError(
                "There is no file with calibration samples. "
                f"Received: calibration={os.fspath(data)!r}"
            )
        return
    wanted = "samples: arrays, an iterable of them or the path of an .npz file"
    iterable = isinstance(data, Iterable) or callable(data) or hasattr(data, "__array__")
    if data is not None and (isinstance(data, bytes | type) or not iterable):
        refuse("calibration", wanted, data, TypeError)
    if isinstance(data, list | tuple | dict) and not data:
        refuse("calibration", wanted, data)
