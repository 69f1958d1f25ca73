"""A raster, or a block of one, as a source: its pixels stay in the file and are read by windows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.windows import Window as FileWindow

from samonai.core.errors import InputError
from samonai.domains.satellite.access import open_raster
from samonai.domains.satellite.scaling import Ranges, Sample, Scaling, to_picture
from samonai.domains.tiling.tiles import Window

LabelArray = npt.NDArray[np.int32]

_SAMPLE_SIDE = 1024  # pixels along the longest side of what percentiles are measured on
_SAMPLE_WINDOWS = 16  # per side, where a raster has no overviews
_READ_AT_ONCE = 1 << 24  # pixels, where a whole raster goes by
WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class LabelWindow:
    """The label of a part of a raster.

    Attributes:
        label: int32 (H, W), class per pixel, 0 is background.
        instances: int32 (H, W), number of the object; None where only classes are known.
        known: bool (H, W), False where the label says nothing; None: it says all.
    """

    label: LabelArray
    instances: LabelArray | None = None
    known: npt.NDArray[np.bool_] | None = None


class Labels(Protocol):
    """What a raster is labelled with."""

    def read(self, window: Window) -> LabelWindow:
        """Return the label of a part, in pixels of the raster that it belongs to."""
        ...

    def hash(self) -> str:
        """Return a sha256 of all that it says."""
        ...


@dataclass(frozen=True)
class Raster:
    """One raster, or one block of it.

    Attributes:
        source_id: The case's name.
        path: The file.
        file_size: (H, W) of the whole file in pixels.
        window: The part that this is; the whole file, unless the case is a block.
        geotransform: Pixel corners of the whole file to coordinates of the CRS; None where the
            file has none. May be rotated.
        crs: The file's coordinate reference system, or None.
        bands: Numbers of the bands that are read, from 1: one, or three.
        dtype: Type of the values.
        limits: (black, white) of each of these bands.
        ground: Metres on the ground per pixel (down, across), at the middle; None without CRS.
        nodata: Value that marks missing pixels besides what the file says.
        any_driver: The file is opened with any of GDAL's drivers.
        labels: What it is labelled with, in pixels of the whole file.
        places: Where its tiles lie, in pixels of this part; None: on a grid.
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
            return read_window(dataset, self.bands, self.in_file(part), self.nodata)

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
        """Yield windows of whole rows, from top to bottom, each small enough to be read."""
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
                values, valid = read_window(dataset, self.bands, self.in_file(part), self.nodata)
                digest.update(np.ascontiguousarray(values).tobytes())
                digest.update(np.packbits(valid).tobytes())
        return digest.hexdigest()

    def label_hash(self) -> str | None:
        """Return the sha256 of what it is labelled with, or None."""
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
    """Look into a raster's header, and measure its values where the scaling needs it.

    Args:
        path: The file.
        source_id: What the source is called.
        bands: Band numbers such as "4,3,2"; None: red, green and blue where the file names them,
            else the first three bands, or the only one.
        scaling: How values become 8-bit.
        nodata: Value that marks missing pixels besides what the file says.
        any_driver: See `open_raster`.

    Raises:
        InputError: The file cannot be read, or has not the bands.
    """
    scaling = scaling or Scaling()
    with open_raster(path, any_driver) as dataset:
        chosen = _choose_bands(dataset, bands, path)
        kinds = {dataset.dtypes[band - 1] for band in chosen}
        if len(kinds) > 1 or np.dtype(next(iter(kinds))).kind not in "uif":
            raise InputError(
                f"{path}: bands {chosen} hold {', '.join(sorted(kinds))}; expected real numbers of "
                f"one type"
            )
        dtype = kinds.pop()
        sample = _LazySample(dataset, chosen, nodata)
        crs = dataset.crs or None
        has_transform = not dataset.transform.is_identity
        return Raster(
            source_id=source_id,
            path=Path(path),
            file_size=(dataset.height, dataset.width),
            window=Window(0, 0, dataset.height, dataset.width),
            geotransform=dataset.transform if has_transform else None,
            crs=crs,
            bands=chosen,
            dtype=dtype,
            limits=scaling.limits(dtype, len(chosen), sample),
            ground=_ground(dataset) if crs is not None and has_transform else None,
            nodata=nodata,
            any_driver=any_driver,
        )


def sample_raster(
    path: Path, bands: str | None, nodata: float | None, any_driver: bool
) -> tuple[str, Sample]:
    """Return a raster's type and a sample of its valid values, for ranges over several rasters."""
    with open_raster(path, any_driver) as dataset:
        chosen = _choose_bands(dataset, bands, path)
        return dataset.dtypes[chosen[0] - 1], _LazySample(dataset, chosen, nodata).read()


