"""Box prompt files: JSON or CSV in voxel indices, cut into boxes on slices.

A box is `i0, j0, k0, i1, j1, k1` in voxel indices as nibabel and SimpleITK count them (i along x
or columns, j along y or rows, k along slices), upper ends exclusive. Fractions are fine: edges lie
between voxels, and every slice that a box touches gets it.

JSON: `{"boxes": [[i0, j0, k0, i1, j1, k1], ...], "classes": [name or value, ...]}`, where
`classes` may be left out; for several cases `{"cases": {case: {"boxes": ..., "classes": ...}}}`.
CSV: the columns `i0,j0,k0,i1,j1,k1`, and `class` and `case` where needed, in any order.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.pseudonyms import stands_for
from samonai.domains.label_map import coordinates
from samonai.domains.medical.formats.read_volume import strip_ending
from samonai.domains.medical.volume import Volume, format_shape
from samonai.prompts.values import PromptFile, PromptValues, prompt_content

COLUMNS = ("i0", "j0", "k0", "i1", "j1", "k1")
_JSON_KEYS = {"boxes", "classes"}
_LARGEST_CLASS = np.iinfo(np.uint16).max

SliceBoxes = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class VoxelBoxes:
    """Boxes in a volume, one object each.

    Attributes:
        boxes: float64 (N, 6), i0 j0 k0 i1 j1 k1 in voxel indices, upper ends exclusive.
        classes: int64 (N,), label value of each object.
    """

    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]


def read_boxes(
    path: PromptFile | str,
    volume: Volume,
    *,
    class_names: Mapping[int, str] | None = None,
    only_case: bool = True,
) -> VoxelBoxes:
    """Read the boxes of one volume.

    Args:
        path: A .json or .csv file, or the JSON values, as the module's docstring describes it.
        volume: The volume; its `source_id` selects the case in a file of several.
        class_names: Label value to name, for files that name classes. Boxes without a class get
            the only class, and 1 if there are several or none.
        only_case: Whether the volume is the only case; otherwise a file whose boxes
            have no case is refused.

    Raises:
        InputError: The file cannot be read as boxes, has none for this case, or one of them is
            empty, leaves the volume or has an unknown class.
    """
    path = Path(path) if isinstance(path, str) else path
    rows, classes = _rows_and_classes(path, volume.source_id, only_case)
    return boxes_from_rows(rows, classes, path, volume, dict(class_names or {}))


def _rows_and_classes(
    path: PromptFile, case_id: str, only_case: bool
) -> tuple[Sequence[Any], list[Any]]:
    if isinstance(path, PromptValues):
        return _read_json(path, case_id, only_case)
    if not path.is_file():
        raise InputError(f"{path}: no such file of boxes")
    if path.suffix.lower() == ".json":
        return _read_json(path, case_id, only_case)
    if path.suffix.lower() == ".csv":
        return _read_csv(path, case_id, only_case)
    raise InputError(f"{path}: boxes are read from .json or .csv files")


def boxes_from_rows(
    rows: Any, classes: list[Any] | None, path: PromptFile, volume: Volume, names: Mapping[int, str]
) -> VoxelBoxes:
    """Validate boxes.

    Args:
        rows: Six numbers each.
        classes: Name or value of each box's class; None: no class.
        path: The file, for messages.
        volume: Their volume.
        names: Label value to name.

    Raises:
        InputError: There are no boxes, or one of them is invalid.
    """
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: no boxes for case {volume.source_id}")
    classes = [None] * len(rows) if classes is None else classes
    if len(classes) != len(rows):
        raise InputError(
            f"{path}: {len(rows)} boxes but {len(classes)} classes; give one for each box"
        )
    boxes = np.array([_numbers(row, n, path) for n, row in enumerate(rows)])
    for number, box in enumerate(boxes):
        _check_box(box, number, volume, path)
    values = [class_value(wanted, names, path) for wanted in classes]
    return VoxelBoxes(boxes, np.array(values, np.int64))


def boxes_on_slices(boxes: VoxelBoxes, axis: int) -> dict[int, SliceBoxes]:
    """Cut boxes by the slices across an axis.

    Args:
        boxes: Boxes in a volume.
        axis: The array axis perpendicular to the slices.

    Returns:
        For each slice that a box touches: float32 (n, 4) xyxy in frame space, and the int64 (n,)
        classes. On slices across axis 2 x is i and y is j; across 1, i and k; across 0, j and k.
    """
    x, y = (a for a in range(3) if a != axis)
    on_slices: dict[int, tuple[list[Any], list[int]]] = {}
    for box, value in zip(boxes.boxes, boxes.classes.tolist(), strict=True):
        for index in range(int(np.floor(box[axis])), int(np.ceil(box[axis + 3]))):
            found, values = on_slices.setdefault(index, ([], []))
            found.append(box[[x, y, x + 3, y + 3]])
            values.append(value)
    return {
        index: (np.array(found, np.float32), np.array(values, np.int64))
        for index, (found, values) in sorted(on_slices.items())
    }


def content_of_case(
    content: Any, path: PromptFile, case_id: str, only_case: bool, *, key: str, else_: str = ""
) -> Any:
    """Return one case's content of a JSON file: its entry under `cases`, or all of it.

    Args:
        content: The file's content.
        path: The file, for messages.
        case_id: The case.
        only_case: Whether there is no other case, so that the file need not state its case.
        key: Name of the file's list: "boxes", "points".
        else_: End of the message on a file without a case: an alternative.

    Raises:
        InputError: The file has no entry for the case, or does not state its case.
    """
    if isinstance(content, dict) and isinstance(content.get("cases"), dict):
        named = next((name for name in content["cases"] if means_case(name, case_id)), None)
        if named is None:
            raise InputError(f"{path}: no {key} for case {case_id}")
        return content["cases"][named]
    if not only_case:
        raise InputError(
            f"{path}: does not say which of several cases its {key} belong to; write "
            f'{{"cases": {{"{case_id}": {{"{key}": [...]}}}}}}{else_}'
        )
    return content


def _read_json(path: PromptFile, case_id: str, only_case: bool) -> tuple[Sequence[Any], list[Any]]:
    content = content_of_case(
        prompt_content(path),
        path,
        case_id,
        only_case,
        key="boxes",
        else_=", or a CSV file with a case column",
    )
    if not isinstance(content, dict) or not isinstance(content.get("boxes"), list):
        raise InputError(f'{path}: expected {{"boxes": [[i0, j0, k0, i1, j1, k1], ...]}}')
    if unknown := sorted(set(content) - _JSON_KEYS):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; expected boxes and classes")
    boxes, classes = content["boxes"], content.get("classes")
    if classes is None:
        classes = [None] * len(boxes)
    if not isinstance(classes, list) or len(classes) != len(boxes):
        count = len(classes) if isinstance(classes, list) else "no list of"
        raise InputError(f"{path}: {len(boxes)} boxes but {count} classes; give one for each box")
    return boxes, classes


def _read_csv(path: Path, case_id: str, only_case: bool) -> tuple[Sequence[Any], list[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header, rows = list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error})") from error
    if missing := [name for name in COLUMNS if name not in header]:
        raise InputError(
            f"{path}: no column {missing[0]}; expected {','.join(COLUMNS)} and, where needed, "
            f"class and case"
        )
    if "case" in header:
        rows = [row for row in rows if means_case((row["case"] or "").strip(), case_id)]
        if not rows:
            raise InputError(f"{path}: no row for case {case_id}")
    elif not only_case:
        raise InputError(f"{path}: needs a case column, because there are several cases")
    return [[_number(row[name]) for name in COLUMNS] for row in rows], [
        (row.get("class") or "").strip() or None for row in rows
    ]


def _number(text: str | None) -> float | str | None:
    """Return a column's number, or its text for a later message."""
    try:
        return float(text or "")
    except ValueError:
        return text


