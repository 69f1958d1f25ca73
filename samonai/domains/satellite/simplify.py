"""Simplified outlines of objects that share borders; no point moves farther than a distance."""

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Geometries = npt.NDArray[np.object_]

_TRIES = 6
"""Halvings of the tolerance before an outline is left as it is."""


def simplified(outlines: Geometries, distance: float) -> Geometries:
    """Simplify outlines together, so that common borders of neighbours stay common.

    `coverage_simplify` drops corners whose triangle with their neighbours has less than the
    tolerance's square, so that a thin wall may go as a whole, however long. Where an outline moves
    farther than `distance`, or vanishes, it is simplified less, and what touches it too.

    Args:
        outlines: Polygons and multi-polygons (N,) that do not overlap.
        distance: What outlines may move by (Hausdorff distance), above 0.

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
    """Return the number of the group of touching parts that each belongs to, int32 (N,)."""
    first, second = shapely.STRtree(parts).query(parts, predicate="intersects")
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(parts),) * 2)
    return np.asarray(connected_components(links, directed=False)[1], np.int32)


def _valid(geometries: Any) -> Geometries:
    return np.asarray(
        shapely.make_valid(geometries, method="structure", keep_collapsed=False), object
    )


def _is_near(before: Geometries, after: Geometries, distance: float) -> npt.NDArray[np.bool_]:
    """Say whether borders lie within a distance of each other, bool (N,)."""
    old, new = shapely.boundary(before), shapely.boundary(after)
    return np.asarray(
        ~shapely.is_empty(after)
        & shapely.covers(shapely.buffer(old, distance), new)
        & shapely.covers(shapely.buffer(new, distance), old)
    )
