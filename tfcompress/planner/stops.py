"""Why nothing more can be tried for now, though the recipes are not to blame."""

from __future__ import annotations

import errno
from typing import Any

from tfcompress import edge

from .data import Examples
from .measure import Device

__all__ = ["CannotGoOn", "check_device", "check_disk"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


class CannotGoOn(RuntimeError):
    """The disk is full, or the device went away: what is tried now is given back."""


def check_disk(error: BaseException) -> None:
    """Raise if an error, or one that it came of, is that of a full disk.

    Args:
        error: The error.

    Raises:
        CannotGoOn: It is.
    """
    seen: Any = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            where = f" at {seen.filename}" if seen.filename else ""
            raise CannotGoOn(f"the disk is full{where}: make room") from error
        seen = seen.__cause__ or seen.__context__


def check_device(device: Device, original: Any, examples: Examples) -> None:
    """Raise if the device does not run the original any more, which it ran at the beginning.

    Args:
        device: The device.
        original: The file of the original.
        examples: The validation data.

    Raises:
        CannotGoOn: It does not.
    """
    try:
        device.latency(original, original, examples.first())
    except edge.ModelRefused as error:
        name = device.target.name
        raise CannotGoOn(f"the device {name!r} went away ({error}): look after it") from error
