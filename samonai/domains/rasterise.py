"""Fill polygons on a pixel grid: even-odd, so that holes and keyholes come out as holes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Coordinates of one point, computed in two ways, agree to far less; a contour drawn through pixel
# centres must not fall to either side by such noise.
_DECIMALS = 4


def fill_polygons(
    polygons: Sequence[npt.NDArray[np.float64]], shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return the pixels that lie inside an odd number of polygons.

    A pixel is inside when its centre is. A centre that lies exactly on an outline belongs to the
    polygon on its left and upper side, and not on its right and lower side, so that neighbouring
    polygons that share an outline share no pixel.

    Args:
        polygons: float64 (n, 2) each, corners (x, y) in pixels, the centre of pixel (row r,
            column c) at (c, r); the last corner is joined to the first.
        shape: (H, W) of the grid.

    Returns:
        bool (H, W).
    """
    height, width = shape
    toggles = np.zeros((height, width + 1), np.int64)
    for polygon in polygons:
        start = np.round(polygon, _DECIMALS)
        for (x0, y0), (x1, y1) in zip(start, np.roll(start, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            low, high = sorted((y0, y1))
            rows = np.arange(max(np.ceil(low), 0), min(np.ceil(high), height), dtype=np.int64)
            crossings = np.round(x0 + (rows - y0) * (x1 - x0) / (y1 - y0), _DECIMALS)
            columns = np.clip(np.ceil(crossings), 0, width).astype(np.int64)
            toggles[rows, columns] += 1
    return np.asarray(np.cumsum(toggles, axis=1)[:, :width] % 2 == 1)
