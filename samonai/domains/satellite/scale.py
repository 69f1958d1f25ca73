"""Ground scale of tiles: a pixel of the model's image has the same ground size in all rasters.

A decoder is trained for sizes in pixels of the model's image. So a raster that
is smaller than a tile is padded instead of being enlarged, and the scale of a training set
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
"""Ratio of sides below which two scales are treated as equal."""

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
    """Return an array (H, W, …) padded with zeros below and at its right."""
    if values.shape[:2] == size:
        return values
    missing = [(0, side - own) for side, own in zip(size, values.shape, strict=False)]
    return np.pad(values, [*missing, *[(0, 0)] * (values.ndim - 2)])


def set_scale(
    sources: Sequence[Raster], grids: Sequence[TileGrid], resolution: float | None
) -> tuple[int, float | None]:
    """Return the scale of most tiles of a set.

    Args:
        sources: The rasters.
        grids: Their tiles.
        resolution: Metres per pixel of the model from the settings, else None.

    Returns:
        Side of the model's image in pixels of a raster; and metres per pixel of the model, None
        if a raster has no ground size.
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
