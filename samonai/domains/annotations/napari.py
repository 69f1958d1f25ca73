"""napari: CSV of a shapes or points layer, in pixel indices of the layer's data.

The axes are the array's, as napari counts them: row and column, or slice, row and column; whole
numbers are the centres of pixels. A layer without classes prompts objects without a name.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import DrawnImage, DrawnShape, Points, number

_SHAPES = {"index", "shape-type", "vertex-index", "axis-0", "axis-1"}
_POINTS = {"index", "axis-0", "axis-1"}
_REGIONS = ("rectangle", "polygon", "ellipse")
_NAMES = ("class", "label")
_ONE_SLICE = 0.01


def is_napari(path: Path) -> bool:
    """Return whether a file is a CSV of a layer of shapes or points."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = set(next(csv.reader(file), []))
    except (UnicodeDecodeError, csv.Error):
        return False
    return header >= _SHAPES or (header >= _POINTS and "shape-type" not in header)


def napari_images(path: Path) -> list[DrawnImage]:
    """Return the layer's shapes or points, on a picture without a name.

    Raises:
        InputError: A row cannot be read, a shape lies across slices, or the layer has more axes
            than a volume.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    axes = [name for name in (rows[0] if rows else {}) if name.startswith("axis-")]
    if len(axes) not in (2, 3):
        raise InputError(f"{path}: {len(axes)} axes; expected rows and columns, or slices too")
    drawn: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        drawn[row["index"]].append(row)
    shapes, left_out = [], []
    for index, vertices in drawn.items():
        where = f"{path}: shape {index}"
        values = np.array([[number(row[axis], where) for axis in axes] for row in vertices])
        kind = vertices[0].get("shape-type")
        name = next((vertices[0][key] for key in _NAMES if vertices[0].get(key)), None)
        if kind is not None and kind not in _REGIONS:
            left_out.append(kind)
            continue
        shapes.append(DrawnShape(name, _points(values), kind is not None, _slice(values, where)))
    return [DrawnImage(None, None, tuple(shapes), tuple(left_out))]


def _points(values: Points) -> Points:
    """Return (x, y) with edges at whole numbers, of rows and columns at pixels' centres."""
    found: Points = values[:, [-1, -2]] + 0.5
    return found


def _slice(values: Points, where: str) -> int | None:
    if values.shape[1] == 2:
        return None
    if np.ptp(values[:, 0]) > _ONE_SLICE:
        raise InputError(
            f"{where} lies across slices {values[:, 0].min():g} to {values[:, 0].max():g} of its "
            f"first axis; draw it with the slices as the first axis, on one of them"
        )
    return int(np.floor(values[0, 0] + 0.5))