def read_window(
    dataset: DatasetReader, bands: tuple[int, ...], part: Window, nodata: float | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read bands of an open raster within a window, and where they are valid.

    A pixel is valid where the file's masks (nodata, alpha, mask band) say so for any of the
    bands, its values are finite, and not all of them are `nodata`.
    """
    window = FileWindow(part.column, part.row, part.width, part.height)
    values = dataset.read(list(bands), window=window)
    masks = dataset.read_masks(list(bands), window=window)
    return values, _valid(values, masks, nodata)


class _LazySample(Sample):
    """A sample of an open raster that is read when percentiles are asked for."""

    def __init__(
        self, dataset: DatasetReader, bands: tuple[int, ...], nodata: float | None
    ) -> None:
        self._read = lambda: _sample(dataset, bands, nodata)

    def read(self) -> Sample:
        """Read it."""
        return self._read()

    def percentiles(self, lower: float, upper: float) -> Ranges:
        """Return two percentiles of each band."""
        return self._read().percentiles(lower, upper)


def _sample(dataset: DatasetReader, bands: tuple[int, ...], nodata: float | None) -> Sample:
    """Read a decimated raster: from its overviews, or small windows all over it without any."""
    height, width = dataset.height, dataset.width
    factor = max(height, width) / _SAMPLE_SIDE
    whole = Window(0, 0, height, width)
    if factor <= 4 or any(dataset.overviews(band) for band in bands):
        shape = tuple(max(1, round(side / max(factor, 1))) for side in (height, width))
        window = FileWindow(0, 0, width, height)
        values = dataset.read(list(bands), window=window, out_shape=(len(bands), *shape))
        masks = dataset.read_masks(list(bands), window=window, out_shape=(len(bands), *shape))
        parts = [(values, _valid(values, masks, nodata))]
    else:
        side = _SAMPLE_SIDE // _SAMPLE_WINDOWS
        places = (np.arange(_SAMPLE_WINDOWS) + 0.5) / _SAMPLE_WINDOWS
        windows = [
            whole.intersection(Window(int(y * height), int(x * width), side, side))
            for y in places
            for x in places
        ]
        parts = [read_window(dataset, bands, part, nodata) for part in windows if part]
    return Sample(
        tuple(
            np.concatenate([values[n][valid] for values, valid in parts]).astype(np.float32)
            for n in range(len(bands))
        )
    )


def _valid(
    values: npt.NDArray[Any], masks: npt.NDArray[np.uint8], nodata: float | None
) -> npt.NDArray[np.bool_]:
    valid = np.asarray(masks.any(0))
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(0)
    if nodata is not None:
        valid &= np.asarray(values != nodata).any(0)
    return valid


def _choose_bands(dataset: DatasetReader, bands: str | None, path: Path) -> tuple[int, ...]:
    if bands:
        try:
            chosen = tuple(int(number) for number in str(bands).split(","))
        except ValueError as error:
            raise InputError(f"bands={bands!r}: expected numbers such as 3 or 4,3,2") from error
        if len(chosen) not in (1, 3):
            raise InputError(f"bands={bands!r}: expected one band or three")
        if missing := [number for number in chosen if not 1 <= number <= dataset.count]:
            raise InputError(f"{path} has no band {missing[0]}; it has bands 1 to {dataset.count}")
        return chosen
    meaning = dataset.colorinterp
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in meaning for colour in colours):
        return tuple(meaning.index(colour) + 1 for colour in colours)
    found = [n for n, kind in enumerate(meaning, 1) if kind is not ColorInterp.alpha]
    return tuple(found[:3]) if len(found) >= 3 else (found[0] if found else 1,)


def _ground(dataset: DatasetReader) -> tuple[float, float]:
    """Measure the middle pixel on the ellipsoid, which no projection distorts."""
    to_degrees = Transformer.from_crs(dataset.crs.to_wkt(), "EPSG:4326", always_xy=True)
    column, row = dataset.width / 2, dataset.height / 2
    corners = [
        to_degrees.transform(*(dataset.transform @ at))
        for at in ((column, row), (column, row + 1), (column + 1, row))
    ]
    if not np.isfinite(corners).all():
        raise InputError(
            f"{dataset.name}: its middle lies nowhere on Earth in its CRS; is the CRS right?"
        )
    down, across = (WGS84.inv(*corners[0], *other)[2] for other in corners[1:])
    return float(down), float(across)


def format_crs(crs: Any) -> str:
    """Return a short name of a CRS."""
    if crs is None:
        return "no CRS"
    code = rasterio.crs.CRS.from_user_input(crs).to_epsg()
    return f"EPSG:{code}" if code else "a CRS of its own"
