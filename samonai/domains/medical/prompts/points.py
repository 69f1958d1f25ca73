"""Click files: JSON in voxel indices, mapped to slices.

`{"points": [[i, j, k], ...], "labels": [1, 0, ...], "object": [name, ...],
"classes": {name: class}}`, of which only `points` is required.

A point is `i, j, k` in voxel indices as in nibabel, SimpleITK, 3D Slicer's IJK and MONAI Label:
whole numbers are the centres of voxels. `labels` is 1 for a point inside and 0 for one
outside; without it all are inside. `object` is the object of each point, by any
text or whole number; without it there is one object. `classes` has the class of objects by name or
value; without it they get the only class, and 1 if there are several or none. For
several cases `{"cases": {case: {"points": ..., ...}}}`.

The same file can hold boxes: with `"boxes": [...]` (see `boxes`) an `object` that is a whole
number n is the object of box n, counted from 0, and has that box's class. A click prompts its own
slice, together with the box if the box touches that slice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.label_map import coordinates
from samonai.domains.medical.prompts.boxes import (
    VoxelBoxes,
    boxes_from_rows,
    class_value,
    content_of_case,
)
from samonai.domains.medical.volume import Volume, format_shape
from samonai.prompts.frame_prompts import NO_POINT, FramePrompts
from samonai.prompts.values import PromptFile, prompt_content

_KEYS = {"points", "labels", "object", "boxes", "classes"}
_NOWHERE = np.full(4, np.nan, np.float32)


@dataclass(frozen=True)
class VoxelPoints:
    """Clicks in a volume, with boxes.

    Attributes:
        points: float64 (P, 3), i j k in voxel indices, whole numbers at voxels' centres.
        labels: int64 (P,): 1 inside, 0 outside.
        objects: int64 (P,), number of the object of each point; the first ones are the boxes'.
        classes: int64 (M,), label value of each object.
        boxes: The boxes; object n has box n.
    """

    points: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    boxes: VoxelBoxes


def holds_points(path: PromptFile | str) -> bool:
    """Return whether a file is JSON with points in it, for any case."""
    path = Path(path) if isinstance(path, str) else path
    if isinstance(path, Path) and (path.suffix.lower() != ".json" or not path.is_file()):
        return False
    content = prompt_content(path)
    cases = content.get("cases") if isinstance(content, dict) else None
    parts = list(cases.values()) if isinstance(cases, dict) else [content]
    return any(isinstance(part, dict) and "points" in part for part in parts)


def read_points(
    path: PromptFile | str,
    volume: Volume,
    *,
    class_names: Mapping[int, str] | None = None,
    only_case: bool = True,
) -> VoxelPoints:
    """Read the clicks of one volume.

    Args:
        path: A .json file as the module's docstring describes it.
        volume: The volume; its `source_id` selects the case in a file of several.
        class_names: Label value to name, for files that name classes.
        only_case: Whether the volume is the only case; otherwise a file whose points
            have no case is refused.

    Raises:
        InputError: The file cannot be read as points, has none for this case, or one of them
            leaves the volume or belongs to an unknown class.
    """
    path, names = Path(path) if isinstance(path, str) else path, dict(class_names or {})
    content = _of_case(prompt_content(path), path, volume.source_id, only_case)
    rows = content["points"]
    boxes = VoxelBoxes(np.zeros((0, 6)), np.zeros(0, np.int64))
    if "boxes" in content:
        of_boxes = content.get("classes")
        listed = of_boxes if isinstance(of_boxes, list) else None
        boxes = boxes_from_rows(content["boxes"], listed, path, volume, names)
    points = np.array([_point(row, n, volume, path) for n, row in enumerate(rows)])
    labels = _each(content, "labels", [1] * len(rows), path)
    if wrong := [label for label in labels if isinstance(label, bool) or label not in (0, 1)]:
        raise InputError(f"{path}: label {wrong[0]!r}; a point is 1 (inside) or 0 (outside)")
    asked = _each(content, "object", [0] * len(rows), path)
    objects, named = _numbered(asked, len(boxes.classes), path)
    classes = content.get("classes")
    by_name = {str(k): v for k, v in classes.items()} if isinstance(classes, dict) else {}
    if unknown := sorted(set(by_name) - {str(name) for name in asked}):
        raise InputError(f"{path}: classes names object {unknown[0]!r}, which has no point")
    own = [class_value(by_name.get(str(name)), names, path) for name in named]
    values = np.concatenate([boxes.classes, np.array(own, np.int64)])
    return VoxelPoints(points.reshape(-1, 3), np.array(labels, np.int64), objects, values, boxes)


def prompts_on_slices(
    clicks: VoxelPoints, axis: int, path: PromptFile | str
) -> dict[int, FramePrompts]:
    """Map clicks, and the boxes of their objects, to the slices across an axis.

    Args:
        clicks: Clicks in a volume.
        axis: The array axis perpendicular to the slices.
        path: The file, for messages.

    Raises:
        InputError: An object has clicks outside it on a slice, but neither a click inside it nor
            a box there.
    """
    x, y = (a for a in range(3) if a != axis)
    slices = np.floor(clicks.points[:, axis] + 0.5).astype(int)
    asked: dict[int, dict[int, npt.NDArray[np.float32]]] = {}
    for number, box in enumerate(clicks.boxes.boxes):
        for index in range(int(np.floor(box[axis])), int(np.ceil(box[axis + 3]))):
            asked.setdefault(index, {})[number] = box[[x, y, x + 3, y + 3]].astype(np.float32)
    for index, number in zip(slices.tolist(), clicks.objects.tolist(), strict=True):
        asked.setdefault(index, {}).setdefault(number, _NOWHERE)
    prompts = {}
    for index, boxes in sorted(asked.items()):
        coords, labels = [], []
        for number, box in boxes.items():
            here = (slices == index) & (clicks.objects == number)
            if np.isnan(box).any() and not (clicks.labels[here] == 1).any():
                raise InputError(
                    f"{path}: slice {index} has only points outside an object; give it a point "
                    f"inside (label 1) on that slice, or a box"
                )
            coords.append(clicks.points[here][:, [x, y]] + 0.5)
            labels.append(clicks.labels[here])
        prompts[index] = _frame_prompts(boxes, coords, labels, clicks.classes)
    return prompts


def _frame_prompts(
    boxes: Mapping[int, npt.NDArray[np.float32]],
    coords: list[npt.NDArray[np.float64]],
    labels: list[npt.NDArray[np.int64]],
    classes: npt.NDArray[np.int64],
) -> FramePrompts:
    """Join the objects of a slice, padding their points to one number."""
    width = max(len(points) for points in labels)
    point_coords = np.zeros((len(labels), width, 2), np.float32)
    point_labels = np.full((len(labels), width), NO_POINT, np.int64)
    for row, (points, signs) in enumerate(zip(coords, labels, strict=True)):
        point_coords[row, : len(points)], point_labels[row, : len(signs)] = points, signs
    return FramePrompts(
        boxes=np.array(list(boxes.values()), np.float32),
        classes=classes[list(boxes)],
        point_coords=point_coords if width else None,
        point_labels=point_labels if width else None,
    )


def _of_case(content: Any, path: PromptFile, case_id: str, only_case: bool) -> dict[str, Any]:
    """Return one case's content of a file, its keys and list of points checked."""
    content = content_of_case(content, path, case_id, only_case, key="points")
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise InputError(f'{path}: expected {{"points": [[i, j, k], ...], "labels": [1, ...]}}')
    if unknown := sorted(set(content) - _KEYS):
        raise InputError(
            f"{path}: unknown key {unknown[0]!r}; expected points, labels, object, boxes, classes"
        )
    if not content["points"]:
        raise InputError(f"{path}: no points for case {case_id}")
    return content


