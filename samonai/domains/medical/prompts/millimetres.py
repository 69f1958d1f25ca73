"""Boxes and points in mm, in files of our own: `"coordinates": "LPS"` or `"RAS"`.

JSON: `{"coordinates": "LPS", "boxes": [[x0, y0, z0, x1, y1, z1], ...], "classes": [...]}`, with
points as `[x, y, z]`. CSV: the columns `x0,y0,z0,x1,y1,z1,coordinates` instead of the voxels'. LPS
is the system of DICOM and ITK (x to the patient's left, y to the back), RAS that of NIfTI.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.label_map import coordinates
from samonai.domains.medical.prompts.boxes import content_of_case, means_case
from samonai.domains.medical.prompts.drawn import (
    SYSTEMS,
    Array,
    DrawnObject,
    box_corners,
    boxes_of_corners,
    to_voxels,
)
from samonai.domains.medical.volume import Volume
from samonai.prompts.values import PromptFile, PromptValues, prompt_content

COLUMNS = ("x0", "y0", "z0", "x1", "y1", "z1")
_KEYS = {"coordinates", "boxes", "points", "labels", "object", "classes"}


def in_millimetres(path: PromptFile) -> bool:
    """Return whether a file of boxes or points of our own states a coordinate system."""
    if isinstance(path, Path) and path.suffix.lower() == ".csv":
        return "coordinates" in _rows(path)[0]
    if isinstance(path, PromptValues) or path.suffix.lower() == ".json":
        content = prompt_content(path)
        cases = content.get("cases") if isinstance(content, dict) else None
        parts = list(cases.values()) if isinstance(cases, dict) else [content]
        return any(isinstance(part, dict) and "coordinates" in part for part in parts)
    return False


def objects_in_millimetres(
    path: PromptFile, volume: Volume, axis: int, only_case: bool
) -> list[DrawnObject]:
    """Return the objects of a file in mm.

    Args:
        path: The file, or its content.
        volume: The volume; its `source_id` selects the case in a file of several.
        axis: The array axis perpendicular to the slices.
        only_case: Whether the volume is the only case.

    Raises:
        InputError: The file has no prompts for the case, or one of them cannot be used.
    """
    content = _content(path, volume, only_case)
    if not isinstance(content, dict) or content.get("coordinates") not in SYSTEMS:
        raise InputError(f'{path}: expected "coordinates": "LPS" or "RAS" beside boxes in mm')
    if unknown := sorted(set(content) - _KEYS):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; expected {', '.join(sorted(_KEYS))}")
    system = content["coordinates"]
    boxes = _numbers(content, "boxes", 6, path)
    points = to_voxels(_numbers(content, "points", 3, path), system, volume)
    listed = content.get("classes")
    if listed is not None and not isinstance(listed, list if len(boxes) else dict):
        raise InputError(f"{path}: classes must be a list for boxes, an object for points alone")
    if isinstance(listed, list) and len(listed) != len(boxes):
        raise InputError(f"{path}: {len(boxes)} boxes but {len(listed)} classes; give one for each")
    objects: dict[Any, DrawnObject] = {}
    for number, row in enumerate(boxes):
        where = f"{path}: box {number + 1}"
        if (row[3:] <= row[:3]).any():
            raise InputError(f"{where} is empty; x1, y1, z1 must be above x0, y0, z0")
        corners = box_corners((row[:3] + row[3:]) / 2, np.eye(3), row[3:] - row[:3])
        parts = boxes_of_corners(to_voxels(corners, system, volume), volume, axis, where)
        objects[number] = DrawnObject(_text(listed[number] if listed else None), parts)
    labels = _each(content, "labels", len(points), 1, path)
    names = _each(content, "object", len(points), "" if len(boxes) else 0, path)
    if wrong := [label for label in labels if isinstance(label, bool) or label not in (0, 1)]:
        raise InputError(f"{path}: label {wrong[0]!r}; a point is 1 (inside) or 0 (outside)")
    for name in dict.fromkeys(names):
        own = [place for place, other in enumerate(names) if other == name]
        inside = points[[n for n in own if labels[n] == 1]]
        outside = points[[n for n in own if labels[n] == 0]]
        before = objects.get(name, DrawnObject(_class_of_points(listed, name)))
        objects[name] = DrawnObject(before.name, before.boxes, inside, outside)
    return list(objects.values())


def _content(path: PromptFile, volume: Volume, only_case: bool) -> Any:
    if isinstance(path, Path) and path.suffix.lower() == ".csv":
        return _csv_content(path, volume, only_case)
    return content_of_case(prompt_content(path), path, volume.source_id, only_case, key="boxes")


def _csv_content(path: Path, volume: Volume, only_case: bool) -> dict[str, Any]:
    header, rows = _rows(path)
    if missing := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{path}: no column {missing[0]}; expected {','.join(COLUMNS)}")
    if "case" in header:
        rows = [row for row in rows if means_case((row["case"] or "").strip(), volume.source_id)]
    elif not only_case:
        raise InputError(f"{path}: needs a case column, because there are several cases")
    if not rows:
        raise InputError(f"{path}: no row for case {volume.source_id}")
    systems = {(row["coordinates"] or "").strip() for row in rows}
    if len(systems) > 1:
        raise InputError(f"{path}: coordinates {', '.join(sorted(systems))} in one case; use one")
    return {
        "coordinates": systems.pop(),
        "boxes": [[_float(row[name]) for name in COLUMNS] for row in rows],
        "classes": [(row.get("class") or "").strip() or None for row in rows],
    }


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            return list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error})") from error


def _float(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text


def _numbers(content: Mapping[str, Any], key: str, width: int, path: PromptFile) -> Array:
    rows = content.get(key, [])
    found = [coordinates(row, width) for row in rows] if isinstance(rows, list) else [None]
    for number, row in enumerate(found, 1):
        if row is None:
            raise InputError(f"{path}: {key} {number}: expected {width} numbers in mm")
    return np.array(found, float).reshape(-1, width)


def _each(
    content: Mapping[str, Any], key: str, count: int, default: Any, path: PromptFile
) -> list[Any]:
    values = content.get(key, [default] * count)
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"{path}: {count} points need as many {key}")
    if not all(isinstance(value, str | int) for value in values):
        raise InputError(f"{path}: {key}: expected texts or whole numbers")
    return values


def _class_of_points(classes: Any, name: Any) -> str | None:
    return _text(classes.get(str(name))) if isinstance(classes, dict) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