def _numbers(row: Any, number: int, path: PromptFile) -> npt.NDArray[np.float64]:
    box = coordinates(row, 6)
    if box is None:
        raise InputError(
            f"{path}: box {number + 1} is {str(row)[:60]}; expected six numbers "
            f"i0, j0, k0, i1, j1, k1"
        )
    return box


def _check_box(box: npt.NDArray[np.float64], number: int, volume: Volume, path: PromptFile) -> None:
    lower, upper = box[:3], box[3:]
    shown = f"box {number + 1} [{', '.join(f'{value:g}' for value in box)}]"
    if (lower >= upper).any():
        raise InputError(f"{path}: {shown} is empty; i1, j1, k1 must be above i0, j0, k0")
    if (lower < 0).any() or (upper > np.array(volume.shape)).any():
        raise InputError(
            f"{path}: {shown} leaves the volume {volume.source_id} of "
            f"{format_shape(volume.shape)} voxels (i x j x k, upper ends exclusive)"
        )


def means_case(name: str, case_id: str) -> bool:
    """Return whether a name means a case: its own, with or without ending, or its pseudonym's."""
    return stands_for(name, case_id) or stands_for(strip_ending(name), case_id)


def _whole(text: str) -> int:
    """Return a whole number, also one that a table writes as 1.0; -1 for any other value."""
    try:
        number = float(text)
    except ValueError:
        return -1
    return int(number) if number.is_integer() else -1


def class_value(wanted: Any, names: Mapping[int, str], path: PromptFile) -> int:
    """Return the label value of a class given by name, by value, or not at all."""
    if wanted is None:
        return next(iter(names)) if len(names) == 1 else 1
    by_name = {name: value for value, name in names.items()}
    if isinstance(wanted, str) and wanted in by_name:
        return by_name[wanted]
    text = str(wanted)
    value = -1 if isinstance(wanted, bool) else _whole(text)
    if 0 < value <= _LARGEST_CLASS:
        return value
    known = ", ".join(by_name) if by_name else "none by name"
    raise InputError(
        f"{path}: class {text!r:.60} is not known; known are {known}; or give a whole number from 1"
    )
