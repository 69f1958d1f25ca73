"""Widening of lines and points to areas, in metres on the ground of their raster."""

from collections.abc import Callable

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from samonai.core.errors import InputError
from samonai.domains.satellite.class_column import column_of
from samonai.domains.satellite.crs import Points, surface
from samonai.domains.satellite.meridian import cylinder
from samonai.domains.satellite.raster import Raster
from samonai.prompts.values import PromptFile

Geometries = npt.NDArray[np.object_]
Move = Callable[[Points], Points]

_QUARTER = 32  # edges of a quarter of a disc
_LINES, _POINTS = (1, 2, 5), (0, 4)  # shapely's type ids, multi-geometries included


def widened(
    pixels: Geometries,
    frame: gpd.GeoDataFrame,
    path: PromptFile,
    raster: Raster,
    line_width: str | float | None,
    point_radius: float | None,
) -> Geometries:
    """Return areas: lines and points widened in metres, or pixels without a CRS.

    Metres are measured around the middle of the raster, since those of a file that spans cities
    would differ, see `Surface.around`.

    Args:
        pixels: Geometries (N,) in pixels of the whole file.
        frame: Their features, for columns.
        path: Their file, for messages.
        raster: The raster.
        line_width: Width of lines in metres, or a column that holds it.
        point_radius: Radius of the disc around a point.

    Raises:
        InputError: The size of lines or points is not given.
    """
    kinds = shapely.get_type_id(pixels)
    lines, points = np.isin(kinds, _LINES), np.isin(kinds, _POINTS)
    if not (lines.any() or points.any()):
        return pixels
    half = np.zeros(len(pixels))
    if lines.any():
        half[lines] = _widths(frame, path, line_width)[lines] / 2
    if points.any():
        if point_radius is None:
            raise InputError(f"{path} holds points; say how large they are: point_radius=METRES")
        half[points] = float(point_radius)
    rows = np.flatnonzero(lines | points)
    # Features farther away are invisible here, and would have other metres.
    margins = 2 * half[rows] / min(raster.spacing) + 2
    height, width = raster.file_size
    boxes = shapely.box(-margins, -margins, width + margins, height + margins)
    near = shapely.intersection(pixels[rows], boxes)
    to_metres, to_pixels = _metres(raster)
    # Roads have flat ends; discs are round.
    areas = pixels.copy()
    for style, chosen in (("flat", lines[rows]), ("round", points[rows])):
        metric = shapely.transform(near[chosen], to_metres)
        grown = shapely.buffer(metric, half[rows][chosen], cap_style=style, quad_segs=_QUARTER)
        areas[rows[chosen]] = shapely.transform(grown, to_pixels)
    return areas


def _metres(raster: Raster) -> tuple[Move, Move]:
    """Return functions from pixels to metres on the ground around the raster's middle, and back."""
    matrix = raster.geotransform
    if raster.crs is None or matrix is None:
        return _applied(matrix or Affine.identity()), _applied(~(matrix or Affine.identity()))
    on, inverse = surface(raster.crs), ~matrix
    if on.is_plane:
        metric = Affine.scale(on.unit or 1.0) @ matrix
        return _applied(metric), _applied(~metric)
    height, width = raster.file_size
    middle = np.array([matrix @ (width / 2, height / 2)])
    around = on.around(on.degrees(middle)[0])

    def forth(pixels: Points) -> Points:
        degrees = on.degrees(_applied(matrix)(pixels))
        return np.column_stack(around(degrees[:, 0], degrees[:, 1], errcheck=False))

    def back(metres: Points) -> Points:
        degrees = np.column_stack(around(metres[:, 0], metres[:, 1], inverse=True))
        return _applied(inverse)(_near(on.from_degrees(degrees), middle[0, 0], raster))

    return forth, back


def _near(points: Points, x: float, raster: Raster) -> Points:
    """Return points on the raster's side of 180°."""
    along = cylinder(raster.crs)
    if along is None:
        return points
    turns = np.round((x - points[:, 0]) / along.turn)
    return np.column_stack([points[:, 0] + along.turn * turns, points[:, 1]])


def _applied(matrix: Affine) -> Move:
    def apply(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        return np.column_stack(
            [matrix.a * x + matrix.b * y + matrix.c, matrix.d * x + matrix.e * y + matrix.f]
        )

    return apply


def _widths(
    frame: gpd.GeoDataFrame, path: PromptFile, width: str | float | None
) -> npt.NDArray[np.float64]:
    """Return the width of each feature in metres."""
    if width is None:
        raise InputError(f"{path} holds lines; say how wide: line_width=METRES, or a column")
    try:
        widths = np.full(len(frame), float(width))
    except ValueError:
        column = column_of(frame, str(width), path)
        try:
            widths = column.astype(float).to_numpy()
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: column {width!r} holds no widths in metres") from error
    if not (np.isfinite(widths).all() and (widths > 0).all()):
        raise InputError(f"{path}: line_width={width!r}: expected metres above 0")
    return np.asarray(widths, float)
