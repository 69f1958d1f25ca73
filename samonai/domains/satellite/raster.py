"""Raster, or a block of one, as a source: its pixels stay in the file and are read by windows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.io import DatasetReader

from samonai.core.errors import InputError
from samonai.domains.satellite.access import open_raster
from samonai.domains.satellite.bands import (
    LazySample,
    Palette,
    choose_bands,
    read_palette,
    read_sample,
    read_window,
)
from samonai.domains.satellite.crs import format_crs, pixel_ground
from samonai.domains.satellite.scaling import Ranges, Sample, Scaling, to_picture
from samonai.domains.tiling.tiles import Window

LabelArray = npt.NDArray[np.int32]

_READ_AT_ONCE = 1 << 24  # pixels per step through a whole raster


@dataclass(frozen=True)
class LabelWindow:
    """Label of a part of a raster.

    Attributes:
        label: int32 (H, W), class per pixel, 0 is background.
        instances: int32 (H, W), number of the object; None if only classes are known.
        known: bool (H, W), False on unlabelled pixels; None: all labelled.
    """

    label: LabelArray
    instances: LabelArray | None = None
    known: npt.NDArray[np.bool_] | None = None


class Labels(Protocol):
    """Label of a raster."""

    def read(self, window: Window) -> LabelWindow:
        """Return the label of a part, in pixels of its raster."""
        ...

    def hash(self) -> str:
        """Return a sha256 of the whole label."""
        ...


@dataclass(frozen=True)
class Raster:
    """One raster, or one block of it.

    Attributes:
        source_id: The case's name.
        path: The file.
        file_size: (H, W) of the whole file in pixels.
        window: The part of the file; the whole file, unless the case is a block.
        geotransform: Pixel corners of the whole file to coordinates of the CRS; None if the
            file has none. May be rotated.
        crs: The file's coordinate reference system, or None.
        bands: Numbers of the bands to read, from 1: one, or three.
        dtype: Type of the values.
        limits: (black, white) of each of these bands.
        ground: Metres on the ground per pixel (down, across), at the middle; None without CRS.
        nodata: Value of missing pixels besides the file's own.
        any_driver: Whether the file is opened with any of GDAL's drivers.
        palette: Colours for the values of its one band; None: no palette.
        unplaced: Why the file has no georeference, as "has no CRS"; empty: it has one.
        control_points: Ground control points in pixels of the whole file, and their CRS, if
            the file has these instead of a geotransform.
        labels: Its label, in pixels of the whole file.
        places: Windows of its tiles, in pixels of this part; None: on a grid.
    """

    source_id: str
    path: Path
    file_size: tuple[int, int]
    window: Window
    geotransform: Affine | None
    crs: Any
    bands: tuple[int, ...]
    dtype: str
    limits: Ranges
    ground: tuple[float, float] | None
    nodata: float | None = None
    any_driver: bool = False
    palette: Palette | None = None
    unplaced: str = ""
    control_points: tuple[tuple[Any, ...], Any] | None = None
    labels: Labels | None = None
    places: tuple[Window, ...] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W) in pixels."""
        return self.window.height, self.window.width

    @property
    def spacing(self) -> tuple[float, float]:
        """Return the size of a pixel in metres (down, across); in pixels without a CRS."""
        return self.ground or (1.0, 1.0)

    @property
    def transform(self) -> Affine:
        """Return pixel corners of this part to coordinates; to pixels without a geotransform."""
        whole = self.geotransform or Affine.identity()
        return whole @ Affine.translation(self.window.column, self.window.row)

    @property
    def label(self) -> LabelArray | None:
        """Read the whole label map, int32 (H, W), class per pixel; None when unlabelled."""
        whole = self.read_label(Window(0, 0, *self.size))
        return None if whole is None else whole.label

    def in_file(self, part: Window) -> Window:
        """Return a window of this part as a window of the file."""
        return replace(
            part, row=part.row + self.window.row, column=part.column + self.window.column
        )

    def read_label(self, part: Window) -> LabelWindow | None:
        """Read the label of a window; None when unlabelled."""
        return None if self.labels is None else self.labels.read(self.in_file(part))

    def read(self, part: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window.

        Returns:
            The bands' values (bands, H, W), and bool (H, W), False on nodata.

        Raises:
            InputError: The pixels cannot be read.
        """
        with self.open() as dataset:
            return read_window(dataset, self.bands, self.in_file(part), self.nodata, self.palette)

    def picture(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return bands' values (bands, H, W) as uint8 (H, W, 3), 0..255."""
        return to_picture(values, self.limits)

    def open(self) -> Any:
        """Open the file; a context manager."""
        return open_raster(self.path, self.any_driver)

    def valid(self, part: Window) -> npt.NDArray[np.bool_]:
        """Read bool (H, W): False on nodata."""
        return self.read(part)[1]

    def strips(self) -> Iterator[Window]:
        """Yield windows of whole rows, from top to bottom, small enough to be read at once."""
        rows = max(1, _READ_AT_ONCE // self.size[1])
        for row in range(0, self.size[0], rows):
            yield Window(row, 0, min(rows, self.size[0] - row), self.size[1])

    def content_hash(self) -> str:
        """Return the sha256 of values, valid mask, georeference, range and places of tiles."""
        digest = hashlib.sha256(
            repr((self.size, self.bands, self.dtype, self.limits, tuple(self.transform))).encode()
        )
        digest.update(b"" if self.crs is None else self.crs.to_wkt().encode())
        digest.update(b"" if self.places is None else repr(self.places).encode())
        with self.open() as dataset:
            for part in self.strips():
                values, valid = read_window(
                    dataset, self.bands, self.in_file(part), self.nodata, self.palette
                )
                digest.update(np.ascontiguousarray(values).tobytes())
                digest.update(np.packbits(valid).tobytes())
        return digest.hexdigest()

    def label_hash(self) -> str | None:
        """Return the sha256 of its label, or None."""
        return None if self.labels is None else self.labels.hash()


def read_raster(
    path: Path,
    source_id: str,
    *,
    bands: str | None = None,
    scaling: Scaling | None = None,
    nodata: float | None = None,
    any_driver: bool = False,
) -> Raster:
    """Read a raster's header, and sample its values if the scaling needs it.

    Args:
        path: The file.
        source_id: The source's identifier.
        bands: Band numbers such as "4,3,2"; None: red, green and blue by the file's names,
            else the first three bands, or the only one.
        scaling: Scaling of values to 8 bit.
        nodata: Value of missing pixels besides the file's own.
        any_driver: See `open_raster`.

    Raises:
        InputError: The file cannot be read, or lacks a band.
    """
    scaling = scaling or Scaling()
    with open_raster(path, any_driver) as dataset:
        chosen = choose_bands(dataset, bands, path)
        kinds = {dataset.dtypes[band - 1] for band in chosen}
        if len(kinds) > 1 or np.dtype(next(iter(kinds))).kind not in "uif":
            raise InputError(
                f"{path}: bands {chosen} hold {', '.join(sorted(kinds))}; expected real numbers of "
                f"one type"
            )
        palette = None if bands or len(chosen) > 1 else read_palette(dataset, chosen[0])
        dtype = kinds.pop() if palette is None else "uint8"
        sample = LazySample(dataset, chosen, nodata, palette)
        size = (dataset.height, dataset.width)
        placed = not dataset.transform.is_identity
        crs = (dataset.crs or None) if placed else None
        points, points_crs = dataset.gcps
        return Raster(
            source_id=source_id,
            path=Path(path),
            file_size=size,
            window=Window(0, 0, *size),
            geotransform=dataset.transform if placed else None,
            crs=crs,
            bands=chosen,
            dtype=dtype,
            limits=scaling.limits(dtype, len(chosen) if palette is None else 3, sample),
            ground=None if crs is None else pixel_ground(crs, dataset.transform, size, str(path)),
            nodata=nodata,
            any_driver=any_driver,
            palette=palette,
            unplaced="" if crs is not None else _why_unplaced(dataset),
            control_points=(tuple(points), points_crs) if points and not placed else None,
        )


def sample_raster(
    path: Path, bands: str | None, nodata: float | None, any_driver: bool
) -> tuple[str, Sample]:
    """Return a raster's type and a sample of its valid values, for ranges over several rasters."""
    with open_raster(path, any_driver) as dataset:
        chosen = choose_bands(dataset, bands, path)
        palette = None if bands or len(chosen) > 1 else read_palette(dataset, chosen[0])
        dtype = dataset.dtypes[chosen[0] - 1] if palette is None else "uint8"
        return dtype, read_sample(dataset, chosen, nodata, palette)


def _why_unplaced(dataset: DatasetReader) -> str:
    """Return why a raster has no georeference."""
    points = len(dataset.gcps[0])
    if points:
        return (
            f"has {points} ground control points and no geotransform (gdalwarp makes a raster "
            f"that has one)"
        )
    if dataset.rpcs is not None:
        return "has RPCs and no geotransform (gdalwarp -rpc makes a raster that has one)"
    if dataset.crs:
        return f"has a CRS ({format_crs(dataset.crs)}) but no geotransform"
    return "has no CRS"
