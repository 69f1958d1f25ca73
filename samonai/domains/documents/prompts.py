"""Prompts on a page: boxes, points and polygons in its pixels, from JSON, CSV or COCO."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import DrawnShape
from samonai.domains.annotations.read import drawn_names, shapes_of
from samonai.domains.class_naming import named_in_order
from samonai.domains.documents.page import Page
from samonai.domains.label_map import coordinates
from samonai.domains.tiling.tiles import TileGrid, Window
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile, PromptValues

PROMPT_ENDINGS = (".json", ".csv")

_LEAST_SHARE = 0.1
"""Least share of an object that a prompted piece shows, unless no piece shows more."""

_NO_BOX = (float("nan"),) * 4
_COLUMNS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Asked:
    """Prompts of one object.

    Attributes:
        value: Label value of its class.
        box: xyxy in pixels of the page, or None.
        points: (x, y, sign) in pixels of the page; sign 1 is inside, 0 outside.
    """

    value: int
    box: tuple[float, ...] | None = None
    points: tuple[tuple[float, float, int], ...] = ()


def read_prompts(
    page: Page,
    grid: TileGrid,
    path: PromptFile,
    class_names: Mapping[int, str] | None = None,
    only_case: bool = True,
) -> dict[int, FramePrompts]:
    """Read the prompts of a page.

    JSON: `{"boxes": [[x0, y0, x1, y1], …], "points": [[x, y], …], "labels": [1, 0, …], "object":
    ["a", "a", …], "polygons": [[x, y, x, y, …], …], "classes": […]}`, each part optional. `classes`
    has a name or value per box, then per object of the points in the order in which they appear
    (without `object` all points are for one), then per polygon, which prompts with the box around
    it. CSV: columns x0, y0, x1, y1 and, where needed, class and case. In pixels of the upright page
    (of a PDF as drawn at its dpi), upper ends exclusive. Exports of CVAT, Label Studio, LabelMe and
    napari, and COCO, are recognised by content; see `domains.annotations`.

    Args:
        page: The page.
        grid: Its pieces.
        path: The file, or the JSON values in its place.
        class_names: Label value to name.
        only_case: Whether a CSV row without a case is for this page.

    Returns:
        By piece; prompts of one object carry one id.

    Raises:
        InputError: The file cannot be read, or has no prompt for this page.
    """
    names = dict(class_names or {})
    shapes = shapes_of(path, [page.path.name, page.source_id], page.size, only_case=only_case)
    if shapes is not None:
        asked = [_of_shape(shape, str(path), names) for shape in shapes]
        return frame_prompts(page, grid, asked, str(path)) if asked else {}
    if isinstance(path, Path) and path.suffix.lower() == ".csv":
        asked = list(_from_csv(page, path, names, only_case))
    else:
        asked = list(from_content(_load(path), str(path), names))
    if not asked and only_case:
        raise InputError(f"{path} has no prompt for {page.source_id}")
    return frame_prompts(page, grid, asked, str(path))


def prompt_classes(paths: Sequence[PromptFile]) -> dict[int, str]:
    """Return label value to name of the classes that files of prompts name.

    Raises:
        InputError: A file cannot be read, or names some classes only.
    """
    given: list[Any] = []
    for path in paths:
        drawn = drawn_names(path)
        if drawn is not None:
            given += drawn
        elif isinstance(path, Path) and path.suffix.lower() == ".csv":
            given += [row.get("class") for row in _rows(path)]
        else:
            content = _load(path)
            classes = content.get("classes") if isinstance(content, dict) else None
            given += classes if isinstance(classes, list) else []
    where = paths[0] if len(paths) == 1 else "the prompts"
    return named_in_order(given, where)


def _of_shape(shape: DrawnShape, where: str, names: Mapping[int, str]) -> Asked:
    if shape.slice is not None:
        raise InputError(f"{where}: shapes on slices of a volume, but a page has none")
    value = class_value(shape.name, where, names)
    if shape.is_region:
        return Asked(value, shape.box)
    return Asked(value, points=tuple((x, y, 1) for x, y in shape.points.tolist()))


def from_content(content: Any, where: str, names: Mapping[int, str]) -> Iterator[Asked]:
    """Read prompts from the content of a JSON file, or from the same as Python values.

    Raises:
        InputError: The content is not an object with prompts.
    """
    known = {"boxes", "points", "labels", "object", "polygons", "classes"}
    if not isinstance(content, dict) or not set(content) & {"boxes", "points", "polygons"}:
        raise InputError(f"{where}: expected boxes, points or polygons as a JSON object")
    if unknown := sorted(set(content) - known):
        raise InputError(f"{where}: {unknown[0]!r} is not known; use {', '.join(sorted(known))}")
    boxes = _numbers(content, "boxes", 4, where)
    points = _numbers(content, "points", 2, where)
    polygons = [_polygon(points, where) for points in _listed(content, "polygons", where)]
    clicks = _clicks(content, points, where)
    count = len(boxes) + len(clicks) + len(polygons)
    classes = content.get("classes")
    if classes is not None and (not isinstance(classes, list) or len(classes) != count):
        raise InputError(f"{where}: {count} objects need as many classes")
    values = [class_value(c, where, names) for c in classes or [None] * count]
    for box in boxes.tolist():
        yield Asked(values.pop(0), tuple(box))
    for clicked in clicks:
        yield Asked(values.pop(0), points=clicked)
    for polygon in polygons:
        yield Asked(values.pop(0), (*polygon.min(0).tolist(), *polygon.max(0).tolist()))


def class_value(asked: Any, where: str, names: Mapping[int, str]) -> int:
    """Return the label value of a class by name or value; without one, the only class, or 1.

    Raises:
        InputError: The class is unknown.
    """
    if asked is None or asked == "":
        return next(iter(names)) if len(names) == 1 else 1
    for value, name in names.items():
        if str(asked).casefold() == name.casefold():
            return value
    try:
        value = int(asked)
    except (TypeError, ValueError):
        value = 0
    if value < 1 or (names and value not in names):
        raise InputError(f"{where}: class {asked!r} is not one of {', '.join(names.values())}")
    return value


def frame_prompts(
    page: Page, grid: TileGrid, asked: list[Asked], where: str
) -> dict[int, FramePrompts]:
    """Map objects to the pieces that show them, with one id per object.

    Raises:
        InputError: An object lies outside the page.
    """
    by_piece: dict[int, list[tuple[int, Asked]]] = defaultdict(list)
    for number, one in enumerate(asked, 1):
        pieces = list(_on_pieces(grid, one))
        if not pieces:
            height, width = page.size
            raise InputError(f"{where}: object {number} lies beside the page, {width} x {height}")
        for piece, moved in pieces:
            by_piece[piece].append((number, moved))
    return {piece: _joined(by_piece[piece]) for piece in sorted(by_piece)}


def _on_pieces(grid: TileGrid, one: Asked) -> Iterator[tuple[int, Asked]]:
    if one.box is None:
        yield from _points_on_pieces(grid, one)
        return
    height, width = grid.size
    box = np.clip(one.box, 0, [width, height] * 2)
    area = (box[2] - box[0]) * (box[3] - box[1])
    if area <= 0:
        return
    x0, y0 = np.floor(box[:2]).astype(int).tolist()
    x1, y1 = np.ceil(box[2:]).astype(int).tolist()
    parts = []
    for piece in grid.touching(Window(y0, x0, y1 - y0, x1 - x0)):
        window = grid.window(piece)
        part = box - [window.column, window.row] * 2
        cut = np.clip(part, 0, [window.width, window.height] * 2)
        share = (cut[2] - cut[0]) * (cut[3] - cut[1]) / area
        parts.append((piece, Asked(one.value, tuple(cut.tolist())), share))
    # Prompt the pieces with the whole object; without one, all pieces with a large part of it.
    least = 1 - 1e-9 if any(share >= 1 - 1e-9 for *_, share in parts) else _LEAST_SHARE
    least = min(least, max(share for *_, share in parts))
    yield from ((piece, moved) for piece, moved, share in parts if share >= least)


def _points_on_pieces(grid: TileGrid, one: Asked) -> Iterator[tuple[int, Asked]]:
    height, width = grid.size
    inside = [(x, y) for x, y, sign in one.points if sign == 1]
    if not all(0 <= x < width and 0 <= y < height for x, y in inside):
        return
    pieces = {piece for x, y in inside for piece in grid.touching(Window(int(y), int(x), 1, 1))}
    for piece in sorted(pieces):
        window = grid.window(piece)
        moved = [(x - window.column, y - window.row, sign) for x, y, sign in one.points]
        kept = [p for p in moved if 0 <= p[0] < window.width and 0 <= p[1] < window.height]
        yield piece, Asked(one.value, points=tuple(kept))


def _joined(asked: list[tuple[int, Asked]]) -> FramePrompts:
    boxes = np.array([one.box or _NO_BOX for _, one in asked], np.float32)
    classes = np.array([one.value for _, one in asked], np.int64)
    numbers = np.array([number for number, _ in asked], np.int64)
    most = max(len(one.points) for _, one in asked)
    if not most:
        return FramePrompts(boxes, classes, numbers)
    coordinates = np.zeros((len(asked), most, 2), np.float32)
    signs = np.full((len(asked), most), -1, np.int64)
    for row, (_, one) in enumerate(asked):
        for column, (x, y, sign) in enumerate(one.points):
            coordinates[row, column], signs[row, column] = (x, y), sign
    return FramePrompts(boxes, classes, numbers, coordinates, signs)


def _clicks(
    content: dict[str, Any], points: npt.NDArray[np.float64], where: str
) -> list[tuple[tuple[float, float, int], ...]]:
    signs = _listed(content, "labels", where) or [1] * len(points)
    objects = _listed(content, "object", where) or [0] * len(points)
    wrong = [sign for sign in signs if isinstance(sign, bool) or sign not in (0, 1)]
    if len(signs) != len(points) or len(objects) != len(points) or wrong:
        raise InputError(f"{where}: {len(points)} points need as many labels (1, 0) and objects")
    clicks: dict[str, list[tuple[float, float, int]]] = {}
    for (x, y), sign, name in zip(points.tolist(), signs, objects, strict=True):
        clicks.setdefault(str(name), []).append((x, y, int(sign)))
    if any(all(sign == 0 for *_, sign in clicked) for clicked in clicks.values()):
        raise InputError(f"{where}: an object needs a point inside (label 1)")
    return [tuple(clicked) for clicked in clicks.values()]


def _listed(content: dict[str, Any], name: str, where: str) -> list[Any]:
    given = content.get(name)
    if not isinstance(given, list | None):
        raise InputError(f"{where}: {name} must be a list, got {str(given)[:60]!r}")
    return given or []


def _numbers(content: dict[str, Any], name: str, width: int, where: str) -> npt.NDArray[np.float64]:
    rows = _listed(content, name, where)
    found = np.zeros((len(rows), width))
    for number, row in enumerate(rows):
        values = coordinates(row, width)
        if values is None:
            raise InputError(
                f"{where}: {name} must be lists of {width} numbers; number {number + 1} is "
                f"{str(row)[:60]}"
            )
        found[number] = values
    if width == 4 and (found[:, 2:] <= found[:, :2]).any():
        raise InputError(f"{where}: a box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
    return found


def _polygon(values: Any, where: str) -> npt.NDArray[np.float64]:
    found = coordinates(values)
    if found is None or len(found) < 6 or len(found) % 2:
        raise InputError(f"{where}: a polygon is [x, y, x, y, …] with three points or more")
    return found.reshape(-1, 2)


def _load(path: PromptFile) -> Any:
    if isinstance(path, PromptValues):
        return path
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


def _from_csv(page: Page, path: Path, names: Mapping[int, str], only_case: bool) -> Iterator[Asked]:
    for number, row in enumerate(_rows(path), 2):
        case = (row.get("case") or "").strip()
        if case not in ("", page.source_id) or (not case and not only_case):
            continue
        where = f"{path} line {number}"
        try:
            box = [[float(row[name]) for name in _COLUMNS]]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{where}: expected numbers in {', '.join(_COLUMNS)}") from None
        named = None if row.get("class") in (None, "") else [row["class"]]
        yield from from_content({"boxes": box, "classes": named}, where, names)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
