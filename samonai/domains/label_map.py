"""Label map settings and coordinate lists, as files and settings give them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError


def parse_label_map(label_map: Mapping[Any, Any] | str | None) -> dict[int, int]:
    """Return a label map as integers, from a mapping (JSON has text keys) or "255:1,7:0".

    Raises:
        InputError: When something in it is not a whole number of 0 or more.
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
