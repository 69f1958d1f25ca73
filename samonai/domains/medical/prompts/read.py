"""Reading of a volume's prompts from any file, and of the classes that files name."""

import csv
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.annotations.read import ENDINGS, drawn_names, shapes_of
from samonai.domains.class_naming import joined_names, named_in_order
from samonai.domains.label_map import coordinates
from samonai.domains.medical.labels.named_maps import label_names
from samonai.domains.medical.labels.read_labels import find_structures
from samonai.domains.medical.labels.structures import class_names_of
from samonai.domains.medical.prompts.boxes import boxes_on_slices, class_value, read_boxes
from samonai.domains.medical.prompts.drawn import Array, DrawnObject, as_clicks
from samonai.domains.medical.prompts.millimetres import in_millimetres, objects_in_millimetres
from samonai.domains.medical.prompts.points import holds_points, prompts_on_slices, read_points
from samonai.domains.medical.prompts.slicer_markups import (
    is_markups,
    markup_names,
    markup_objects,
)
from samonai.domains.medical.prompts.sr_regions import is_report, report_names, report_objects
from samonai.domains.medical.volume import Volume, format_shape
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile, PromptValues, prompt_content


class PromptReading:
    """Files of prompts of a medical domain: which they are, their classes, and a first check.

    Attributes:
        structures: Label value by name, where given.
    """

    structures: dict[str, int]

    def holds_prompts(self, path: Path) -> bool:
        """Return whether a file holds prompts; others are coarse labels."""
        return holds_prompts(path)

    def prompt_classes(self, paths: Sequence[PromptFile]) -> dict[int, str]:
        """Return label value to name of the classes that prompts or coarse labels name."""
        return class_names_of(self.structures) or prompt_classes(paths)

    def with_classes(self, classes: Mapping[int, str]) -> Self:
        """Return a domain that gives the structures of coarse labels these label values."""
        other = copy(self)
        other.structures = {name: value for value, name in classes.items()}
        return other

    def check_prompts(self, path: Path, class_names: Mapping[int, str]) -> None:
        """Check rows and classes of a file of prompts, before a scan is read; see `check_file`."""
        check_file(path, class_names or class_names_of(self.structures))


def check_file(path: Path, class_names: Mapping[int, str]) -> None:
    """Check a file of prompts as far as that needs no scan: rows of numbers, known classes.

    Args:
        path: The file; a coarse label is left to its reader.
        class_names: Label value to name; empty: any name is taken.

    Raises:
        InputError: A row is malformed, or a class is unknown.
    """
    if not holds_prompts(path):
        return
    if not class_names:
        prompt_classes([path])
    else:
        for wanted in _names_in(path):
            class_value(wanted, class_names, path)
    own = path.suffix.lower() == ".json" and not is_markups(content := prompt_content(path))
    if own and drawn_names(path) is None:
        cases = content.get("cases") if isinstance(content, dict) else None
        for part in cases.values() if isinstance(cases, dict) else [content]:
            _check_rows(part, path)


def _check_rows(part: Any, path: Path) -> None:
    for key, width in (("boxes", 6), ("points", 3)):
        rows = part.get(key, []) if isinstance(part, dict) else None
        if not isinstance(rows, list) or (key == "boxes" and not {"boxes", "points"} & set(part)):
            raise InputError(f'{path}: expected {{"boxes": [[i0, j0, k0, i1, j1, k1], ...]}}')
        for number, row in enumerate(rows, 1):
            if coordinates(row, width) is None:
                raise InputError(
                    f"{path}: {'box' if width == 6 else 'point'} {number} is {str(row)[:60]}; "
                    f"expected {width} numbers"
                )


def holds_prompts(path: Path) -> bool:
    """Return whether a file holds boxes, clicks or drawn regions, and is not a label map."""
    return path.suffix.lower() in ENDINGS or is_report(path)


def read_prompts(
    path: PromptFile | str,
    volume: Volume,
    axis: int,
    class_names: Mapping[int, str] | None = None,
    only_case: bool = True,
) -> dict[int, FramePrompts]:
    """Read the prompts of a volume by slice.

    Args:
        path: A file of our own (see `boxes`, `points`, `millimetres`), markups of 3D Slicer, a
            DICOM SR, or an export of an annotation tool (see `domains.annotations`).
        volume: The volume.
        axis: The array axis perpendicular to the slices.
        class_names: Label value to name.
        only_case: Whether the volume is the only case; otherwise a file must state its case.

    Raises:
        InputError: The file cannot be read, or has no prompts for this volume.
    """
    path = Path(path) if isinstance(path, str) else path
    names = dict(class_names or {})
    objects = _drawn_objects(path, volume, axis, only_case)
    if objects is not None:
        return prompts_on_slices(as_clicks(objects, volume, axis, names, path), axis, path)
    if holds_points(path):
        clicks = read_points(path, volume, class_names=names, only_case=only_case)
        return prompts_on_slices(clicks, axis, path)
    boxes = read_boxes(path, volume, class_names=names, only_case=only_case)
    return {i: FramePrompts(*found) for i, found in boxes_on_slices(boxes, axis).items()}


