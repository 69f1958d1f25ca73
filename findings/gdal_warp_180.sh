#!/bin/sh
# GDAL warps a raster in degrees from 179.98 to 180.02 to UTM with nothing east of 180: no error.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet rasterio==1.4.4 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import rasterio
from affine import Affine
from rasterio.vrt import WarpedVRT

with rasterio.open(
    "degrees.tif", "w", driver="GTiff", height=20, width=40, count=1, dtype="uint8",
    crs="EPSG:4326", transform=Affine(0.001, 0, 179.98, 0, -0.001, 0.9),
) as file:
    file.write(np.full((1, 20, 40), 7, np.uint8))

# 4.4 km from 179.98 to 180.02 degrees, at 100 m a pixel; 180 degrees is at column 22.
place = Affine(100, 0, 831_700, 0, -100, 99_600)
with rasterio.open("degrees.tif") as file, WarpedVRT(
    file, crs="EPSG:32660", transform=place, width=44, height=20
) as warped:
    filled = (warped.read(1) == 7).any(axis=0)
print(f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}: columns {filled.astype(int)}")
assert filled[:21].all(), "the western half is missing too"
assert not filled[23:].any(), "GDAL's behaviour has changed"
PYTHON