def _each(content: Mapping[str, Any], key: str, default: list[Any], path: PromptFile) -> list[Any]:
    """Return a list with one entry for each point."""
    values = content.get(key, default)
    if not isinstance(values, list) or len(values) != len(default):
        count = len(values) if isinstance(values, list) else "no list of"
        raise InputError(
            f"{path}: {len(default)} points but {count} {key}; give one for each point"
        )
    return values


def _numbered(
    asked: list[Any], boxes: int, path: PromptFile
) -> tuple[npt.NDArray[np.int64], list[str | int]]:
    """Number the objects, those of boxes first; return their names."""
    named: dict[str | int, int] = {}
    numbers = []
    for name in asked:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"{path}: object {name!r:.60}; expected a text or a whole number")
        if isinstance(name, int) and 0 <= name < boxes:
            numbers.append(name)
        else:
            numbers.append(named.setdefault(name, boxes + len(named)))
    return np.array(numbers, np.int64), list(named)


def _point(row: Any, number: int, volume: Volume, path: PromptFile) -> npt.NDArray[np.float64]:
    """Return one point, checked to lie in the volume."""
    point = coordinates(row, 3)
    if point is None:
        raise InputError(
            f"{path}: point {number + 1} is {str(row)[:60]}; expected three numbers i, j, k"
        )
    if (point < -0.5).any() or (point >= np.array(volume.shape) - 0.5).any():
        raise InputError(
            f"{path}: point {number + 1} [{', '.join(f'{value:g}' for value in point)}] leaves the "
            f"volume {volume.source_id} of {format_shape(volume.shape)} voxels (i x j x k, the "
            f"first one 0)"
        )
    return point
