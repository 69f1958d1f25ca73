"""Features of vector files in pixel coordinates of a raster: polygons, lines, points, COCO."""

import io
import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from affine import Affine
from pyproj import CRS

from samonai.core.errors import InputError
from samonai.core.settings import check_given
from samonai.domains.satellite.access import check_vector
from samonai.domains.satellite.class_column import (
    class_names,
    class_texts,
    class_values,
    column_of,
)
from samonai.domains.satellite.coco_features import coco_features, read_coco
from samonai.domains.satellite.crs import Points, format_crs, surface, transformer
from samonai.domains.satellite.meridian import beside
from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.widen import widened
from samonai.prompts.values import PromptFile, PromptValues
from samonai.settings.satellite import SatelliteSettings

logger = logging.getLogger(__name__)

Geometries = npt.NDArray[np.object_]
IMAGE_CRS = "image"
"""Value of `label_crs` for the raster's own CRS, if a vector file's is absent or wrong."""


@dataclass(frozen=True)
class FeatureOptions:
    """Options of reading vector files.

    Attributes:
        class_field: Column of the class, whole numbers above 0 or names; None: class 1.
        classes: Names of the classes 1, 2, …; None: those of the data set by `class_names`.
        line_width: Width of lines in metres, or a column that holds it.
        point_radius: Radius in metres of the disc around a point.
        label_crs: CRS that replaces the file's, such as "EPSG:32616"; "image": the
            raster's own.
        any_driver: Read any vector format of GDAL.
    """

    class_field: str | None = None
    classes: tuple[str, ...] | None = None
    line_width: str | float | None = None
    point_radius: float | None = None
    label_crs: str | None = None
    any_driver: bool = False

    def __post_init__(self) -> None:
        """Check that features are neither left out silently nor empty.

        Raises:
            InputError: A width or radius is not a length above 0, or a column is not a name.
        """
        check_given(SatelliteSettings, vars(self))


@dataclass(frozen=True)
class Features:
    """Features in pixel coordinates of a whole file: x to the right, y down, edges at integers.

    Attributes:
        geometries: shapely geometries (N,).
        classes: int64 (N,), label value of each.
    """

    geometries: Geometries
    classes: npt.NDArray[np.int64]


def read_features(
    path: PromptFile, raster: Raster, options: FeatureOptions, *, widen: bool = True
) -> Features:
    """Read the features of a file that lie on a raster.

    Args:
        path: A vector file, or COCO annotations (.json).
        raster: The raster.
        options: Options of reading.
        widen: Turn lines and points into areas; otherwise they are unchanged.

    Returns:
        The features that touch the raster, in the file's order.

    Raises:
        InputError: The file cannot be read, or its coordinates cannot be converted to the raster's.
    """
    coco = read_coco(path)
    if coco is not None:
        return Features(*coco_features(coco, raster, boxes=not widen))
    frame = read_table(path, raster, options)
    values = class_values(frame, path, options.class_field, options.classes)
    keep = values > 0
    frame, values = frame[keep], values[keep]
    pixels = to_pixels(np.asarray(frame.geometry, object), raster)
    if widen:
        pixels = widened(pixels, frame, path, raster, options.line_width, options.point_radius)
    # Areas only: lines left from an invalid polygon would be drawn.
    whole = shapely.make_valid(pixels, method="structure", keep_collapsed=False)
    pixels = np.where(shapely.is_valid(pixels), pixels, whole)
    height, width = raster.file_size
    inside = shapely.intersects(pixels, shapely.box(0, 0, width, height))
    return Features(pixels[inside], values[inside])


def read_table(path: PromptFile, raster: Raster, options: FeatureOptions) -> gpd.GeoDataFrame:
    """Read a vector file in the raster's CRS.

    Raises:
        InputError: The file cannot be read, is empty, or its CRS and the raster's are incompatible.
    """
    frame = load(path, options.any_driver)
    wanted = raster.crs
    if options.label_crs == IMAGE_CRS:
        frame = frame.set_crs(None if wanted is None else wanted.to_wkt(), allow_override=True)
    elif options.label_crs is not None:
        frame = frame.set_crs(_parse_crs(options.label_crs), allow_override=True)
    if (frame.crs is None) != (wanted is None):
        without, other = (path, raster.path) if frame.crs is None else (raster.path, path)
        reason = "has no CRS" if frame.crs is None else raster.unplaced
        raise InputError(
            f"{without} {reason}, but {other} has one ({format_crs(wanted or frame.crs)}); where "
            f"the coordinates are the image's own, say so with --set label_crs=image"
        )
    if frame.crs is None or wanted is None:
        return frame
    check_degrees(frame.total_bounds, frame.crs, path)
    laid = in_raster_crs(np.asarray(frame.geometry, object), frame.crs, raster, path)
    return frame.set_geometry(gpd.GeoSeries(laid, index=frame.index, crs=wanted.to_wkt()))


