"""Antimeridian: features moved beside a raster that spans 180°, and polygons cut at it for GeoJSON.

In a CRS of degrees, and in cylindrical projections such as Web Mercator, a place has many
coordinates, 360° apart, and a scene across 180° uses those of one side for both.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from samonai.domains.satellite.crs import Points, Surface, surface

Geometries = npt.NDArray[np.object_]

TURN = 360.0
_WIDEST = 90.0
"""Degrees: a ring with neighbours more than 180° apart crosses the antimeridian and does not
surround the Earth if it is no wider than this."""

_EDGE = 1e-9  # degrees: noise of coordinates on 180° itself


@dataclass(frozen=True)
class Cylinder:
    """Longitude along x in a CRS in which a rotation by 360° is a shift along x.

    Attributes:
        slope: Units of x per degree.
        start: x of longitude 0 of the CRS's own datum.
    """

    slope: float
    start: float

    @property
    def turn(self) -> float:
        """Return 360° in units of x."""
        return abs(self.slope) * TURN

    def longitude(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return degrees, beyond 180 where x continues beyond it."""
        return (x - self.start) / self.slope


def cylinder(crs: Any) -> Cylinder | None:
    """Return longitude along x in a CRS; None if a rotation by 360° is no shift along x."""
    return _cylinder(crs.to_wkt())


