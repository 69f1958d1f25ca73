"""Polygons of predicted objects: in the raster's CRS, with class, score and area."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from rasterio.features import shapes

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.satellite.crs import format_crs, surface
from samonai.domains.satellite.features import Geometries, transformed
from samonai.domains.satellite.meridian import cut_at_180
from samonai.domains.satellite.prediction import RasterPrediction
from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.regularise import right_angled
from samonai.domains.satellite.scratch import BLOCK
from samonai.domains.satellite.simplify import simplified
from samonai.domains.tiling.tiles import Window

VECTOR_FORMATS = {"gpkg": "GPKG", "geojson": "GeoJSON"}


@dataclass(frozen=True)
class PolygonOptions:
    """Options of converting pixel outlines to polygons.

    Attributes:
        simplify: Largest shift of outlines in metres (pixels without a CRS);
            neighbours keep their common border. 0: along the pixels' edges.
        right_angles: Make nearly right-angled outlines right-angled, as for buildings.
        min_area: Objects of fewer square metres (pixels) are left out.
    """

    simplify: float = 0.0
    right_angles: bool = False
    min_area: float = 0.0


def write_polygons(
    prediction: RasterPrediction,
    path: Path,
    options: PolygonOptions,
    class_names: Mapping[int, str] | None = None,
) -> Path:
    """Write the objects of a prediction as polygons.

    Args:
        prediction: The prediction.
        path: A .gpkg file in the raster's CRS, or a .geojson file in degrees of WGS 84, objects
            across 180° cut there, as RFC 7946 wants.
        options: Options of the polygons.
        class_names: Label value to name.
    """
    table = polygon_table(prediction, options, class_names)
    kind = VECTOR_FORMATS[path.suffix[1:].lower()]
    if kind == "GeoJSON" and table.crs is not None:
        degrees = cut_at_180(np.asarray(table.geometry, object), prediction.raster.crs)
        table = table.set_geometry(gpd.GeoSeries(degrees, index=table.index, crs="EPSG:4326"))
    with write_atomically(path) as temporary:
        temporary.unlink()  # GDAL creates the file itself
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a missing CRS is logged already
            table.to_file(temporary, driver=kind, engine="pyogrio", layer=path.stem)
    return path


def check_polygons(raster: Raster, formats: Sequence[str]) -> None:
    """Check that a raster's polygons can be written.

    Raises:
        InputError: The format is GeoJSON, in degrees on the Earth, and the raster is not placed
            there.
    """
    if "geojson" in formats and raster.crs is not None and not surface(raster.crs).is_earth:
        raise InputError(
            f"{raster.path}: GeoJSON holds degrees on the Earth, and {format_crs(raster.crs)} has "
            f"none; use --format gpkg"
        )


def polygon_table(
    prediction: RasterPrediction,
    options: PolygonOptions,
    class_names: Mapping[int, str] | None = None,
) -> gpd.GeoDataFrame:
    """Return the objects as a table: id, class, name, score, area_m2 (area_px without a CRS)."""
    raster = prediction.raster
    numbers, outlines = _outlines(prediction)
    geometries = _smooth(np.array(outlines, object), raster, options)
    placed = transformed(geometries, raster.transform) if len(geometries) else geometries
    areas = areas_m2(placed, raster)
    rows = np.array(numbers, np.int64) - 1
    keep = (areas >= options.min_area) & ~shapely.is_empty(placed)
    rows, placed, areas = rows[keep], placed[keep], areas[keep]
    values = prediction.classes[rows]
    names = class_names or {}
    return gpd.GeoDataFrame(
        {
            "id": rows + 1,
            "class": values,
            "name": [names.get(int(value), f"class_{value}") for value in values],
            "score": np.round(prediction.scores[rows], 4),
            "area_m2" if raster.crs is not None else "area_px": np.round(areas, 3),
        },
        geometry=placed,
        crs=None if raster.crs is None else raster.crs.to_wkt(),
    )


def areas_m2(geometries: Geometries, raster: Raster) -> Any:
    """Return areas on the ellipsoid in m², undistorted by the CRS; in pixels without a CRS.

    Args:
        geometries: In coordinates of the raster's CRS.
        raster: The raster.

    Returns:
        float64 (N,).
    """
    if not len(geometries):
        return np.zeros(0)
    if raster.crs is None:
        return shapely.area(geometries) / abs(raster.transform.determinant)
    return surface(raster.crs).areas(geometries)


def _outlines(prediction: RasterPrediction) -> tuple[list[int], list[Any]]:
    """Trace the pixels' edges, a strip at a time; pieces of one object are joined."""
    pieces: dict[int, list[Any]] = defaultdict(list)
    for strip in _strips(prediction.size):
        numbers = prediction.instances(strip)
        if numbers.any():
            # Over side neighbours only: pieces that touch at a corner make no valid ring.
            for outline, number in shapes(
                numbers,
                mask=numbers > 0,
                connectivity=4,
                transform=Affine.translation(strip.column, strip.row),
            ):
                pieces[int(number)].append(shapely.geometry.shape(outline))
    ordered = sorted(pieces)
    return ordered, [
        pieces[number][0] if len(pieces[number]) == 1 else shapely.union_all(pieces[number])
        for number in ordered
    ]


def _strips(size: tuple[int, int]) -> Iterator[Window]:
    for row in range(0, size[0], BLOCK):
        yield Window(row, 0, min(BLOCK, size[0] - row), size[1])


def _smooth(outlines: Geometries, raster: Raster, options: PolygonOptions) -> Geometries:
    if not len(outlines):
        return outlines
    if not options.right_angles and not options.simplify:
        return outlines
    # In metres, in which angles are true and the setting's distances are given.
    metres = raster.spacing
    scale = Affine.scale(metres[1], metres[0])
    ground = transformed(outlines, scale)
    if options.right_angles:
        tolerance = options.simplify or max(metres)
        smooth = np.array([right_angled(outline, tolerance) for outline in ground], object)
    else:
        smooth = simplified(ground, options.simplify)
    return transformed(smooth, ~scale)
