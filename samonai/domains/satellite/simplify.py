"""Simplified outlines of objects with common borders, within a Hausdorff distance."""

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Geometries = npt.NDArray[np.object_]

_TRIES = 6
"""Halvings of the tolerance before an outline is left unchanged."""


def simplified(outlines: Geometries, distance: float) -> Geometries:
    """Simplify outlines together, so that common borders of neighbours stay common.

    `coverage_simplify` drops corners whose triangle with their neighbours has less than the
    tolerance's square, so that a thin wall may vanish as a whole, however long. An outline that
    moves farther than `distance`, or vanishes, is simplified less, together with the outlines that
    touch it.

    Args:
        outlines: Polygons and multi-polygons (N,) that do not overlap.
        distance: Largest shift of outlines (Hausdorff distance), above 0.

    Returns:
        Polygons and multi-polygons (N,).
    """
    parts, owner = shapely.get_parts(outlines, return_index=True)
    groups = _touching(parts)
    simple = parts.copy()
    rows, tolerance = np.arange(len(parts)), distance
    for _ in range(_TRIES):
        found = _valid(shapely.coverage_simplify(parts[rows], tolerance))
        near = _is_near(parts[rows], found, distance)
        wrong = np.unique(groups[rows[~near]])
        good = ~np.isin(groups[rows], wrong)
        simple[rows[good]] = found[good]
        rows, tolerance = rows[~good], tolerance / 2
        if not len(rows):
            break
    return np.array([shapely.union_all(simple[owner == n]) for n in range(len(outlines))], object)


def _touching(parts: Geometries) -> npt.NDArray[np.int32]:
    """Return the group number of touching parts, int32 (N,)."""
    first, second = shapely.STRtree(parts).query(parts, predicate="intersects")
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(parts),) * 2)
    return np.asarray(connected_components(links, directed=False)[1], np.int32)


def _valid(geometries: Any) -> Geometries:
    return np.asarray(
        shapely.make_valid(geometries, method="structure", keep_collapsed=False), object
    )


def _is_near(before: Geometries, after: Geometries, distance: float) -> npt.NDArray[np.bool_]:
    """Return whether borders lie within a distance of each other, bool (N,)."""
    old, new = shapely.boundary(before), shapely.boundary(after)
    return np.asarray(
        ~shapely.is_empty(after)
        & shapely.covers(shapely.buffer(old, distance), new)
        & shapely.covers(shapely.buffer(new, distance), old)
    )
