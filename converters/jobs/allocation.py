"""Which kernels get 4 bits, and which keep 8, under a budget of bytes. In child processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..passes.rounding import largest_scales, nearest

Array = np.ndarray[Any, np.dtype[Any]]


def relative_error(weights: Array, bits: int = 4) -> float:
    """Return the squared error of rounding, as a share of the sum of the squared weights.

    >>> round(relative_error(np.float32([[7.0, 0.5], [7.0, 2.0]])), 4)
    0.0024

    Args:
        weights: Matrix of float32, a row for each output.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        The share; 0.0 for zeros.
    """
    scales = largest_scales(weights, bits)
    error = weights - nearest(weights, scales, bits) * scales[:, None]
    total = float((weights.astype(np.float64) ** 2).sum())
    return float((error.astype(np.float64) ** 2).sum()) / total if total else 0.0


def allocate(errors: Sequence[float], savings: Sequence[int], least: int) -> list[bool]:
    """Choose what to round, so that enough is saved and the sum of the errors is smallest.

    >>> allocate([0.1, 0.3, 0.1], [10, 40, 25], 30)
    [True, False, True]

    Args:
        errors: Error of each choice.
        savings: Bytes that each saves.
        least: Bytes to save.

    Returns:
        Whether to take each.

    Raises:
        ValueError: All together do not save so much.
        ImportError: SciPy is not installed.
    """
    if least <= 0:
        return [False] * len(errors)
    if sum(savings) < least:
        raise ValueError(f"all together save {sum(savings)} bytes. Received: least={least}")
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ModuleNotFoundError as error:
        raise ImportError(
            "A budget needs SciPy. Install it with: pip install 'tfcompress[tensorflow]'"
        ) from error
    # Both in shares: the solver's tolerances are absolute.
    costs = np.asarray(errors, np.float64) / max(sum(errors), 1e-30)
    shares = np.asarray(savings, np.float64) / least
    found = milp(
        costs + 1e-9,
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(shares[None], lb=1.0),
    )
    if found.x is None:
        raise ValueError(f"no choice was found: {found.message}")
    return [bool(value > 0.5) for value in found.x]
