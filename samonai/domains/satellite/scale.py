"""At which scale rasters are seen: a pixel of the model is the same ground everywhere.

A decoder knows the sizes of what it was trained on in pixels of the model's image. So a raster that
is smaller than a tile is filled up instead of being enlarged, and what a training set was seen at
is measured and kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.geometry import LONG_SIDE
from samonai.domains.satellite.raster import Raster
from samonai.domains.tiling.tiles import LARGEST_TILE, TileGrid, Tiles, Window

_ALIKE = 1.05
"""Sides that differ by less than this factor are seen as one."""

_DIGITS = 3


def tile_near(tile: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return a tile's (H, W) in pixels; a raster that is hardly larger is one tile, not two."""
    height, width = (
        whole if side < whole <= min(side * _ALIKE, LARGEST_TILE) else side
        for side, whole in zip(tile, size, strict=True)
    )
    return height, width


def frame_size(grid: Tiles, part: Window) -> tuple[int, int]:
    """Return the (H, W) of the frame of a tile, whose longer side sets the scale."""
    wanted, longer = max(grid.tile), max(part.height, part.width)
    if wanted <= longer * _ALIKE:
        return part.height, part.width
    return (wanted, part.width) if part.height >= part.width else (part.height, wanted)


def filled_up(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return an array (H, W, …) with zeros below and at its right."""
    if values.shape[:2] == size:
        return values
    missing = [(0, side - own) for side, own in zip(size, values.shape, strict=False)]
    return np.pad(values, [*missing, *[(0, 0)] * (values.ndim - 2)])


def set_scale(
    sources: Sequence[Raster], grids: Sequence[TileGrid], resolution: float | None
) -> tuple[int, float | None]:
    """Return at which scale most tiles of a set are seen.

    Args:
        sources: The rasters.
        grids: Their tiles.
        resolution: Metres per pixel of the model where the settings say so, else None.

    Returns:
        Side of the model's image in pixels of a raster; and metres per pixel of the model, None
        where a raster does not tell.
    """
    counts = [len(grid) for grid in grids]
    if resolution is not None:
        return int(_typical([max(grid.tile) for grid in grids], counts)), resolution
    sides = [
        max(min(side, whole) for side, whole in zip(grid.tile, grid.size, strict=True))
        for grid in grids
    ]
    grounds = [source.ground for source in sources]
    metres = [
        side * min(ground) / LONG_SIDE
        for side, ground in zip(sides, grounds, strict=True)
        if ground is not None
    ]
    if len(metres) == len(sides):
        resolution = float(f"{_typical(metres, counts):.{_DIGITS}g}")
    return int(_typical(sides, counts)), resolution


def _typical(values: Sequence[float], counts: Sequence[int]) -> float:
    return float(np.percentile(np.repeat(values, counts), 50, method="higher"))
