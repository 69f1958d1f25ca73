"""Vector prompts on the tiles of a raster: boxes, points and polygons in any CRS."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import DrawnShape
from samonai.domains.annotations.read import drawn_names, shapes_of
from samonai.domains.class_naming import is_class_number, joined_names, named_in_order
from samonai.domains.satellite.access import VECTOR_ENDINGS
from samonai.domains.satellite.class_column import class_texts
from samonai.domains.satellite.coco_features import read_coco
from samonai.domains.satellite.features import (
    FeatureOptions,
    Features,
    load,
    read_features,
)
from samonai.domains.satellite.raster import Raster
from samonai.domains.tiling.tiles import Tiles, Window
from samonai.prompts.frame_prompts import NO_POINT, FramePrompts
from samonai.prompts.values import PromptFile, PromptValues

_CLASS_COLUMN = "class"
_LEAST_SHARE = 0.1
"""Least share of an object that a prompted tile shows, unless no tile shows more."""

_NONE = (float("nan"),) * 4


@dataclass(frozen=True)
class _Asked:
    """A prompt on one tile: its object, its box or its points in the tile's pixels."""

    number: int
    value: int
    box: tuple[float, ...] = _NONE
    points: tuple[tuple[float, float], ...] = ()


def read_prompts(
    path: PromptFile,
    raster: Raster,
    grid: Tiles,
    options: FeatureOptions,
    *,
    class_names: Mapping[int, str] | None = None,
    only_case: bool = True,
    every: bool = False,
) -> dict[int, FramePrompts]:
    """Convert features into prompts of the tiles that show them.

    A point prompts the object under it, several points of one feature (MultiPoint) the one object
    under them, any other geometry prompts with its bounding box. An object is
    prompted on the tiles that contain its whole box; without one, on all that contain a large part
    of it, with the box cut at the tile's border. All prompts of a feature have one id.

    Args:
        path: The vector file, or the content of a GeoJSON or COCO file.
        raster: The raster.
        grid: Its tiles.
        options: How vector files are read. Without a class field, a column "class" counts.
        class_names: Label value to name, for columns that hold names.
        only_case: Whether the raster is the only one predicted; if so, the file must have a feature
            on it.
        every: Boxes that no tile contains are prompted on all tiles that show any part of them,
            which together give their position.

    Returns:
        By tile.

    Raises:
        InputError: The file cannot be read, or has no feature on this raster.
    """
    features = _features(path, raster, options, dict(class_names or {}), only_case)
    shift = np.array([raster.window.column, raster.window.row] * 2, float)
    bounds = shapely.bounds(features.geometries).reshape(-1, 4) - shift
    height, width = raster.size
    asked: dict[int, list[_Asked]] = defaultdict(list)
    for number, (box, value) in enumerate(
        zip(bounds, features.classes.tolist(), strict=True), start=1
    ):
        x0, y0, x1, y1 = box.tolist()
        if x1 < 0 or y1 < 0 or x0 >= width or y0 >= height:
            continue
        geometry = features.geometries[number - 1]
        if geometry.geom_type in ("Point", "MultiPoint"):
            for tile, points in _points_on(grid, shapely.get_coordinates(geometry) - shift[:2]):
                asked[tile].append(_Asked(number, value, points=points))
        else:
            for tile, part in parts_on(grid, np.clip(box, 0, [width, height] * 2), every):
                asked[tile].append(_Asked(number, value, box=part))
    if not asked and only_case:
        raise InputError(f"{path} has nothing on {raster.path}; is its CRS right?")
    return {tile: _frame_prompts(asked[tile]) for tile in sorted(asked)}


def parts_on(
    grid: Tiles, box: npt.NDArray[np.floating], every: bool = False
) -> list[tuple[int, tuple[float, ...]]]:
    """Return the tiles prompted with a box, and their part of it in their own pixels.

    Args:
        grid: The tiles.
        box: float (4,), xyxy in the raster's pixels.
        every: Include tiles with any part of the box.
    """
    x0, y0, x1, y1 = box.tolist()
    reach = Window(
        int(y0), int(x0), max(int(np.ceil(y1)) - int(y0), 1), max(int(np.ceil(x1)) - int(x0), 1)
    )
    parts = []
    for tile in grid.touching(reach):
        window = grid.window(tile)
        shift = np.array([window.column, window.row] * 2)
        part = np.clip(box - shift, 0, [window.width, window.height] * 2)
        area = (part[2] - part[0]) * (part[3] - part[1])
        whole = np.array_equal(part, box - shift)
        parts.append((tile, tuple(part.tolist()), whole, area))
    wholes = [(tile, part) for tile, part, whole, _ in parts if whole]
    if wholes:
        return wholes
    if every:
        return [(tile, part) for tile, part, *_ in parts]
    least = min(_LEAST_SHARE * (x1 - x0) * (y1 - y0), max(area for *_, area in parts))
    return [(tile, part) for tile, part, _, area in parts if area >= least]


