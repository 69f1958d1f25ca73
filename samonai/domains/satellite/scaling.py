"""Scaling of raster values to the 8-bit pictures of SAM: one range per band and raster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError

Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scaling:
    """Mapping of values to 0..255; part of every signature and of every checkpoint.

    Attributes:
        mode: "raster": percentiles of each raster as a whole. "set": percentiles over the
            training set, measured once and kept. "fixed": `ranges` as given. "auto": 8-bit
            rasters unchanged, all others as "set". Never measured on a single tile.
        lower: Lower percentile of the valid pixels that becomes black.
        upper: Upper percentile that becomes white.
        ranges: (black, white) for each band; None until known. Before a set
            was measured, "auto" and "set" use each raster's own percentiles.
    """

    mode: str = "auto"
    lower: float = 2.0
    upper: float = 98.0
    ranges: Ranges | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.lower < self.upper:
            raise InputError(
                f"percentiles {self.lower:g} to {self.upper:g}: expected lower < upper"
            )
        if self.mode == "fixed" and self.ranges is None:
            raise InputError("scaling=fixed needs ranges, such as ranges=0:3000")

    def is_measured_on_set(self, dtype: str) -> bool:
        """Return whether rasters of this type share ranges measured over the training set."""
        return self.mode == "set" or (self.mode == "auto" and dtype != "uint8")

    def limits(self, dtype: str, bands: int, sample: "Sample") -> Ranges:
        """Return (black, white) of each band of a raster.

        Args:
            dtype: The raster's type.
            bands: Number of bands.
            sample: The raster's values, read when needed.

        Raises:
            InputError: The number of ranges is neither one nor that of the bands.
        """
        if self.mode == "auto" and dtype == "uint8":
            return ((0.0, 255.0),) * bands
        if self.mode == "raster" or self.ranges is None:
            return sample.percentiles(self.lower, self.upper)
        if len(self.ranges) not in (1, bands):
            raise InputError(
                f"ranges: {len(self.ranges)} for {bands} bands; give one, or one per band"
            )
        return self.ranges if len(self.ranges) == bands else self.ranges * bands


@dataclass(frozen=True)
class Sample:
    """Sample of valid values of a raster's bands, large enough for percentiles.

    Attributes:
        values: float32 (n,) for each band.
    """

    values: tuple[npt.NDArray[np.float32], ...]

    def percentiles(self, lower: float, upper: float) -> Ranges:
        """Return two percentiles of each band; (0, 0) for a band without a valid pixel."""
        return tuple(
            tuple(float(v) for v in np.percentile(band, (lower, upper)))  # type: ignore[misc]
            if len(band)
            else (0.0, 0.0)
            for band in self.values
        )

    def joined(self, others: Sequence["Sample"]) -> "Sample":
        """Return the values of several rasters with the same number of bands as one sample."""
        parts = zip(*(sample.values for sample in (self, *others)), strict=True)
        return Sample(tuple(np.concatenate(band) for band in parts))


def to_picture(values: npt.NDArray[Any], limits: Ranges) -> npt.NDArray[np.uint8]:
    """Map bands linearly so that their limits become 0 and 255, clipped, rounded.

    Args:
        values: real (bands, H, W), one band or three; NaN becomes 0.
        limits: (black, white) of each band; equal limits give 0 everywhere.

    Returns:
        uint8 (H, W, 3), 0..255; one band is repeated.
    """
    channels = []
    for band, (black, white) in zip(values, limits, strict=True):
        if (black, white) == (0.0, 255.0) and band.dtype == np.uint8:
            channels.append(band)
        elif not white > black:
            channels.append(np.zeros(band.shape, np.uint8))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = (band.astype(np.float32) - np.float32(black)) * np.float32(
                    255 / (white - black)
                )
            scaled = np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0)
            channels.append((scaled + np.float32(0.5)).astype(np.uint8))
    return np.stack(channels * 3 if len(channels) == 1 else channels, axis=-1)


def parse_ranges(ranges: Any) -> Ranges | None:
    """Parse ranges: "0:3000", "0:3000,0:2500,0:2000", or pairs of numbers from JSON.

    Raises:
        InputError: The value has none of these forms.
    """
    if ranges is None or ranges == "":
        return None
    pairs = [part.split(":") for part in ranges.split(",")] if isinstance(ranges, str) else ranges
    try:
        parsed = tuple((float(low), float(high)) for low, high in pairs)
    except (TypeError, ValueError):
        parsed = ((1.0, 0.0),)
    if not all(np.isfinite(pair).all() and pair[0] <= pair[1] for pair in parsed):
        raise InputError(f"ranges={ranges!r}: expected low:high per band, such as 0:3000,0:2500")
    return parsed
