"""Windows of a grid of pixels, and overlapping tiles that cover it."""

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError

LARGEST_TILE = 8192
"""Longest side of a tile in pixels, limited by the memory of one frame."""


@dataclass(frozen=True)
class Window:
    """A part of a grid in pixels: rows `row` to `row + height`, columns likewise."""

    row: int
    column: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """Return the first row below."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """Return the first column to the right."""
        return self.column + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the slices of the window in an array of the whole."""
        return slice(self.row, self.bottom), slice(self.column, self.right)

    @property
    def shown(self) -> tuple[slice, slice]:
        """Return the slices of the window in a frame that begins at its corner."""
        return slice(self.height), slice(self.width)

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """Return the slices of the window in an array of `outer`, which contains it."""
        row, column = self.row - outer.row, self.column - outer.column
        return slice(row, row + self.height), slice(column, column + self.width)

    def intersection(self, other: "Window") -> "Window | None":
        """Return the intersection of both windows, or None."""
        row, column = max(self.row, other.row), max(self.column, other.column)
        height = min(self.bottom, other.bottom) - row
        width = min(self.right, other.right) - column
        return Window(row, column, height, width) if height > 0 and width > 0 else None

    def union(self, other: "Window") -> "Window":
        """Return the smallest window that holds both."""
        row, column = min(self.row, other.row), min(self.column, other.column)
        bottom, right = max(self.bottom, other.bottom), max(self.right, other.right)
        return Window(row, column, bottom - row, right - column)

    def grown(self, margin: int) -> "Window":
        """Return the window with a margin on each side."""
        return Window(
            self.row - margin,
            self.column - margin,
            self.height + 2 * margin,
            self.width + 2 * margin,
        )


@dataclass(frozen=True)
class Tiles(ABC):
    """Tiles that show parts of a grid of pixels, numbered from top to bottom.

    All have one size; a grid smaller than a tile is one tile.

    Attributes:
        size: (H, W) of the grid in pixels.
        tile: (H, W) of a tile.
        overlap: Least number of rows and columns shared by neighbours.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    overlap: tuple[int, int]

    def __post_init__(self) -> None:
        """Check that the overlap leaves a step between tiles.

        Raises:
            InputError: A tile is too small or too large, or the overlap takes nearly all of it.
        """
        for side, overlap in zip(self.tile, self.overlap, strict=True):
            if not 16 <= side <= LARGEST_TILE:
                raise InputError(
                    f"tile: {side} pixels; expected 16 to {LARGEST_TILE}. Choose another tile or "
                    f"resolution, or resample the image"
                )
            if not 0 <= overlap <= side - side // 8:
                raise InputError(
                    f"overlap: {overlap} pixels of a tile's {side}; expected at most seven eighths"
                )

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of tiles."""

    @abstractmethod
    def window(self, index: int) -> Window:
        """Return the window of a tile; later tiles begin no higher up."""

    @abstractmethod
    def touching(self, part: Window) -> list[int]:
        """Return the numbers of the tiles that share a pixel with a window, ascending."""

    @property
    def shown(self) -> tuple[int, int]:
        """Return the (H, W) of the grid that a tile shows."""
        return min(self.tile[0], self.size[0]), min(self.tile[1], self.size[1])

    def weights(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return a tile's blending weights by row and column, float32 (H,) and (W,), in (0, 1].

        They rise smoothly over the overlap, and are 1 along the grid's own border. The product
        is the weight of a pixel.
        """
        window = self.window(index)
        return (
            _ramp(window.height, self.overlap[0], window.row > 0, window.bottom < self.size[0]),
            _ramp(window.width, self.overlap[1], window.column > 0, window.right < self.size[1]),
        )

    def merge(
        self, labels: Mapping[int, npt.NDArray[np.integer]], name: str
    ) -> npt.NDArray[np.int32]:
        """Put labels of tiles on the grid; where they overlap, the one of highest weight counts.

        Args:
            labels: Tile number to integer (h, w); pixels without a tile are background.
            name: Name of the grid's source, for the message.

        Returns:
            int32 (H, W).

        Raises:
            ValueError: A label has another size than its tile.
        """
        merged = np.zeros(self.size, np.int32)
        weight = np.zeros(self.size, np.float32)
        for index, label in labels.items():
            window = self.window(index)
            if label.shape != (window.height, window.width):
                raise ValueError(
                    f"tile {index} of {name}: label {label.shape}, expected "
                    f"{(window.height, window.width)}"
                )
            rows, columns = self.weights(index)
            own = rows[:, None] * columns
            wins = own > weight[window.slices]
            merged[window.slices][wins] = label[wins]
            weight[window.slices][wins] = own[wins]
        return merged


@dataclass(frozen=True)
class TileGrid(Tiles):
    """Overlapping tiles that cover a grid of pixels, row by row.

    Where the grid's side is no multiple, the last tiles are moved inwards instead of being cut.

    Attributes:
        offset: Rows and columns that the inner tiles are moved up and left by.
    """

    offset: tuple[int, int] = (0, 0)

    @cached_property
    def rows(self) -> list[int]:
        """Return the first row of each row of tiles."""
        return _starts(self.size[0], self.tile[0], self.overlap[0], self.offset[0])

    @cached_property
    def columns(self) -> list[int]:
        """Return the first column of each column of tiles."""
        return _starts(self.size[1], self.tile[1], self.overlap[1], self.offset[1])

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows) * len(self.columns)

    def window(self, index: int) -> Window:
        """Return the window of a tile."""
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index}: there are tiles 0 to {len(self) - 1}")
        row, column = divmod(index, len(self.columns))
        return Window(self.rows[row], self.columns[column], *self.shown)

    def touching(self, part: Window) -> list[int]:
        """Return the numbers of the tiles that share a pixel with a window, ascending."""
        height, width = self.shown
        rows = [n for n, r in enumerate(self.rows) if r < part.bottom and r + height > part.row]
        columns = [
            n for n, c in enumerate(self.columns) if c < part.right and c + width > part.column
        ]
        return [row * len(self.columns) + column for row in rows for column in columns]


@dataclass(frozen=True)
class PlacedTiles(Tiles):
    """Tiles at given places, which need not cover the grid.

    Attributes:
        windows: Window of each, from top to bottom.
    """

    windows: tuple[Window, ...] = ()

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.windows)

    def window(self, index: int) -> Window:
        """Return the window of a tile."""
        return self.windows[index]

    def touching(self, part: Window) -> list[int]:
        """Return the numbers of the tiles that share a pixel with a window, ascending."""
        height, _ = self.shown
        first = bisect_right(self.windows, part.row - height, key=lambda window: window.row)
        last = bisect_left(self.windows, part.bottom, key=lambda window: window.row)
        return [n for n in range(first, last) if self.windows[n].intersection(part) is not None]


def _starts(size: int, tile: int, overlap: int, offset: int) -> list[int]:
    if size <= tile:
        return [0]
    step = tile - overlap
    inner = range(step - offset % step, size - tile, step)
    return [0, *(start for start in inner if start > 0), size - tile]


def _ramp(length: int, overlap: int, first: bool, last: bool) -> npt.NDArray[np.float32]:
    weights = np.ones(length, np.float32)
    span = min(max(overlap, 1), length)
    rise = np.sin(np.pi / 2 * (np.arange(span) + 0.5) / span) ** 2
    if first:
        weights[:span] *= rise.astype(np.float32)
    if last:
        weights[-span:] *= rise[::-1].astype(np.float32)
    return weights
