"""What the classes of a label map are called, coded and coloured in the objects written from it.

`segment_codes.csv` holds SNOMED CT codes for the names that data sets commonly use. Codes and
meanings are those of DICOM PS3.16 (CID 7150 and 7151, as pydicom's dictionary has them); the
colours are ours. A name that is not in it gets `GENERIC`, which 3D Slicer takes for "not said".
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
"""Stands between the names of structures that are one class."""


@dataclass(frozen=True)
class SegmentCode:
    """What a structure is, in SNOMED CT: (code, meaning) pairs.

    Attributes:
        category: Its kind, of CID 7150.
        type: The structure, of CID 7151.
        side: Left or right, of CID 244; None where not said.
        colour: Recommended display colour, RGB 0..255; None where the table has none.
    """

    category: tuple[str, str]
    type: tuple[str, str]
    side: tuple[str, str] | None = None
    colour: Colour | None = None


GENERIC = SegmentCode(("85756007", "Tissue"), ("85756007", "Tissue"))
"""The code of what the table does not know: Tissue, as 3D Slicer has it by default."""


@dataclass(frozen=True)
class Segment:
    """One class that is present in a label map.

    Attributes:
        value: Its value in the map.
        name: What it is called.
        code: What it is.
        colour: RGB 0..255.
    """

    value: int
    name: str
    code: SegmentCode
    colour: Colour

    @property
    def is_coded(self) -> bool:
        """Return whether the table knows the name."""
        return self.code is not GENERIC


def segments_of(
    label: npt.NDArray[np.integer], names: Mapping[int, str] | None = None
) -> list[Segment]:
    """Return the classes present in a label map, by value.

    Args:
        label: integer (I, J, K), class per voxel, 0 is background.
        names: Value to name; others are called by number.
    """
    # Slice by slice: counting copies what it counts into 64 bits.
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
    # A line break or a backslash would mean something in the headers that hold names.
    name = " ".join((name or f"class_{value}").replace("\\", "/").split())
    code = segment_code(name)
    return Segment(value, name, code, code.colour or numbered_colour(value))


def segment_code(name: str) -> SegmentCode:
    """Return the code of a structure's name; case, spaces and the side's place do not matter.

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
                return SegmentCode(found.category, found.type, side, found.colour)
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
            (int(row["red"]), int(row["green"]), int(row["blue"])),
        )
        for row in rows
    }
