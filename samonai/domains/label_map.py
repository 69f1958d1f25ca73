"""Stored label values to classes, as settings give them."""

from collections.abc import Mapping
from typing import Any

from samonai.errors import InputError
from samonai.ranges import check_kind


def parse_label_map(label_map: Mapping[Any, Any] | str | None) -> dict[int, int]:
    """Return a label map as integers, from a mapping (JSON has text keys) or "255:1,7:0".

    Raises:
        InputError: When something in it is not a whole number of 0 or more.
    """
    check_kind("label_map", label_map, (str, Mapping), "stored:class pairs such as 255:1")
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
