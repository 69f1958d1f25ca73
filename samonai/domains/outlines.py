"""Outlines of pixel masks as polygons along pixel edges, and polygon filling.

Holes are joined by keyholes. A contour through pixel centres loses half a pixel all around, and
filling it does not restore the same pixels. A contour along the edges does, with any filling
rule.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Right, down, left, up, in (x, y) with y growing downwards; a right turn is the next one.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

Corner = tuple[int, int]


def outlines(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float64]]:
    """Return closed polygons whose insides are exactly the pixels of a mask.

    Pixels that touch only at a corner are outlined separately. A hole is joined to its surroundings
    by a keyhole: two edges on top of each other, of no width.

    Args:
        mask: bool (H, W).

    Returns:
        One float64 (N, 2) per 4-connected component, corners (x, y) in frame space where the
        centre of pixel (0, 0) is (0, 0) and its edges lie at -0.5 and 0.5; not repeated at the
        end, clockwise as seen with y downwards. The closing edge, from the last corner to the
        first, runs along a row: plastimatch 1.9.4 loses a corner of contours on sagittal and
        coronal slices that close along a column.
    """
    rings = _Rings(mask)
    for start in sorted(rings.holes, key=lambda node: rings.corners[node]):
        rings.join(start)
    return [_polygon(rings.walk(start)) for start in rings.outer]


class _Rings:
    """The boundaries of a mask as circular lists of corners, one step apart.

    Attributes:
        corners: (x, y) of each node.
        after: The next node of each.
        outer: A node of each outer boundary.
        holes: Of each hole, the node that is leftmost and then topmost.
    """

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self.corners: list[Corner] = []
        self.after: list[int] = []
        self.outer: list[int] = []
        self.holes: list[int] = []
        self._at: dict[Corner, int] = {}
        edges = _edges(mask)
        passed: set[tuple[Corner, int]] = set()
        for corner, ways in edges.items():
            for direction in ways:
                if (corner, direction) not in passed:
                    self._trace(corner, direction, edges, passed)

    def join(self, hole: int) -> None:
        """Join a hole to the boundary at its left, which is joined itself if it is a hole."""
        x, y = self.corners[hole]
        x -= 1
        while (x, y) not in self._at:
            x -= 1
        # Pixels lie above and below the way from there, so no other boundary passes this corner.
        around = self._at[x, y]
        last = hole
        while self.after[last] != hole:
            last = self.after[last]
        back = self._add(self.corners[around], self.after[around])
        self.after[last] = self._add(self.corners[hole], back)
        self.after[around] = hole

    def walk(self, start: int) -> list[Corner]:
        """Return the corners of a boundary from a node on."""
        found, node = [self.corners[start]], self.after[start]
        while node != start:
            found.append(self.corners[node])
            node = self.after[node]
        return found

    def _add(self, corner: Corner, after: int) -> int:
        self.corners.append(corner)
        self.after.append(after)
        return len(self.corners) - 1

    def _trace(
        self,
        corner: Corner,
        direction: int,
        edges: dict[Corner, list[int]],
        passed: set[tuple[Corner, int]],
    ) -> None:
        first, area = len(self.corners), 0
        while (corner, direction) not in passed:
            passed.add((corner, direction))
            self._at[corner] = self._add(corner, len(self.corners) + 1)
            (x, y), (dx, dy) = corner, _STEPS[direction]
            area += x * dy - y * dx
            corner = x + dx, y + dy
            ways = edges[corner]
            # Where two pixels touch at a corner, turn right: stay with the same pixel.
            direction = ways[0] if len(ways) == 1 else (direction + 1) % 4
        self.after[-1] = first
        nodes = range(first, len(self.corners))
        if area > 0:
            self.outer.append(first)
        else:
            self.holes.append(min(nodes, key=lambda node: self.corners[node]))


def _edges(mask: npt.NDArray[np.bool_]) -> dict[Corner, list[int]]:
    """Return the directions of the pixel edges that start at each corner, pixels on their right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    edges: dict[Corner, list[int]] = {}
    # Neighbour above, at the right, below, at the left; and where the edge along it begins.
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    begins = ((0, 0), (1, 0), (1, 1), (0, 1))
    for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, begins, strict=True)):
        rows, columns = np.nonzero(inside & ~neighbour)
        for x, y in zip((columns + dx).tolist(), (rows + dy).tolist(), strict=True):
            edges.setdefault((x, y), []).append(direction)
    return edges


def _polygon(corners: list[Corner]) -> npt.NDArray[np.float64]:
    """Return the corners where the direction changes, in frame space."""
    kept = []
    for before, (x, y), after in zip(
        corners[-1:] + corners[:-1], corners, corners[1:] + corners[:1], strict=True
    ):
        came = np.sign(x - before[0]), np.sign(y - before[1])
        goes = np.sign(after[0] - x), np.sign(after[1] - y)
        if came != goes:
            kept.append((x, y))
    if kept[0][1] != kept[-1][1]:  # edges along rows and columns alternate, but at keyholes
        first = next(n for n, (_, y) in enumerate(kept) if n and y == kept[n - 1][1])
        kept = kept[first:] + kept[:first]
    return np.array(kept, np.float64) - 0.5


# Two computations of one coordinate differ by far less; such noise must not move a contour
# through pixel centres to either side.
_DECIMALS = 4


def fill_polygons(
    polygons: Sequence[npt.NDArray[np.float64]], shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return the pixels that lie inside an odd number of polygons.

    A pixel is inside if its centre is. A centre exactly on an outline belongs to the
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
