"""Blending of class scores of overlapping tiles, with only the open rows in memory."""

import numpy as np
import numpy.typing as npt

from samonai.domains.tiling.tiles import Tiles, Window


class ClassLayers:
    """Weighted sums of each class's scores over the rows not yet written.

    Classes of the same tiles share their sum of weights, since each sum of a wide raster is
    large.

    Args:
        grid: The tiles.
    """

    def __init__(self, grid: Tiles) -> None:
        """Start without classes."""
        self._grid = grid
        self._top = 0
        self._sums: dict[int, npt.NDArray[np.float32]] = {}
        self._weights: dict[frozenset[int], npt.NDArray[np.float32]] = {}

    def add(
        self, tile: int, scores: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]
    ) -> None:
        """Add a tile; several scores of one class count as their highest.

        Args:
            tile: The tile's number.
            scores: float32 (N, H, W).
            classes: int64 (N,).
        """
        window = self._grid.window(tile)
        rows, columns = self._grid.weights(tile)
        weight = rows[:, None] * columns
        part = slice(window.row - self._top, window.bottom - self._top), window.slices[1]
        values = np.unique(classes).tolist()
        self._make_room(window.bottom, values)
        for value in values:
            self._sums[value][part] += weight * scores[classes == value].max(0)
        for of in self._weights:
            if of <= set(values):
                self._weights[of][part] += weight

    def take(self, strip: Window) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Remove the topmost rows; return their class and score, int32 and float32 (H, W)."""
        assert strip.row == self._top
        self._make_room(strip.bottom, [])
        best = np.zeros((strip.height, strip.width), np.float32)
        label = np.zeros((strip.height, strip.width), np.int32)
        weights = {value: weight for of, weight in self._weights.items() for value in of}
        for value in sorted(self._sums):
            total, weight = (sums[: strip.height] for sums in (self._sums[value], weights[value]))
            score = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
            wins = score > best
            best[wins], label[wins] = score[wins], value
        # Copies, so that the memory of the rows above is freed.
        self._sums = {k: sums[strip.height :].copy() for k, sums in self._sums.items()}
        self._weights = {k: sums[strip.height :].copy() for k, sums in self._weights.items()}
        self._top = strip.bottom
        return label, best

    def _make_room(self, bottom: int, values: list[int]) -> None:
        """Extend all sums down to a row, with weights of their own for new classes."""
        rows, width = bottom - self._top, self._grid.size[1]
        new = frozenset(values).difference(self._sums)
        self._sums |= {value: np.zeros((0, width), np.float32) for value in new}
        if new:
            self._weights[new] = np.zeros((0, width), np.float32)
        for of in [of for of in self._weights if frozenset() < of & set(values) < of]:
            weight = self._weights.pop(of)
            self._weights[of & set(values)], self._weights[of - set(values)] = weight, weight.copy()
        self._sums = {k: _with_rows(sums, rows) for k, sums in self._sums.items()}
        self._weights = {k: _with_rows(sums, rows) for k, sums in self._weights.items()}


def _with_rows(sums: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """Return sums with at least so many rows, the new ones 0."""
    if len(sums) >= rows:
        return sums
    longer = np.zeros((rows, sums.shape[1]), np.float32)
    longer[: len(sums)] = sums
    return longer