def prompt_classes(paths: Sequence[PromptFile]) -> dict[int, str]:
    """Return label value to name of the classes that prompts or coarse labels name.

    Names of prompts are numbered in their order, structures of labels in alphabetical order. Label
    maps that name their values keep these.

    Raises:
        InputError: A file cannot be read, or names some classes only.
    """
    given: list[Any] = []
    structures: set[str] = set()
    maps: list[tuple[PromptFile, Mapping[int, str]]] = []
    for path in paths:
        if isinstance(path, PromptValues) or holds_prompts(path):
            given += _names_in(path)
        elif found := find_structures(path):
            structures |= {name for name, _ in found}
        else:
            maps.append((path, label_names(path)))
    where = paths[0] if len(paths) == 1 else "the prompts"
    named = named_in_order(given, where)
    numbered = dict(enumerate(sorted(structures), 1))
    kinds = [one for one in (named, numbered, joined_names(maps)) if one]
    if len(kinds) > 1 and any(one != kinds[0] for one in kinds):
        raise InputError(
            f"{where}: drawn prompts, structures and label maps with names of their own; give the "
            f"cases prompts of one kind"
        )
    return kinds[0] if kinds else {}


def _drawn_objects(
    path: PromptFile, volume: Volume, axis: int, only_case: bool
) -> list[DrawnObject] | None:
    """Return the objects of another tool's file, or of ours in mm; None for other files."""
    if isinstance(path, Path) and not path.is_file():
        return None
    is_markup = _is_json(path) and is_markups(prompt_content(path))
    is_sr = isinstance(path, Path) and is_report(path)
    if (is_markup or is_sr) and not only_case:
        raise InputError(
            f"{path}: does not say which of several cases it is for; give a folder with a file per "
            f"case"
        )
    if is_markup:
        return markup_objects(path, volume, axis)
    if is_sr:
        assert isinstance(path, Path)
        return report_objects(path, volume, axis)
    size = volume.shape[1], volume.shape[0]
    shapes = shapes_of(path, [volume.source_id], size, only_case=only_case)
    if shapes is None:
        if in_millimetres(path):
            return objects_in_millimetres(path, volume, axis, only_case)
        return None
    return [
        DrawnObject(shape.name, (_box(shape.box, place, volume, path),))
        if shape.is_region
        else DrawnObject(shape.name, points=_points(shape.points, place))
        for shape in shapes
        for place in [_slice_of(shape.slice, volume, axis, path)]
    ]


def _slice_of(number: int | None, volume: Volume, axis: int, path: PromptFile) -> int:
    """Return the slice of a shape that was drawn on a picture or on a stack of slices."""
    count = volume.shape[2]
    if axis != 2 and count > 1:
        raise InputError(f"{path}: drawn on slices across axis 2; leave out --set axis={axis}")
    if number is None and count > 1:
        raise InputError(
            f"{path}: drawn on a picture, but {volume.source_id} has {count} slices "
            f"({format_shape(volume.shape)} voxels); draw on the volume"
        )
    if not 0 <= (number or 0) < count:
        raise InputError(f"{path}: a shape on slice {number}; the volume has 0 to {count - 1}")
    return number or 0


def _box(
    box: tuple[float, float, float, float], place: int, volume: Volume, path: PromptFile
) -> Array:
    x0, y0, x1, y1 = box
    wide, high = volume.shape[:2]
    found = np.array([max(x0, 0), max(y0, 0), place, min(x1, wide), min(y1, high), place + 1])
    if (found[3:] <= found[:3]).any():
        raise InputError(f"{path}: a shape without area in the picture of {wide} x {high} pixels")
    return found


def _points(points: Array, place: int) -> Array:
    # Pixels' edges are whole numbers there, voxels' centres here.
    return np.column_stack([points - 0.5, np.full(len(points), float(place))])


def _names_in(path: PromptFile) -> list[Any]:
    """Return the class of each prompt in a file: a name, a label value, or None."""
    if isinstance(path, Path) and is_report(path):
        return report_names(path)
    if _is_json(path) and is_markups(content := prompt_content(path)):
        return markup_names(content, path)
    drawn = drawn_names(path)
    if drawn is not None:
        return drawn
    if isinstance(path, Path) and path.suffix.lower() == ".csv":
        return _csv_classes(path)
    content = prompt_content(path)
    cases = content.get("cases") if isinstance(content, dict) else None
    parts = list(cases.values()) if isinstance(cases, dict) else [content]
    return [value for part in parts if isinstance(part, dict) for value in _listed_classes(part)]


def _listed_classes(part: Mapping[str, Any]) -> list[Any]:
    classes = part.get("classes")
    if isinstance(classes, dict):
        named = {str(name) for name in part.get("object", [0])} if classes else set()
        missing = [None] * len(named - set(map(str, classes)))
        return [*classes.values(), *missing]
    return classes if isinstance(classes, list) else [None]


def _csv_classes(path: Path) -> list[Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row.get("class") for row in csv.DictReader(file, skipinitialspace=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error})") from error


def _is_json(path: PromptFile) -> bool:
    return isinstance(path, PromptValues) or path.suffix.lower() == ".json"
