"""Safe opening of rasters and vector files: no file makes GDAL open other files or the network.

GDAL picks a driver by content: a file called `scene.tif` may be a VRT that reads other files or
the network, and a path may name a network or archive handler. So rasters are opened with a few
drivers that read one file, files beside them are checked first, and other paths are refused
unless the setting `any_driver` allows them.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from samonai.core.errors import InputError

RASTER_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Endings of rasters in a folder of images."""

_LARGEST_RASTER = 1 << 34  # pixels: 130,000 x 130,000; more is a mistake or an attack
_LARGEST_BLOCK = 1 << 29  # bytes that must be held to read any pixel of a block
_TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# Cloud-optimised GeoTIFFs are GeoTIFFs.
_DRIVERS = {
    **dict.fromkeys(_TIFF_STARTS, "GTiff"),
    b"\x89PNG": "PNG",
}
_JPEG_START = b"\xff\xd8\xff"  # followed by any marker
_LARGEST_SIDECAR = 32 << 20
_SCHEME = re.compile(r"(?<![\w.])([a-z][a-z0-9+]+):/+(?=[^/])", re.IGNORECASE)
_HANDLER = re.compile(r"(/vsi\w+/)([^/]+)")

# Formats that GDAL's detection by content could confuse with these endings.
_VECTOR_STARTS = {
    ".geojson": (b"{",),
    ".json": (b"{",),
    ".gpkg": (b"SQLite format 3\x00",),
    ".shp": (b"\x00\x00\x27\x0a",),
    ".fgb": (b"fgb",),
}
VECTOR_ENDINGS = tuple(_VECTOR_STARTS)
"""Endings of supported vector files."""


@contextmanager
def open_raster(path: Path | str, any_driver: bool = False) -> Iterator[DatasetReader]:
    """Open a raster for reading by windows.

    Args:
        path: A local file; any path that GDAL reads with `any_driver`.
        any_driver: Allow all of GDAL's drivers, including those that read the network and other
            files.

    Raises:
        InputError: The file cannot be read, now or later within the block, or its header is
            implausible.
    """
    path = check_path(path, any_driver)
    driver = None if any_driver else _driver(Path(path))
    with (
        one_line(path),
        environment(any_driver),
        rasterio.open(path, driver=driver) as dataset,
    ):
        _check_header(dataset, path)
        yield dataset


def check_path(path: Path | str, any_driver: bool = False) -> Path | str:
    """Return a path after checking that GDAL may open it.

    Raises:
        InputError: The path names a network or archive handler, or does not exist.
    """
    text = os.fspath(path)
    if any_driver:
        return _with_slashes(text) if is_elsewhere(path) else path
    if is_elsewhere(path):
        raise InputError(
            f"{text}: only files on this machine are read; --set any_driver=true lets GDAL read "
            f"the network and archives"
        )
    if not Path(text).is_file():
        folder = "a folder, and no file named like the raster in it"
        raise InputError(f"{text}: {folder if Path(text).is_dir() else 'no such file'}")
    return Path(text)


def is_elsewhere(path: Path | str) -> bool:
    """Return whether a path names a network or archive handler of GDAL, or is a description."""
    text = os.fspath(path)
    return bool(_SCHEME.search(text)) or "/vsi" in text or text.lstrip().startswith("<")


def _with_slashes(text: str) -> str:
    """Return a handler or URL for GDAL with the double slashes that `Path` collapsed."""
    text = _SCHEME.sub(r"\1://", text)
    found = _HANDLER.match(text)
    if found and (found[2].startswith("vsi") or Path("/", found[2]).exists()):
        return f"{found[1]}/{text[found.end(1) :]}"
    return text


def check_vector(path: Path, any_driver: bool = False) -> None:
    """Refuse vector files whose content is not of the format of their ending.

    Raises:
        InputError: The content is of another format.
    """
    check_path(path, any_driver)
    if any_driver:
        return
    starts = _VECTOR_STARTS.get(path.suffix.lower())
    if starts is None:
        raise InputError(f"{path}: expected one of {', '.join(VECTOR_ENDINGS)}")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"\xef\xbb\xbf"):
        start = start[3:]
    if path.suffix.lower() in (".geojson", ".json"):
        start = start.lstrip()
    if not start.startswith(starts):
        raise InputError(f"{path}: this is no {path.suffix[1:].lower()} file, whatever its name")


@contextmanager
def environment(any_driver: bool = False) -> Iterator[None]:
    """Configure GDAL: a bounded cache, and no network unless the user allows it."""
    closed = {} if any_driver else {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none"}
    with (
        rasterio.Env(GDAL_CACHEMAX=256, GDAL_NUM_THREADS="2", **closed),
        warnings.catch_warnings(),
    ):
        # A missing georeference is reported by the code that needs one.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # Alpha is read separately.
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield


@contextmanager
def one_line(path: Path | str) -> Iterator[None]:
    """Convert GDAL's errors into an InputError with the file's name."""
    try:
        yield
    except (RasterioError, rasterio.errors.CRSError) as error:
        told = str(error) or str(error.__cause__ or type(error).__name__)
        reason = told.splitlines()[0]
        if "Read failed" in reason or "Read or write failed" in reason:
            reason = f"its pixels cannot be read ({error.__cause__ or reason}); is the file whole?"
        raise InputError(f"{path}: {reason}") from error


def _driver(path: Path) -> str:
    """Return the driver of a file, by its first bytes.

    Raises:
        InputError: The format may read other files, or a file beside it points elsewhere.
    """
    with path.open("rb") as file:
        start = file.read(4)
    driver = "JPEG" if start.startswith(_JPEG_START) else _DRIVERS.get(start)
    if driver is None:
        raise InputError(
            f"{path} is no GeoTIFF, PNG or JPEG, whatever its name; --set any_driver=true lets "
            f"GDAL try all its formats"
        )
    _check_sidecars(path)
    return driver


def _check_header(dataset: DatasetReader, path: Path | str) -> None:
    pixels = dataset.width * dataset.height
    size = f"{dataset.width} x {dataset.height} pixels"
    if pixels > _LARGEST_RASTER:
        raise InputError(f"{path}: its header says {size}; at most {_LARGEST_RASTER:.0e} are read")
    for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        if rows * columns * np.dtype(dtype).itemsize > _LARGEST_BLOCK:
            raise InputError(
                f"{path}: its {size} lie in blocks of {columns} x {rows}, too large to read by "
                f"windows; rewrite it with gdal_translate -co TILED=YES"
            )


def _check_sidecars(path: Path) -> None:
    """Refuse overviews, masks and metadata beside the file that point to other files."""
    for ending in (".ovr", ".msk", ".OVR", ".MSK"):
        beside = path.with_name(path.name + ending)
        if beside.is_file():
            with beside.open("rb") as file:
                if file.read(4) not in _TIFF_STARTS:
                    raise InputError(f"{beside}: expected a TIFF beside the raster; remove it")
    described = path.with_name(path.name + ".aux.xml")
    if described.is_file():
        if described.stat().st_size > _LARGEST_SIDECAR:
            raise InputError(f"{described}: too large to be a raster's description; remove it")
        if b"OVERVIEW_FILE" in described.read_bytes():
            raise InputError(f"{described}: it points to other files; remove it")
