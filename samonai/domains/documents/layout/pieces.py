"""Cutting of long pages into overlapping pieces of A4's shape; other pages are one piece."""

import math

from samonai.domains.tiling.tiles import LARGEST_TILE, TileGrid

_SHAPE = math.sqrt(2)
_SMALLEST = 16


def page_pieces(size: tuple[int, int], longest: float, overlap: float) -> TileGrid:
    """Return the pieces of a page.

    Args:
        size: (H, W) in pixels.
        longest: Largest ratio of the sides; a page with more is cut along its longer side.
        overlap: Overlap of neighbours, as a part of a piece.
    """
    short, long = sorted(size)
    side = max(math.ceil(short * _SHAPE), _SMALLEST) if long > longest * short else long
    tile = tuple(
        min(max(min(length, side) if length == long else length, _SMALLEST), LARGEST_TILE)
        for length in size
    )
    shared = tuple(
        math.floor(overlap * part) if length > part else 0
        for length, part in zip(size, tile, strict=True)
    )
    return TileGrid(size, (tile[0], tile[1]), (shared[0], shared[1]))
