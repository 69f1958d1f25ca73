"""Boxes of ink on a page as arrays: areas, intersections, and the tight box around ink."""

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""(N, 4), xyxy, upper ends exclusive."""


def box_areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Return the areas of boxes, (N,)."""
    areas: npt.NDArray[np.float32] = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return areas


def shared_areas(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float32]:
    """Return the intersection areas of boxes, (N, M)."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], others[None, :, :2]
    )
    areas: npt.NDArray[np.float32] = sides.clip(0).prod(2)
    return areas


def box_around(mask: npt.NDArray[np.bool_], x: int, y: int) -> tuple[int, int, int, int]:
    """Return the tight box, xyxy, around the ink of a part of the page whose corner is at (x, y).

    Without ink it is empty, at that corner.
    """
    down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(down):
        return x, y, x, y
    return x + int(across[0]), y + int(down[0]), x + int(across[-1]) + 1, y + int(down[-1]) + 1
