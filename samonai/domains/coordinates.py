"""Coordinates that somebody wrote: numbers, and nothing that could be taken for one."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def coordinates(values: Any, count: int | None = None) -> npt.NDArray[np.float64] | None:
    """Return a list of numbers; None for anything else, such as texts, `true` or NaN among them.

    Args:
        values: What a file holds.
        count: How many there must be; None: any number.
    """
    if not isinstance(values, list) or count not in (None, len(values)):
        return None
    if not all(_is_number(value) for value in values):
        return None
    return np.array(values, np.float64)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
