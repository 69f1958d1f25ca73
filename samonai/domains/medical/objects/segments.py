"""Names, SNOMED CT codes and colours of a label map's classes in written objects.

`segment_codes.csv` holds SNOMED CT codes for the names that data sets commonly use, and the codes
(SNOMED CT, FMA) of all segmentation property types of DICOM PS3.16 under their own meanings (CID
7150 and 7151, from pydicom's dictionary; `tools/segment_codes.py` writes these rows); the colours
are ours. Any other name gets `GENERIC`, which 3D Slicer treats as unspecified.
"""

import colorsys
import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]

_CATEGORIES = {
    "A": ("91723000", "Anatomical Structure"),
    "T": ("85756007", "Tissue"),
    "M": ("49755003", "Morphologically Abnormal Structure"),
}
_SIDES = {
    "left": ("7771000", "Left"),
    "l": ("7771000", "Left"),
    "right": ("24028007", "Right"),
    "r": ("24028007", "Right"),
}
_GOLDEN_RATIO = 0.618033988749895

JOINED = " // "
"""Separator between the names of structures that are one class."""


@dataclass(frozen=True)
class SegmentCode:
    """Codes of a structure: (code, meaning) pairs, of SNOMED CT unless `scheme` says otherwise.

    Attributes:
        category: Its category, of CID 7150.
        type: The structure, of CID 7151.
        side: Left or right, of CID 244; None if unspecified.
        colour: Recommended display colour, RGB 0..255; None where the table has none.
        scheme: Coding scheme of the type: "SCT", or "FMA".
    """

    category: tuple[str, str]
    type: tuple[str, str]
    side: tuple[str, str] | None = None
    colour: Colour | None = None
    scheme: str = "SCT"


GENERIC = SegmentCode(("85756007", "Tissue"), ("85756007", "Tissue"))
"""Code of names that are not in the table: Tissue, as 3D Slicer's default."""


@dataclass(frozen=True)
class Segment:
    """One class that is present in a label map.

    Attributes:
        value: Its value in the map.
        name: Its name.
        code: Its codes.
        colour: RGB 0..255.
    """

    value: int
    name: str
    code: SegmentCode
    colour: Colour

    @property
    def is_coded(self) -> bool:
        """Return whether the name is in the table."""
        return self.code is not GENERIC


def segments_of(
    label: npt.NDArray[np.integer], names: Mapping[int, str] | None = None
) -> list[Segment]:
    """Return the classes present in a label map, by value.

    Args:
        label: integer (I, J, K), class per voxel, 0 is background.
        names: Value to name; others are named by number.
    """
    # Slice by slice: counting makes a 64-bit copy.
    found: set[int] = set()
    for k in range(label.shape[2]):
        found.update(np.flatnonzero(np.bincount(label[:, :, k].ravel(order="K"))).tolist())
    return [segment_of(value, (names or {}).get(value)) for value in sorted(found - {0})]


def segment_of(value: int, name: str | None = None) -> Segment:
    """Return a class with its code and colour.

    Args:
        value: Its value in the label map, from 1.
        name: Its name; None: by number.
    """
    # A line break or a backslash would be a separator in the headers that hold names.
    name = " ".join((name or f"class_{value}").replace("\\", "/").split())
    code = segment_code(name)
    return Segment(value, name, code, code.colour or numbered_colour(value))


def segment_code(name: str) -> SegmentCode:
    """Return the code of a structure's name, regardless of case, spaces and the side's position.

    Several structures of one type that are one class (both lungs) have its code, without a side.
    """
    parts = {segment_code(part) for part in name.split(JOINED)} if JOINED in name else set()
    if len({(part.category, part.type) for part in parts}) == 1:
        return replace(parts.pop(), side=None)
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    table = _table()
    if (found := table.get("_".join(words))) is not None:
        return found
    for place in (-1, 0):
        if len(words) > 1 and (side := _SIDES.get(words[place])) is not None:
            rest = "_".join(words[:-1] if place else words[1:])
            if (found := table.get(rest)) is not None:
                return replace(found, side=side)
    return GENERIC


def numbered_colour(value: int) -> Colour:
    """Return a colour for a class by number; neighbours differ clearly in hue."""
    hue = (value * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


@cache
def _table() -> dict[str, SegmentCode]:
    file = resources.files("samonai.domains.medical") / "segment_codes.csv"
    rows: list[dict[str, Any]] = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    return {
        row["name"]: SegmentCode(
            _CATEGORIES[row["category"]],
            (row["type"], row["meaning"]),
            None,
            (int(row["red"]), int(row["green"]), int(row["blue"])) if row["red"] else None,
            row["scheme"],
        )
        for row in rows
    }
