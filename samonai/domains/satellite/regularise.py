"""Regularisation of building outlines to right angles."""

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

_LARGEST_TURN = 30.0
"""Largest angle in degrees between a moved edge and a main direction."""

_KEPT_IOU = 0.8
"""Largest relative change of shape; an outline that changes more is returned unchanged."""


def right_angled(outline: Any, tolerance: float) -> Any:
    """Rotate the edges of an outline into its two main directions where they are close to them.

    The outline is simplified, its main direction is that of the longest total of edges, and
    each edge is put parallel to the nearest of that direction and the one across; the corners are
    the intersections of neighbouring edges.

    Args:
        outline: A polygon or multi-polygon in units in which angles are true.
        tolerance: Corners may move by about this much, in the same unit.

    Returns:
        The same kind of geometry; unchanged if its shape would change too much.
    """
    polygons = [
        _polygon(part, tolerance) for part in shapely.get_parts(outline) if not part.is_empty
    ]
    changed = shapely.make_valid(shapely.union_all(polygons))
    whole = shapely.area(shapely.union(changed, outline))
    same = whole > 0 and shapely.area(shapely.intersection(changed, outline)) / whole
    return changed if same >= _KEPT_IOU else outline


def _polygon(polygon: Any, tolerance: float) -> Any:
    simple = shapely.simplify(polygon, tolerance)
    if simple.is_empty or simple.geom_type != "Polygon":
        return polygon
    main = _main_direction(shapely.get_coordinates(simple.exterior))
    shell = _ring(shapely.get_coordinates(simple.exterior), main)
    if shell is None:
        return polygon
    holes = [_ring(shapely.get_coordinates(ring), main) for ring in simple.interiors]
    straight = shapely.Polygon(shell, [hole for hole in holes if hole is not None])
    return straight if straight.is_valid and straight.area > 0 else simple


def _main_direction(ring: npt.NDArray[np.float64]) -> float:
    """Return the direction in radians, 0 to pi/2, of the edges weighted by their lengths."""
    edges = np.diff(ring, axis=0)
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    # Four times the angle: opposite and perpendicular edges count for the same.
    angles = 4 * np.arctan2(edges[:, 1], edges[:, 0])
    total = np.sum(lengths**2 * np.exp(1j * angles))
    return float(np.angle(total) / 4)


def _ring(ring: npt.NDArray[np.float64], main: float) -> npt.NDArray[np.float64] | None:
    """Return a ring with edges along and across the main direction; None if it vanishes."""
    cos, sin = np.cos(-main), np.sin(-main)
    turn = np.array([[cos, -sin], [sin, cos]])
    points = ring[:-1] @ turn.T
    lines = _lines(points)
    if len(lines) < 4:
        return None
    corners = []
    for before, after in zip([lines[-1], *lines[:-1]], lines, strict=True):
        corner = _meet(before, after)
        if corner is None:
            return None
        corners.append(corner)
    return np.array([*corners, corners[0]]) @ turn


# A line is (a, b, c): the points where a x + b y = c.
_Line = tuple[float, float, float]


def _lines(points: npt.NDArray[np.float64]) -> list[_Line]:
    """Return the lines of the edges, with consecutive ones of one direction joined."""
    kept: list[tuple[str, float, _Line]] = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        step, middle = end - start, (start + end) / 2
        length = float(np.hypot(*step))
        if length == 0:
            continue
        angle = abs(np.degrees(np.arctan2(step[1], step[0])))
        slope = min(angle, 180 - angle)
        if slope <= _LARGEST_TURN:
            edge = ("along", length, (0.0, 1.0, float(middle[1])))
        elif slope >= 90 - _LARGEST_TURN:
            edge = ("across", length, (1.0, 0.0, float(middle[0])))
        else:
            a, b = float(-step[1] / length), float(step[0] / length)
            edge = ("slanted", length, (a, b, a * float(start[0]) + b * float(start[1])))
        if kept and kept[-1][0] == edge[0] != "slanted":
            kept[-1] = _joined(kept[-1], edge)
        else:
            kept.append(edge)
    if len(kept) > 1 and kept[0][0] == kept[-1][0] != "slanted":
        kept[0] = _joined(kept.pop(), kept[0])
    return [line for _, _, line in kept]


def _joined(
    first: tuple[str, float, _Line], second: tuple[str, float, _Line]
) -> tuple[str, float, _Line]:
    """Return one line for two parallel ones, nearer to the longer edge's."""
    length = first[1] + second[1]
    place = (first[1] * first[2][2] + second[1] * second[2][2]) / length
    return first[0], length, (first[2][0], first[2][1], place)


def _meet(first: _Line, second: _Line) -> npt.NDArray[np.float64] | None:
    matrix = np.array([first[:2], second[:2]])
    if abs(np.linalg.det(matrix)) < 0.1:
        return None
    return np.linalg.solve(matrix, np.array([first[2], second[2]]))