@lru_cache(maxsize=64)
def _cylinder(wkt: str) -> Cylinder | None:
    crs = CRS.from_wkt(wkt).to_2d()
    if crs.is_geographic:
        unit = crs.axis_info[0].unit_conversion_factor
        slope = float(np.radians(1) / unit) if unit > 0 else 1.0
        return Cylinder(slope, 0.0)
    if crs.geodetic_crs is None:
        return None
    try:
        forth = Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    except ProjError:
        return None
    step = 30.0
    longitudes = np.arange(-180, 180, step)
    x, y = forth.transform(longitudes, np.zeros_like(longitudes))
    higher, _ = forth.transform(longitudes, np.full_like(longitudes, 40.0))
    if not np.isfinite([x, y, higher]).all():
        return None
    slope = float(np.median(np.diff(x))) / step
    if slope == 0:
        return None
    turns = (np.diff(x) / step - slope) * step / (TURN * slope)
    scale = abs(slope) * 1e-6
    same = np.abs(higher - x).max() < scale and np.ptp(y) < scale
    if not same or np.abs(turns - np.round(turns)).max() > 1e-9:
        return None
    return Cylinder(slope, float(x[len(x) // 2]))


def beside(
    geometries: Geometries, source: Any, target: Any, moved: Any, reach: tuple[float, float]
) -> Geometries:
    """Return geometries in a raster's CRS, each part shifted by multiples of 360° onto the raster.

    Args:
        geometries: shapely geometries (N,) in coordinates of `source`.
        source: CRS of the geometries.
        target: CRS of the raster.
        moved: Function of float64 (n, 2) points from `source` to `target`.
        reach: Lowest and highest x of the raster.
    """
    flat = shapely.force_2d(geometries)
    there = cylinder(target)
    if there is None:
        return np.asarray(shapely.transform(flat, moved), object)
    low, high = sorted(there.longitude(np.array(reach)).tolist())
    parts, owner = _parts(flat)
    points, of = shapely.get_coordinates(parts, return_index=True)
    if not len(points):
        return flat
    raw = moved(points)
    degrees = _longitudes(parts, points, of, cylinder(source), surface(source), (low + high) / 2)
    turns = _turns(degrees, of, low, high)
    first = np.array([found[0] for found in turns])

    def laid(rows: Any, turn: Any) -> Points:
        wanted = there.start + there.slope * (degrees[rows] + TURN * turn)
        shift = np.round((wanted - raw[rows, 0]) / there.turn) * there.turn
        x = raw[rows, 0] + np.where(np.isfinite(shift), shift, 0)
        return np.column_stack([x, raw[rows, 1]])

    whole = shapely.set_coordinates(flat.copy(), laid(slice(None), first[of]))
    again: dict[int, list[Any]] = {}
    for number in [n for n, found in enumerate(turns) if len(found) > 1]:
        rows = np.flatnonzero(of == number)
        for turn in turns[number][1:]:
            copy = shapely.set_coordinates(parts[number], laid(rows, turn))
            again.setdefault(int(owner[number]), []).append(copy)
    for number, copies in again.items():
        whole[number] = _joined([*_parts(whole[number : number + 1])[0], *copies])
    return np.asarray(whole)


def cut_at_180(geometries: Geometries, crs: Any) -> Geometries:
    """Return polygons in degrees of WGS 84 within -180 to 180, cut where they cross 180°.

    As required by RFC 7946 (3.1.9): an object across 180° is two polygons of one multi-polygon.
    Rings are counter-clockwise, holes clockwise (3.1.6).

    Args:
        geometries: Polygons and multi-polygons (N,) in coordinates of the CRS.
        crs: A CRS on the Earth.
    """
    on, along = surface(crs), cylinder(crs)
    whole = [_cut(geometry, on, along) for geometry in geometries]
    return np.asarray(shapely.orient_polygons(np.array(whole, object), exterior_cw=False))


def _parts(geometries: Geometries) -> tuple[Geometries, npt.NDArray[np.int64]]:
    """Return single parts with the number of their geometry, including nested collections."""
    parts, owner = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_num_geometries(parts) > 1).any() or (shapely.get_type_id(parts) > 3).any():
        parts, of = shapely.get_parts(parts, return_index=True)
        owner = owner[of]
    return parts, owner


def _longitudes(
    parts: Geometries,
    points: Points,
    of: npt.NDArray[np.int64],
    here: Cylinder | None,
    on: Surface,
    middle: float,
) -> npt.NDArray[np.float64]:
    """Return longitudes of parts' points in degrees, continued beyond 180 where a part crosses it.

    Args:
        parts: The parts (N,).
        points: float64 (n, 2), their coordinates.
        of: int64 (n,), number of each point's part.
        here: Longitude along x in their CRS, or None.
        on: Surface of their CRS.
        middle: Longitude that they are near, if their CRS does not define it.
    """
    if here is None:
        degrees = on.degrees(points)[:, 0]
        return np.asarray(degrees + TURN * np.round((middle - degrees) / TURN))
    degrees = here.longitude(points[:, 0])
    low, high = _ranges(degrees, of)
    for number in np.flatnonzero((high - low > TURN / 2) & (shapely.get_type_id(parts) > 0)):
        # Written as if it went around the Earth the other way: not cut at 180° as RFC 7946
        # requires.
        own = degrees[of == number]
        near = np.where(own < 0, own + TURN, own)
        edge = np.isclose(np.abs(own), TURN / 2, rtol=0, atol=_EDGE)
        if np.ptp(near) <= _WIDEST and not edge.all():
            degrees[of == number] = near
    return degrees


def _ranges(
    values: npt.NDArray[np.float64], of: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the lowest and highest value of each part, in order."""
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _turns(
    degrees: npt.NDArray[np.float64], of: npt.NDArray[np.int64], low: float, high: float
) -> list[list[int]]:
    """Return the multiples of 360° that shift each part onto a raster; if none does, next to it."""
    first, last = _ranges(degrees, of)
    distance = ((low + high) - (first + last)) / 2 / TURN
    nearest = np.round(np.where(np.isfinite(distance), distance, 0)).astype(int)
    found = [[turn] for turn in nearest.tolist()]
    wide = np.isfinite(distance) & ((last - first) + (high - low) > TURN / 2)
    for number in np.flatnonzero(wide):
        a, b = first[number], last[number]
        hits = [n for n in range(-2, 3) if a + TURN * n <= high and b + TURN * n >= low]
        found[number] = hits or found[number]
    return found


def _joined(parts: list[Any]) -> Any:
    """Return one geometry of several parts."""
    kinds = {part.geom_type for part in parts}
    many = {
        "Point": shapely.MultiPoint,
        "LineString": shapely.MultiLineString,
        "Polygon": shapely.MultiPolygon,
    }
    return many.get(kinds.pop() if len(kinds) == 1 else "", shapely.GeometryCollection)(parts)


def _cut(geometry: Any, on: Surface, along: Cylinder | None) -> Any:
    polygons = [p for p in _parts(np.array([geometry], object))[0] if p.geom_type == "Polygon"]
    pieces = []
    for polygon in polygons:
        if polygon.is_empty:
            continue
        outer = _filled(polygon.exterior, on, along)
        holes = [_filled(ring, on, along) for ring in polygon.interiors]
        pieces.append(shapely.difference(outer, shapely.union_all(holes)) if holes else outer)
    # Parts of one object on both sides stay separate, touching ones elsewhere are united.
    return _polygons(shapely.union_all(pieces))


def _filled(ring: Any, on: Surface, along: Cylinder | None) -> Any:
    """Return the inside of a ring, within -180 to 180 degrees."""
    points = shapely.get_coordinates(ring)
    degrees = on.degrees(points)
    if along is None:
        # Step by step: neighbours of an outline lie less than 180° apart.
        steps = np.diff(degrees[:, 0])
        steps -= TURN * np.round(steps / TURN)
        x = degrees[0, 0] + np.concatenate([[0], np.cumsum(steps)])
    else:
        wanted = along.longitude(points[:, 0])
        x = degrees[:, 0] + TURN * np.round((wanted - degrees[:, 0]) / TURN)
    track = np.column_stack([x, degrees[:, 1]])
    if abs(x[-1] - x[0]) > TURN / 2:  # around a pole
        pole = np.copysign(90.0, degrees[:, 1].mean())
        track = np.vstack([track, [[x[-1], pole], [x[0], pole]]])
    whole = shapely.make_valid(shapely.Polygon(track), method="structure", keep_collapsed=False)
    low, high = (int(np.floor((edge + TURN / 2) / TURN)) for edge in (x.min(), x.max()))
    pieces = []
    for turn in range(low, high + 1):
        start = TURN * turn - TURN / 2
        side = shapely.intersection(whole, shapely.box(start, -90, start + TURN, 90))
        pieces.append(shapely.transform(side, lambda at, turn=turn: at - [TURN * turn, 0]))
    return shapely.union_all(pieces)


def _polygons(geometry: Any) -> Any:
    """Return the areas of a geometry; lines and points left by cutting are dropped."""
    parts = _parts(np.array([geometry], object))[0]
    areas = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)
