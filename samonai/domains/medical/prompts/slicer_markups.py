"""3D Slicer markups (.mrk.json): regions of interest, points and closed curves, in mm.

The format is that of Slicer's markups-schema 1.0.x. A markup's class is its name, or the name of
its file; a point's is its label. Names that Slicer makes by itself (R, F-1, CC_2) name no class.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.label_map import coordinates
from samonai.domains.medical.prompts.drawn import (
    SYSTEMS,
    Array,
    DrawnObject,
    box_corners,
    boxes_of_corners,
    outline,
    to_voxels,
)
from samonai.domains.medical.volume import Volume
from samonai.prompts.values import PromptFile, prompt_content

_ENDING = ".mrk.json"
_MADE_BY_SLICER = re.compile(
    r"(F|R|CC|OC|P|L|A|ROI|Markups(Fiducial|ROI|ClosedCurve))?([-_ ]?\d+)*", re.IGNORECASE
)
_NUMBERED = re.compile(r"(.+?)-\d+")


def is_markups(content: Any) -> bool:
    """Return whether JSON is a file of markups."""
    return isinstance(content, dict) and isinstance(content.get("markups"), list)


def markup_names(content: Any, path: PromptFile) -> list[str | None]:
    """Return the class of each object in a file of markups."""
    return [name for _, name, _ in _objects(content, path)]


def markup_objects(path: PromptFile, volume: Volume, axis: int) -> list[DrawnObject]:
    """Return the objects in a file of markups.

    Args:
        path: The file.
        volume: The volume.
        axis: The array axis perpendicular to the slices.

    Raises:
        InputError: A markup cannot be read, is in another unit than mm, or no markup prompts an
            object.
    """
    content = prompt_content(path)
    left_out = Counter(
        str(one.get("type"))
        for one in content["markups"]
        if isinstance(one, dict) and one.get("type") not in ("ROI", "ClosedCurve", "Fiducial")
    )
    found = [
        _object(markup, name, points, volume, axis, path)
        for markup, name, points in _objects(content, path)
    ]
    if not found:
        shown = ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "no markups"
        raise InputError(f"{path}: {shown}; expected an ROI, a closed curve or points")
    return found


def _objects(
    content: Any, path: PromptFile
) -> Iterator[tuple[dict[str, Any], str | None, list[Any]]]:
    """Yield each object's markup, class, and control points."""
    for markup in content["markups"]:
        if not isinstance(markup, dict):
            raise InputError(f"{path}: a markup that is no object")
        kind = markup.get("type")
        if kind not in ("ROI", "ClosedCurve", "Fiducial"):
            continue
        points = [
            point
            for point in markup.get("controlPoints") or []
            if isinstance(point, dict) and point.get("positionStatus", "defined") == "defined"
        ]
        name = _class_of(str(markup.get("name") or _stem(path)))
        if kind != "Fiducial":
            yield markup, name, points
            continue
        labelled: dict[str | None, list[Any]] = {}
        for point in points:
            labelled.setdefault(_class_of(str(point.get("label") or "")) or name, []).append(point)
        for own, its in labelled.items():
            yield markup, own, its


def _object(
    markup: dict[str, Any],
    name: str | None,
    points: list[Any],
    volume: Volume,
    axis: int,
    path: PromptFile,
) -> DrawnObject:
    kind, where = markup["type"], f"{path}: {markup['type']} {name or ''}".rstrip()
    system = str(markup.get("coordinateSystem", "LPS")).upper()
    if system not in SYSTEMS:
        raise InputError(f"{where}: coordinateSystem {system[:20]!r}; expected LPS or RAS")
    unit = markup.get("coordinateUnits", "mm")
    if (unit[0] if isinstance(unit, list) and unit else unit) != "mm":
        raise InputError(f"{where}: coordinateUnits {str(unit)[:20]!r}; expected mm")
    if kind == "ROI":
        corners = to_voxels(_corners(markup, where), system, volume)
        return DrawnObject(name, boxes_of_corners(corners, volume, axis, where))
    places = to_voxels(_positions(points, 3 if kind == "ClosedCurve" else 1, where), system, volume)
    if kind == "ClosedCurve":
        return outline(name, places, volume, axis, where)
    return DrawnObject(name, points=places)


def _corners(markup: dict[str, Any], where: str) -> Array:
    """Return the corners of an ROI in mm, float64 (8, 3)."""
    centre, size = coordinates(markup.get("center"), 3), coordinates(markup.get("size"), 3)
    axes = coordinates(markup.get("orientation", [1, 0, 0, 0, 1, 0, 0, 0, 1]), 9)
    if centre is None or size is None or axes is None or (size <= 0).any():
        raise InputError(f"{where}: expected center, orientation and a size above 0")
    if markup.get("insideOut"):
        raise InputError(f"{where}: turned inside out; an object lies inside its ROI")
    return box_corners(centre, axes.reshape(3, 3), size)


def _positions(points: list[Any], least: int, where: str) -> Array:
    found = [coordinates(point.get("position"), 3) for point in points]
    placed = [place for place in found if place is not None]
    if len(placed) < least or len(placed) != len(found):
        raise InputError(f"{where}: expected {least} or more points with three numbers each")
    return np.array(placed)


def _class_of(text: str) -> str | None:
    """Return the class in a name, without the number that Slicer adds to a point's label."""
    text = text.strip()
    if _MADE_BY_SLICER.fullmatch(text):
        return None
    numbered = _NUMBERED.fullmatch(text)
    return text if numbered is None else _class_of(numbered[1])


def _stem(path: PromptFile) -> str:
    if not isinstance(path, Path):
        return ""
    name = path.name
    return name[: -len(_ENDING)] if name.lower().endswith(_ENDING) else path.stem
