"""Raster outputs on the raster's own grid: class map, object numbers, polygons."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as FileWindow

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.satellite.access import environment, one_line
from samonai.domains.satellite.polygons import (
    VECTOR_FORMATS,
    PolygonOptions,
    check_polygons,
    write_polygons,
)
from samonai.domains.satellite.prediction import RasterPrediction
from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.scratch import BLOCK
from samonai.domains.tiling.tiles import Window

ReadPart = Callable[[Window], npt.NDArray[Any]]


FORMATS = ("tif", "cog", "instances", *VECTOR_FORMATS)
"""Class map, class map as cloud-optimised GeoTIFF, object numbers, polygons."""

DEFAULT_FORMATS = ("tif", "instances", "gpkg")


def write_formats(
    prediction: RasterPrediction,
    stem: Path,
    formats: Sequence[str],
    polygons: PolygonOptions,
    class_names: Mapping[int, str] | None = None,
) -> list[Path]:
    """Write a prediction in several formats; each file whole or not at all.

    Args:
        prediction: The prediction.
        stem: Path without an ending; "tif" and "cog" add `.tif`, "instances" `_instances.tif`,
            the others their own.
        formats: Of `FORMATS`.
        polygons: Options of the polygons.
        class_names: Label value to name, for the polygons.

    Returns:
        The files.

    Raises:
        InputError: A format cannot hold this raster's polygons; no file was written.
    """
    highest = int(prediction.classes.max(initial=0))
    raster, cog = prediction.raster, "cog" in formats
    check_polygons(raster, formats)
    written = []
    if cog or "tif" in formats:
        written.append(write_label(raster, prediction.label, stem, highest, cog))
    if "instances" in formats:
        path = stem.with_name(f"{stem.name}_instances.tif")
        write_raster(raster, prediction.instances, path, "uint32", None, cog)
        written.append(path)
    for kind in VECTOR_FORMATS:
        if kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            written.append(write_polygons(prediction, path, polygons, class_names))
    return written


def write_label(
    raster: Raster, read: ReadPart, path: Path, highest: int, cog: bool = False
) -> Path:
    """Write a class map on a raster's grid: uint8, or uint16 with a class above 254.

    Pixels without data have the highest value of the type, which the file declares as nodata, to
    distinguish them from background.
    """
    path = _tiff(path)
    dtype = "uint8" if highest < np.iinfo(np.uint8).max else "uint16"
    nodata = int(np.iinfo(dtype).max)
    if highest >= nodata:
        raise InputError(f"{path}: class {highest}; expected at most {nodata - 1}")

    def part(window: Window) -> npt.NDArray[np.integer]:
        return np.where(raster.valid(window), read(window), nodata)

    write_raster(raster, part, path, dtype, nodata, cog)
    return path


def write_map(raster: Raster, read: ReadPart, path: Path) -> Path:
    """Write float32 values on a raster's grid, NaN on pixels without data."""
    path = _tiff(path)

    def part(window: Window) -> npt.NDArray[np.float32]:
        return np.where(raster.valid(window), read(window), np.float32(np.nan))

    write_raster(raster, part, path, "float32", float("nan"), cog=False)
    return path


def write_raster(
    raster: Raster, read: ReadPart, path: Path, dtype: str, nodata: float | None, cog: bool
) -> None:
    """Write one band on a raster's exact grid, rows of blocks at a time."""
    height, width = raster.size
    placed = {} if raster.geotransform is None else {"transform": raster.transform}
    with write_atomically(path) as temporary, environment(raster.any_driver), one_line(path):
        with rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype=dtype,
            nodata=nodata,
            crs=raster.crs,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="deflate",
            bigtiff="if_safer",
            **placed,
        ) as dataset:
            if raster.control_points is not None:
                dataset.gcps = control_points_of(raster)
            for row in range(0, height, BLOCK):
                strip = Window(row, 0, min(BLOCK, height - row), width)
                window = FileWindow(0, row, width, strip.height)
                dataset.write(read(strip).astype(dtype), 1, window=window)
        if cog:
            _make_cog(temporary)


def control_points_of(raster: Raster) -> tuple[list[GroundControlPoint], Any]:
    """Return a raster's ground control points in pixels of its part, and their CRS."""
    assert raster.control_points is not None
    points, crs = raster.control_points
    part = raster.window
    moved = [
        GroundControlPoint(p.row - part.row, p.col - part.column, p.x, p.y, p.z, p.id, p.info)
        for p in points
    ]
    return moved, crs


def _make_cog(path: Path) -> None:
    """Rewrite a file with overviews, so that viewers read only the visible part."""
    with write_atomically(path.with_name(f"{path.stem}-cog.tif")) as optimised:
        copy_raster(
            path,
            optimised,
            driver="COG",
            compress="deflate",
            overview_resampling="nearest",
            bigtiff="if_safer",
        )
    path.with_name(f"{path.stem}-cog.tif").replace(path)


def _tiff(path: Path) -> Path:
    if path.suffix.lower() in (".tif", ".tiff"):
        return path
    return path.with_name(path.name + ".tif")
