"""Tile placement around prompts, so that results do not depend on a grid's borders.

On a grid an object lies now in the middle of a tile and now beside its border, and a model's output
for it changes with that, even without seams. Here objects that fit into a tile together, with a
margin, are prompted on one tile, centred on them; or each on one of its own. The placement depends
on the prompts alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from samonai.domains.satellite.prompts import parts_on
from samonai.domains.tiling.tiles import PlacedTiles, TileGrid, Tiles, Window
from samonai.prompts.frame_prompts import NO_POINT, FramePrompts, joined_frame_prompts
from samonai.settings.choices import PLACINGS

PROMPTS, OBJECTS, GRID = PLACINGS

_CLEAR = 1 / 8
"""Margin of a tile without prompts, as a share of its side."""

_WHOLE = 0.75
"""Share of an object's union box over all tiles from which one box is the object's own: boxes
drawn anew on every tile, each a little larger or smaller, must not grow the object."""


def place(
    prompts: Mapping[int, FramePrompts], grid: Tiles, *, alone: bool = False
) -> tuple[tuple[Window, ...], dict[int, FramePrompts]] | None:
    """Place tiles around objects.

    Args:
        prompts: By tile of the grid.
        grid: Its tiles, whose size the new ones have.
        alone: Each object has a tile to itself, else those that fit share one.

    Returns:
        The windows of the tiles, from top to bottom, and the prompts by tile, in which each object
        has one prompt, except those larger than a tile. None if prompts are for classes instead of
        objects.
    """
    if not prompts or any(found.object_ids is None for found in prompts.values()):
        return None
    objects = _objects(prompts, grid)
    extents = _extents(objects)
    parts: dict[Window, list[FramePrompts]] = {}
    share = 0 if alone else 1 - 2 * _CLEAR
    clear = (round(grid.shown[0] * share), round(grid.shown[1] * share))
    for group in _groups(extents, clear):
        tiles = _around(_union(extents[group]), grid)
        for number in group:
            for tile, asked in _on(tiles, objects[np.array([number])]):
                parts.setdefault(tiles.window(tile), []).append(asked)
    windows = tuple(sorted(parts, key=lambda window: (window.row, window.column)))
    return windows, {
        tile: joined_frame_prompts(parts[window]) for tile, window in enumerate(windows)
    }


def _objects(prompts: Mapping[int, FramePrompts], grid: Tiles) -> FramePrompts:
    """Return one prompt for each object, in pixels of the raster.

    It is the largest that no tile's border cuts, or a box around the object on all tiles; of points
    without a box, the one nearest to the middle of its tile.
    """
    placed, cut, central = [], [], []
    for tile, found in prompts.items():
        window, extents = grid.window(tile), _extents(found)
        placed.append(found.moved(window.column, window.row))
        cut.append(_cut(extents, window, grid.size))
        middle = np.array([window.width, window.height]) / 2
        central.append(np.abs((extents[:, :2] + extents[:, 2:]) / 2 - middle).max(1))
    every, is_cut, off_centre = (
        joined_frame_prompts(placed),
        np.concatenate(cut),
        np.concatenate(central),
    )
    assert every.object_ids is not None
    areas = np.nan_to_num(np.prod(every.boxes[:, 2:] - every.boxes[:, :2], axis=1))
    order = np.lexsort((off_centre, -areas, is_cut, every.object_ids))
    _, starts = np.unique(every.object_ids[order], return_index=True)
    boxes = every.boxes.copy()
    for rows in np.split(order, starts[1:]):
        whole = _union(every.boxes[rows])
        if is_cut[rows[0]] or areas[rows[0]] < _WHOLE * np.prod(whole[2:] - whole[:2]):
            boxes[rows[0]] = whole
    return replace(every, boxes=boxes)[order[starts]]


def _cut(
    extents: npt.NDArray[np.float32], window: Window, size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return which boxes on a tile reach an inner border of the tile, bool (N,)."""
    x0, y0, x1, y1 = extents.T
    return (
        ((x0 <= 0) & (window.column > 0))
        | ((y0 <= 0) & (window.row > 0))
        | ((x1 >= window.width) & (window.right < size[1]))
        | ((y1 >= window.height) & (window.bottom < size[0]))
    )


def _extents(prompts: FramePrompts) -> npt.NDArray[np.float32]:
    """Return the extent that each prompt's tile must show, float32 (N, 4): its box or points."""
    if prompts.point_coords is None or prompts.point_labels is None:
        return prompts.boxes
    there = (prompts.point_labels != NO_POINT)[..., None]
    low = np.where(there, prompts.point_coords, np.inf).min(1)
    high = np.where(there, prompts.point_coords, -np.inf).max(1)
    return np.where(np.isnan(prompts.boxes), np.concatenate([low, high], 1), prompts.boxes)


def _groups(extents: npt.NDArray[np.float32], clear: tuple[int, int]) -> list[npt.NDArray[np.intp]]:
    """Divide objects into groups that fit into `clear` rows and columns; a larger one is alone.

    The topmost object without a group takes the nearest ones, as far as they fit.
    """
    middles = (extents[:, :2] + extents[:, 2:]) / 2
    order = np.lexsort((middles[:, 0], middles[:, 1]))
    heights = middles[order, 1]
    free = np.ones(len(order), bool)
    groups = []
    for first, seed in enumerate(order):
        if not free[first]:
            continue
        # All objects further up have a group.
        last = np.searchsorted(heights, heights[first] + clear[0], "right")
        near = first + np.flatnonzero(free[first:last])
        distance = np.abs(middles[order[near]] - middles[seed]).max(1)
        group, union = [first], extents[seed]
        for other in near[np.argsort(distance, kind="stable")]:
            more = _union(np.stack([union, extents[order[other]]]))
            if other != first and more[3] - more[1] <= clear[0] and more[2] - more[0] <= clear[1]:
                group.append(int(other))
                union = more
        free[group] = False
        groups.append(order[group])
    return groups


def _around(extent: npt.NDArray[np.float32], grid: Tiles) -> PlacedTiles:
    """Return the tile centred on an extent, or tiles that cover it."""
    spans = []
    for low, high, tile, whole in zip(
        (extent[1], extent[0]), (extent[3], extent[2]), grid.shown, grid.size, strict=True
    ):
        length = min(max(tile, int(np.ceil(high - low))), whole)
        start = round(float(low + high - length) / 2)
        spans.append((min(max(start, 0), whole - length), length))
    (row, height), (column, width) = spans
    cover = TileGrid((height, width), grid.tile, grid.overlap)
    windows = [cover.window(tile) for tile in range(len(cover))]
    moved = tuple(Window(w.row + row, w.column + column, w.height, w.width) for w in windows)
    return PlacedTiles(grid.size, grid.tile, grid.overlap, moved)


def _on(tiles: PlacedTiles, one: FramePrompts) -> list[tuple[int, FramePrompts]]:
    """Return the prompt of one object on its tiles."""
    if np.isnan(one.boxes).any():
        window = tiles.window(0)
        return [(0, one.moved(-window.column, -window.row))]
    asked = []
    for tile, part in parts_on(tiles, one.boxes[0]):
        window = tiles.window(tile)
        moved = one.moved(-window.column, -window.row)
        asked.append((tile, replace(moved, boxes=np.array([part], np.float32))))
    return asked


def _union(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the smallest box that contains all, float32 (4,)."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
