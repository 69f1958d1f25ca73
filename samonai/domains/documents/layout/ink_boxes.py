"""Boxes of ink on a page as arrays: areas, intersections, and the tight box around ink."""

import numpy as np
import numpy.typing as npt

from samonai.core.frame import mask_box

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
    x0, y0, x1, y1 = mask_box(mask) or (0, 0, 0, 0)
    return x + x0, y + y0, x + x1, y + y1