def in_raster_crs(geometries: Geometries, crs: CRS, raster: Raster, path: PromptFile) -> Geometries:
    """Convert geometries of a CRS to a raster's CRS, on the raster's side of 180°.

    Raises:
        InputError: The two CRSs are incompatible.
    """
    wanted, matrix = CRS.from_wkt(raster.crs.to_wkt()), raster.geotransform
    assert matrix is not None
    same = crs.equals(wanted, ignore_axis_order=True)
    if same and surface(raster.crs).is_plane:
        return geometries
    convert = None if same else transformer(crs, wanted, f"{path} on {raster.path}")

    def moved(points: Points) -> Points:
        if convert is None:
            return points
        return np.column_stack(convert.transform(points[:, 0], points[:, 1]))

    height, width = raster.file_size
    corners = [matrix @ at for at in ((0, 0), (width, 0), (0, height), (width, height))]
    reach = min(x for x, _ in corners), max(x for x, _ in corners)
    return beside(geometries, crs, wanted, moved, reach)


def load(path: PromptFile, any_driver: bool = False) -> gpd.GeoDataFrame:
    """Read a vector file unchanged: features with a geometry, at least one.

    One file often labels many rasters, so the last one is cached until it changes.

    Raises:
        InputError: The file cannot be read, or is empty.
    """
    if isinstance(path, PromptValues):
        return _table(io.BytesIO(json.dumps(path).encode()), path)
    check_vector(path, any_driver)
    return _load(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> gpd.GeoDataFrame:
    return _table(path, path)


def _table(file: Path | io.BytesIO, path: PromptFile) -> gpd.GeoDataFrame:
    """Return the features of a file on disk or in memory; `path` is for messages."""
    try:
        layers = [name for name, kind in pyogrio.list_layers(file) if kind is not None]
        if not layers:
            raise InputError(f"{path} holds no layer with geometries; it may be damaged")
        if len(layers) > 1:
            shown = ", ".join(repr(name)[:40] for name in layers[:5])
            raise InputError(
                f"{path} holds {len(layers)} layers with geometries ({shown}); export one of them "
                f"into a file of its own"
            )
        frame = gpd.read_file(file, layer=layers[0], engine="pyogrio")
    except (RuntimeError, ValueError, shapely.errors.ShapelyError) as error:  # theirs, all of them
        raise InputError(f"{path}: {_unreadable(path, error)}") from error
    if "geometry" not in frame or not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{path} holds no geometries")
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if not len(frame):
        raise InputError(f"{path} holds no features")
    return frame


def _unreadable(path: PromptFile, error: Exception) -> str:
    """Return why a file cannot be read, in one line."""
    if "not recognized" not in str(error):
        return f"cannot be read: {str(error).splitlines()[0]}"
    if isinstance(path, Path) and path.suffix.lower() not in (".json", ".geojson"):
        return "cannot be read as a vector file; export it again, as GeoPackage or GeoJSON"
    return (
        'neither GeoJSON nor COCO; boxes are features such as {"type": "FeatureCollection", '
        '"features": [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", …}}]}'
    )


def check_degrees(bounds: npt.NDArray[Any], crs: Any, path: PromptFile) -> None:
    """Refuse a file with a CRS in degrees and coordinates that are not degrees.

    Raises:
        InputError: The coordinates are outside the range of degrees.
    """
    if CRS.from_user_input(crs).is_geographic and np.abs(bounds).max() > 360:
        raise InputError(
            f"{path} says {format_crs(crs)}, but its coordinates reach "
            f"{np.abs(bounds).max():.0f}, which are no degrees; where they are the image's own, "
            f"say so with --set label_crs=image"
        )


def to_pixels(geometries: Geometries, raster: Raster) -> Geometries:
    """Convert geometries from the raster's CRS to pixel coordinates of the whole file."""
    if raster.geotransform is None:
        return geometries
    inverse = ~raster.geotransform
    return transformed(geometries, inverse)


def transformed(geometries: Geometries, matrix: Affine) -> Geometries:
    """Apply an affine map to geometries."""

    def apply(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        return np.column_stack(
            [matrix.a * x + matrix.b * y + matrix.c, matrix.d * x + matrix.e * y + matrix.f]
        )

    return shapely.transform(np.asarray(geometries, object), apply)


def class_table(files: list[Path], field: str, any_driver: bool = False) -> tuple[str, ...] | None:
    """Return the class names of a column over several files; None for numbers.

    Raises:
        InputError: A file has no such column.
    """
    values: set[str] = set()
    for path in files:
        if read_coco(path) is None:
            values |= set(class_texts(column_of(load(path, any_driver), field, path)))
    return class_names(values - {""})


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except Exception as error:
        raise InputError(
            f"label_crs={text!r}: expected image or a CRS such as EPSG:32616"
        ) from error
