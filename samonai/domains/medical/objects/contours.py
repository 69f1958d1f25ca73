"""Closed contours of one RTSTRUCT region on one slice, combined into pixels.

PS3.3 C.8.8.6.3 defines the combination only for CLOSEDPLANAR_XOR. CLOSED_PLANAR contours may be
stored twice, lie within one another or overlap; here the one stored twice counts once, the one
within another is a hole (and one within a hole is an island), and those that overlap are united.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonai.domains.outlines import fill_polygons

SAME_CONTOUR_VOXELS = 0.1
"""Largest distance between two copies of one contour with different rounding."""

Mask = npt.NDArray[np.bool_]
Corners = npt.NDArray[np.float64]


@dataclass
class ContourCounts:
    """Counts of combined contours of CLOSED_PLANAR type.

    Attributes:
        repeated: Contours that are stored again.
        holes: Contours that lie within another one.
        overlapping: Pairs of contours that overlap in part.
    """

    repeated: int = 0
    holes: int = 0
    overlapping: int = 0


@dataclass(frozen=True)
class _Contour:
    """One contour: corners, shoelace area, pixels, how many."""

    corners: Corners
    area: float
    mask: Mask
    pixels: int


def combine_planar(
    polygons: Sequence[Corners], shape: tuple[int, int], counts: ContourCounts
) -> Mask:
    """Return the pixels of a region's CLOSED_PLANAR contours on one slice.

    Each contour by itself is filled by the even-odd rule, so that a keyhole's two sides cancel out.

    Args:
        polygons: float64 (n, 2) each, corners (x, y) in pixels, as for `fill_polygons`.
        shape: (H, W) of the slice.
        counts: The counts of this slice are added to it.

    Returns:
        bool (H, W).
    """
    if len(polygons) == 1:
        return fill_polygons(polygons, shape)
    contours = _distinct(polygons, shape, counts)
    boxes = np.array([[*c.corners.min(axis=0), *c.corners.max(axis=0)] for c in contours])
    # Row n: which earlier contours reach into the box of contour n. Larger ones come first, so
    # that a contour comes after all that contain it.
    reaches = (boxes[:, None, :2] <= boxes[None, :, 2:]).all(-1)
    near = np.tril(reaches & reaches.T, k=-1)
    children: list[list[int]] = [[] for _ in contours]
    within: list[set[int]] = []
    for number, contour in enumerate(contours):
        earlier = np.flatnonzero(near[number]).tolist()
        around = {other for other in earlier if _contains(contours[other], contour)}
        within.append(around)
        farther = {outer for other in around for outer in within[other]}
        for parent in around - farther:
            children[parent].append(number)
        counts.holes += bool(around)
        counts.overlapping += sum(
            _overlaps(contours[other].mask, contour.mask) for other in set(earlier) - around
        )
    filled = np.zeros(shape, bool)
    own: dict[int, Mask] = {}
    for number in reversed(range(len(contours))):  # the innermost first
        mask = contours[number].mask
        for child in children[number]:
            mask = mask & ~own[child]
        own[number] = mask
        if not within[number]:
            filled |= mask
    return filled


def _distinct(
    polygons: Sequence[Corners], shape: tuple[int, int], counts: ContourCounts
) -> list[_Contour]:
    """Return the contours without duplicates, the largest first."""
    kept: list[_Contour] = []
    for polygon in polygons:
        if any(_same(polygon, other.corners) for other in kept):
            counts.repeated += 1
            continue
        x, y = polygon.T
        area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
        mask = fill_polygons([polygon], shape)
        kept.append(_Contour(polygon, area, mask, int(np.count_nonzero(mask))))
    return sorted(kept, key=lambda contour: (-contour.area, -contour.pixels))


def _overlaps(one: Mask, other: Mask) -> bool:
    return bool((one & other).any())


def _same(one: Corners, other: Corners) -> bool:
    boxes = [np.concatenate([each.min(axis=0), each.max(axis=0)]) for each in (one, other)]
    if np.abs(boxes[0] - boxes[1]).max() > SAME_CONTOUR_VOXELS:
        return False
    return all(
        _distance_to_outline(points, outline).max() <= SAME_CONTOUR_VOXELS
        for points, outline in ((one, other), (other, one))
    )


def _contains(outer: _Contour, inner: _Contour) -> bool:
    """Return whether a contour lies wholly inside another one, up to the rounding of positions."""
    if (inner.mask & ~outer.mask).any():
        return False
    outside = ~_inside(inner.corners, outer.corners)
    strays = _distance_to_outline(inner.corners[outside], outer.corners)
    return bool((strays <= SAME_CONTOUR_VOXELS).all())


def _inside(points: Corners, polygon: Corners) -> npt.NDArray[np.bool_]:
    """Return bool (N,): which points lie in a polygon by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = (y >= min(y0, y1)) & (y < max(y0, y1))
            inside ^= crossed & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _distance_to_outline(points: Corners, polygon: Corners) -> npt.NDArray[np.float64]:
    """Return float64 (N,): the distance of each point to the nearest edge of a polygon."""
    nearest = np.full(len(points), np.inf)
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = end - start
        length = float(edge @ edge)
        share = np.clip((points - start) @ edge / length, 0, 1) if length else np.zeros(len(points))
        away = points - start - share[:, None] * edge
        nearest = np.minimum(nearest, np.hypot(away[:, 0], away[:, 1]))
    return nearest
