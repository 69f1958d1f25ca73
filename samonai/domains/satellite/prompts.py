"""Vector prompts on the tiles of a raster: boxes, points and polygons in any CRS."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from samonai.core.errors import InputError
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
from samonai.prompts.values import PromptFile

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
    features = _features(path, raster, options, dict(class_names or {}))
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


def _features(
    path: PromptFile, raster: Raster, options: FeatureOptions, names: dict[int, str]
) -> Features:
    if options.class_field is None and read_coco(path) is None:
        field = _CLASS_COLUMN if _CLASS_COLUMN in load(path, options.any_driver).columns else None
        options = replace(options, class_field=field)
        if field is not None:
            column = set(class_texts(load(path, options.any_driver)[field])) - {""}
            texts = column - {str(value) for value in names}
            if texts & set(names.values()):
                ordered = tuple(names.get(n, "") for n in range(1, max(names) + 1))
                options = replace(options, classes=ordered)
            else:
                options = replace(options, classes=None)
        elif len(names) == 1:
            found = read_features(path, raster, replace(options, classes=None), widen=False)
            return replace(found, classes=np.full_like(found.classes, next(iter(names))))
    return read_features(path, raster, options, widen=False)
