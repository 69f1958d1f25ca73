"""Class by class scores of overlapping tiles, blended; only the rows in work are in memory."""

import numpy as np
import numpy.typing as npt

from samonai.domains.tiles import TileGrid, Window


class ClassLayers:
    """Weighted sums of each class's scores over the rows that are not written yet.

    Args:
        grid: The tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        """Start with no class."""
        self._grid = grid
        self._top = 0
        self._sums: dict[int, npt.NDArray[np.float32]] = {}

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
        for value in np.unique(classes).tolist():
            sums = self._of(value, window.bottom)
            sums[0][part] += weight * scores[classes == value].max(0)
            sums[1][part] += weight

    def take(self, strip: Window) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return class and score of the topmost rows, int32 and float32 (H, W), and drop them."""
        assert strip.row == self._top
        best = np.zeros((strip.height, strip.width), np.float32)
        label = np.zeros((strip.height, strip.width), np.int32)
        for value in sorted(self._sums):
            total, weight = self._of(value, strip.bottom)[:, : strip.height]
            score = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
            wins = score > best
            best[wins], label[wins] = score[wins], value
        self._sums = {value: sums[:, strip.height :] for value, sums in self._sums.items()}
        self._top = strip.bottom
        return label, best

    def _of(self, value: int, bottom: int) -> npt.NDArray[np.float32]:
        """Return (sum of weighted scores, sum of weights), float32 (2, rows, W), to a row."""
        rows, width = bottom - self._top, self._grid.size[1]
        sums = self._sums.get(value)
        if sums is None or sums.shape[1] < rows:
            longer = np.zeros((2, rows, width), np.float32)
            if sums is not None:
                longer[:, : sums.shape[1]] = sums
            self._sums[value] = sums = longer
        return sums
