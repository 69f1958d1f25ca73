"""Tiny rasters for the tests of the satellite domain."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine

UTM = "EPSG:32616"
PLACE = Affine(0.5, 0, 740_000, 0, -0.5, 3_730_000)


def write_raster(
    path: Path,
    values: np.ndarray,
    *,
    crs: Any = UTM,
    transform: Affine | None = PLACE,
    nodata: float | None = None,
    **options: Any,
) -> Path:
    """Write (bands, H, W) as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = {} if transform is None else {"transform": transform}
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=values.dtype,
        crs=crs,
        nodata=nodata,
        **placed,
        **options,
    ) as dataset:
        dataset.write(values)
    return path


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (3, height, width), noise above 0."""
    return np.random.default_rng(seed).integers(1, 256, (3, height, width), np.uint8)


def write_features(path: Path, geometries: list[Any], crs: Any = UTM, **columns: Any) -> Path:
    """Write geometries as a vector file, whose format its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gpd.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path, engine="pyogrio")
    return path
