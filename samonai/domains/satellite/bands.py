"""Bands of an open raster: selection, values in a window, and valid pixels."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.windows import Window as FileWindow

from samonai.core.errors import InputError
from samonai.domains.satellite.scaling import Ranges, Sample
from samonai.domains.tiling.tiles import Window

logger = logging.getLogger(__name__)

Palette = tuple[tuple[int, int, int, int], ...]

_SAMPLE_SIDE = 1024  # pixels along the longest side of the sample for percentiles
_SAMPLE_WINDOWS = 16  # per side, where a raster has no overviews
_COLOURS = ("red", "green", "blue")
_OTHER_BANDS = {"edge", "infrared", "ir", "nir", "swir", "index", "ratio", "ndvi"}
"""Words that make a colour's name another band: red edge, near infrared."""


def choose_bands(dataset: DatasetReader, bands: str | None, path: Path) -> tuple[int, ...]:
    """Return the numbers of the bands to read, from 1: one, or three.

    Args:
        dataset: The open raster.
        bands: Numbers such as "4,3,2"; None: red, green and blue by the file's band
            descriptions, else by their colour interpretation, else the first
            three bands, or the only one.
        path: The file, for messages.

    Raises:
        InputError: `bands` is not a list of numbers, or the file lacks one of these bands.
    """
    if bands:
        return _numbered_bands(dataset, bands, path)
    named = _bands_by_name(dataset.descriptions)
    if named is not None:
        return named
    meaning = dataset.colorinterp
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in meaning for colour in colours):
        return tuple(meaning.index(colour) + 1 for colour in colours)
    found = [n for n, kind in enumerate(meaning, 1) if kind is not ColorInterp.alpha]
    if len(found) > 3:
        names = [name or "no name" for name in dataset.descriptions[:6]]
        logger.warning(
            "%s: does not say which of its %d bands are red, green and blue (%s); bands %s are "
            "read, bands=R,G,B chooses others",
            path, len(found), ", ".join(names), found[:3],
        )  # fmt: skip
    return tuple(found[:3]) if len(found) >= 3 else (found[0] if found else 1,)


def read_palette(dataset: DatasetReader, band: int) -> Palette | None:
    """Return the colours of a paletted band, (red, green, blue, alpha) by stored value; or None."""
    if dataset.colorinterp[band - 1] is not ColorInterp.palette:
        return None
    table = dataset.colormap(band)
    black = (0, 0, 0, 255)
    return tuple(table.get(value, black) for value in range(max(table) + 1))


def read_window(
    dataset: DatasetReader,
    bands: tuple[int, ...],
    part: Window,
    nodata: float | None = None,
    palette: Palette | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read bands of an open raster within a window, and their valid pixels.

    A pixel is valid if the file's masks (nodata, mask band) mark it as valid in any of the bands,
    no alpha band is 0, its values are finite, and not all of them are `nodata`.

    Args:
        dataset: The open raster.
        bands: Numbers of bands, from 1.
        part: The window, in pixels of the file.
        nodata: Value of missing pixels besides the file's own.
        palette: Colours for the values of the one band.

    Returns:
        Values (bands, H, W), three bands of uint8 with a palette; and bool (H, W).
    """
    values, valid = _read(dataset, bands, part, nodata)
    return _coloured(values, np.asarray(valid.any(0)), palette)


def read_sample(
    dataset: DatasetReader,
    bands: tuple[int, ...],
    nodata: float | None,
    palette: Palette | None = None,
) -> Sample:
    """Read values of a decimated raster: from overviews, or from small windows across it.

    Each band is sampled on its own valid pixels, without nodata of that band.
    """
    height, width = dataset.height, dataset.width
    factor = max(height, width) / _SAMPLE_SIDE
    whole = Window(0, 0, height, width)
    if factor <= 4 or any(dataset.overviews(band) for band in bands):
        shape = tuple(max(1, round(side / max(factor, 1))) for side in (height, width))
        parts = [_read(dataset, bands, whole, nodata, shape)]
    else:
        side = _SAMPLE_SIDE // _SAMPLE_WINDOWS
        places = (np.arange(_SAMPLE_WINDOWS) + 0.5) / _SAMPLE_WINDOWS
        windows = [
            whole.intersection(Window(int(y * height), int(x * width), side, side))
            for y in places
            for x in places
        ]
        parts = [_read(dataset, bands, part, nodata) for part in windows if part]
    if palette is not None:
        coloured = [_coloured(values, np.asarray(valid.any(0)), palette) for values, valid in parts]
        parts = [(values, np.broadcast_to(valid, values.shape)) for values, valid in coloured]
    return Sample(
        tuple(
            np.concatenate([values[n][valid[n]] for values, valid in parts]).astype(np.float32)
            for n in range(len(parts[0][0]))
        )
    )


class LazySample(Sample):
    """Sample of an open raster that is read on first use."""

    def __init__(
        self,
        dataset: DatasetReader,
        bands: tuple[int, ...],
        nodata: float | None,
        palette: Palette | None,
    ) -> None:
        self._read = lambda: read_sample(dataset, bands, nodata, palette)

    def percentiles(self, lower: float, upper: float) -> Ranges:
        """Return two percentiles of each band."""
        return self._read().percentiles(lower, upper)


def _read(
    dataset: DatasetReader,
    bands: tuple[int, ...],
    part: Window,
    nodata: float | None,
    shape: tuple[int, ...] | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return values and their valid masks, both (bands, H, W)."""
    window = FileWindow(part.column, part.row, part.width, part.height)
    size = None if shape is None else (len(bands), *shape)
    values = dataset.read(list(bands), window=window, out_shape=size)
    valid = dataset.read_masks(list(bands), window=window, out_shape=size) != 0
    # GDAL's masks leave alpha out beside a nodata value, and where it is not band 2 or 4.
    alpha = [n for n, kind in enumerate(dataset.colorinterp, 1) if kind is ColorInterp.alpha]
    if alpha:
        size = None if shape is None else (len(alpha), *shape)
        valid &= (dataset.read(alpha, window=window, out_shape=size) != 0).all(0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(0)
    if nodata is not None:
        valid &= values != nodata
    return values, valid


def _coloured(
    values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], palette: Palette | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the palette's colours for the values of one band; transparent ones are invalid."""
    if palette is None:
        return values, valid
    table = np.array(palette, np.uint8)
    known = values[0] < len(table)
    colours = table[np.where(known, values[0], 0)]
    return np.moveaxis(colours[..., :3], -1, 0), valid & known & (colours[..., 3] != 0)


def _numbered_bands(dataset: DatasetReader, bands: str, path: Path) -> tuple[int, ...]:
    try:
        chosen = tuple(int(number) for number in str(bands).split(","))
    except ValueError as error:
        raise InputError(f"bands={bands!r}: expected numbers such as 3 or 4,3,2") from error
    if len(chosen) not in (1, 3):
        raise InputError(f"bands={bands!r}: expected one band or three")
    if missing := [number for number in chosen if not 1 <= number <= dataset.count]:
        raise InputError(f"{path} has no band {missing[0]}; it has bands 1 to {dataset.count}")
    return chosen


def _bands_by_name(descriptions: Sequence[str | None]) -> tuple[int, ...] | None:
    """Return the bands described as red, green and blue, if there is exactly one of each."""
    words = [set(re.findall("[a-z]+", (name or "").lower())) for name in descriptions]
    found = [
        [n for n, own in enumerate(words, 1) if colour in own and not own & _OTHER_BANDS]
        for colour in _COLOURS
    ]
    if any(len(numbers) != 1 for numbers in found):
        return None
    return tuple(numbers[0] for numbers in found)