def _frame_prompts(asked: list[_Asked]) -> FramePrompts:
    boxes = np.array([one.box for one in asked], np.float32)
    classes = np.array([one.value for one in asked], np.int64)
    numbers = np.array([one.number for one in asked], np.int64)
    most = max(len(one.points) for one in asked)
    if not most:
        return FramePrompts(boxes, classes, numbers)
    points = np.zeros((len(asked), most, 2), np.float32)
    signs = np.full((len(asked), most), NO_POINT, np.int64)
    for row, one in enumerate(asked):
        points[row, : len(one.points)] = one.points or np.zeros((0, 2))
        signs[row, : len(one.points)] = 1
    return FramePrompts(boxes, classes, numbers, points, signs)


def _points_on(
    grid: Tiles, points: npt.NDArray[np.float64]
) -> list[tuple[int, tuple[tuple[float, float], ...]]]:
    """Return the tiles that show points, and these points in the tiles' own pixels.

    Args:
        grid: The tiles.
        points: float64 (N, 2), (x, y) in the raster's pixels; those outside it are left out.
    """
    height, width = grid.size
    shown: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for x, y in points.tolist():
        if 0 <= x < width and 0 <= y < height:
            for tile in grid.touching(Window(int(y), int(x), 1, 1)):
                window = grid.window(tile)
                shown[tile].append((x - window.column, y - window.row))
    return [(tile, tuple(found)) for tile, found in shown.items()]


def prompt_classes(paths: Sequence[PromptFile], options: FeatureOptions) -> dict[int, str]:
    """Return label value to name of the classes that files of prompts name.

    COCO keeps its category ids; the names of a column are numbered in their order, over all files.

    Args:
        paths: Vector files, COCO, or exports of annotation tools.
        options: How vector files are read.

    Raises:
        InputError: A file cannot be read, or names some classes only.
    """
    given: list[Any] = []
    coco: list[tuple[PromptFile, Mapping[int, str]]] = []
    for path in paths:
        content = read_coco(path)
        if content is not None:
            coco.append((path, content.names))
        elif (drawn := drawn_names(path)) is not None:
            given += drawn
        elif isinstance(path, PromptValues) or path.suffix.lower() in VECTOR_ENDINGS:
            table = load(path, options.any_driver)
            field = options.class_field or _CLASS_COLUMN
            given += class_texts(table[field]) if field in table.columns else [None] * len(table)
    names = named_in_order(given, paths[0] if len(paths) == 1 else "the prompts")
    return joined_names([*coco, *([("the prompts", names)] if names else [])])


def _features(
    path: PromptFile,
    raster: Raster,
    options: FeatureOptions,
    names: dict[int, str],
    only_case: bool = True,
) -> Features:
    """Return the features of a file; those of an annotation tool are in pixels of the file."""
    if read_coco(path) is not None:
        return read_features(path, raster, options, widen=False)
    shapes = shapes_of(
        path, [raster.path.name, raster.source_id], raster.file_size, only_case=only_case
    )
    if shapes is not None:
        values = [_class_value(shape.name, names, path) for shape in shapes]
        drawn = [_geometry(shape, path) for shape in shapes]
        return Features(np.array(drawn, object), np.array(values, np.int64))
    if options.class_field is not None:
        if names and options.classes is None:
            options = replace(options, classes=_in_order(names))
        return read_features(path, raster, options, widen=False)
    table = load(path, options.any_driver)
    if _CLASS_COLUMN not in table.columns:
        if len(names) != 1:
            return read_features(path, raster, options, widen=False)
        found = read_features(path, raster, replace(options, classes=None), widen=False)
        return replace(found, classes=np.full_like(found.classes, next(iter(names))))
    texts = set(class_texts(table[_CLASS_COLUMN])) - {"", *map(str, names)}
    known = _in_order(names) if texts & set(names.values()) else None
    other = sorted(text for text in texts if not is_class_number(text))
    if names and other and known is None:
        raise InputError(
            f"{path}: column {_CLASS_COLUMN!r} holds {other[0]!r:.60}, which is none of the "
            f"classes known here ({', '.join(names.values())}); rename it in the file"
        )
    options = replace(options, class_field=_CLASS_COLUMN, classes=known)
    return read_features(path, raster, options, widen=False)


def _in_order(names: Mapping[int, str]) -> tuple[str, ...]:
    """Return the names of the classes 1, 2, …, "" for a label value without one."""
    return tuple(names.get(value, "") for value in range(1, max(names) + 1))


def _class_value(name: str | None, names: Mapping[int, str], path: PromptFile) -> int:
    """Return the label value of a shape's class.

    Raises:
        InputError: The class is unknown.
    """
    if name is None:
        return next(iter(names)) if len(names) == 1 else 1
    for value, known in names.items():
        if known == name:
            return value
    if is_class_number(name):
        return int(float(name))
    raise InputError(f"{path}: class {name!r:.60} is none of {', '.join(names.values())}")


def _geometry(shape: DrawnShape, path: PromptFile) -> Any:
    """Return a shape as a geometry in pixels.

    Raises:
        InputError: The shape is on a slice of a volume.
    """
    if shape.slice is not None:
        raise InputError(f"{path}: shapes on slices of a volume, but a raster has none")
    # A region prompts with the box around it.
    return shapely.box(*shape.box) if shape.is_region else shapely.MultiPoint(shape.points)
