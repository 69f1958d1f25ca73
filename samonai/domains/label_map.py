"""Label map settings and coordinate lists, parsed from files and settings."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError


def parse_label_map(label_map: Mapping[Any, Any] | str | None) -> dict[int, int]:
    """Return a label map as integers, from a mapping (JSON has text keys) or "255:1,7:0".

    Raises:
        InputError: A value or class is not a whole number of 0 or more.
    """
    if not label_map:
        return {}
    if isinstance(label_map, str):
        pairs = [tuple(part.split(":")) for part in label_map.split(",")]
    else:
        pairs = list(label_map.items())
    try:
        mapping = {int(stored): int(wanted) for stored, wanted in pairs}
    except (TypeError, ValueError, OverflowError):
        mapping = {-1: -1}
    if min(*mapping, *mapping.values()) < 0:
        raise InputError(f"label_map={label_map!r}: expected stored:class pairs such as 255:1")
    return mapping


def coordinates(values: Any, count: int | None = None) -> npt.NDArray[np.float64] | None:
    """Return a list of numbers; None for any other value, such as one with texts or NaN.

    Args:
        values: A value from a file.
        count: Required length; None: any.
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
