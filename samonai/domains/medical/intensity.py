"""Intensity: scan values to the 8-bit pictures of SAM by windows, percentiles, channels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.settings import check_given
from samonai.domains.medical.volume import FloatArray, Volume
from samonai.settings.medical import MedicalSettings

# (level, width) in Hounsfield units. Soft tissue is MedSAM's (Ma et al., Nature Communications
# 2024); the others are the customary display values that Radiopaedia's article "Windowing (CT)"
# lists for lungs, bone, brain and liver.
CT_WINDOWS = {
    "soft_tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (30.0, 150.0),
}
THREE_WINDOWS = ("lung", "soft_tissue", "bone")
# Air has -1000 HU, and scanners pad below it. Magnitude MR, PET and ultrasound hold no such
# values, nor does data standardised to unit variance.
HOUNSFIELD_MINIMUM = -500.0

Range = tuple[float, float]


@dataclass(frozen=True)
class Intensity:
    """Mapping of scan values to 8-bit grey values; part of every signature.

    Attributes:
        window: "auto", "percentile", or a name of `CT_WINDOWS`. Ignored when `level` is given.
            "auto" uses soft_tissue for CT and percentiles for all others; CT is decided by DICOM's
            Modality, or, without one, by values of -500 or less.
        level: Centre of an explicit window, in the scan's unit; with `width`.
        width: Width of an explicit window.
        lower: Lower percentile of the volume's valid voxels that becomes black.
        upper: Upper percentile that becomes white.
        channels: "grey" (the slice three times; a colour picture has its colours), "neighbours"
            (the slices before, at and after), or "windows" (lung, soft tissue and bone windows, CT
            only).
    """

    window: str = "auto"
    level: float | None = None
    width: float | None = None
    lower: float = 0.5
    upper: float = 99.5
    channels: str = "grey"

    def __post_init__(self) -> None:
        check_given(MedicalSettings, vars(self))
        if (self.level is None) != (self.width is None):
            raise InputError("level and width make a window together; give both or neither")
        if not self.lower < self.upper:
            raise InputError(
                f"percentiles {self.lower:g} to {self.upper:g}: expected lower < upper"
            )

    def ranges(self, volume: Volume) -> tuple[Range, Range, Range]:
        """Return the (black, white) values of the three channels for a volume.

        Raises:
            InputError: CT windows are requested for a scan that is not CT.
        """
        if self.channels != "windows":
            limits = self._range(volume)
            return limits, limits, limits
        if not looks_like_ct(volume):
            raise InputError(
                f"{volume.source_id}: channels=windows needs Hounsfield units and this is no CT; "
                "use --set channels=grey or --set channels=neighbours"
            )
        lung, soft, bone = (window_range(*CT_WINDOWS[name]) for name in THREE_WINDOWS)
        return lung, soft, bone

    def settings(self) -> dict[str, Any]:
        """Return all settings that affect pixels, as JSON values."""
        return {
            "window": self.window,
            "level": self.level,
            "width": self.width,
            "lower": self.lower,
            "upper": self.upper,
            "channels": self.channels,
        }

    def chosen_window(self, volume: Volume) -> str:
        """Return the window's name for a volume, with "auto" resolved."""
        if self.window != "auto":
            return self.window
        return "soft_tissue" if looks_like_ct(volume) else "percentile"

    def _range(self, volume: Volume) -> Range:
        if self.level is not None and self.width is not None:
            return window_range(self.level, self.width)
        if volume.colours is not None and self.window == "auto":
            return 0.0, 255.0
        window = self.chosen_window(volume)
        if window == "percentile":
            return volume.quantiles(self.lower, self.upper)
        return window_range(*CT_WINDOWS[window])


def looks_like_ct(volume: Volume) -> bool:
    """Return whether values are Hounsfield units: by DICOM's Modality, else by their minimum."""
    if volume.facts.modality is not None:
        return volume.facts.modality == "CT"
    return volume.minimum() <= HOUNSFIELD_MINIMUM


def window_range(level: float, width: float) -> Range:
    """Return the black and the white value of a window."""
    return level - width / 2, level + width / 2


def to_grey(values: FloatArray | npt.NDArray[np.uint8], limits: Range) -> npt.NDArray[np.uint8]:
    """Map values linearly so that the limits become 0 and 255, clipped, rounded.

    Args:
        values: float32 or uint8, any shape, the scan's unit.
        limits: (black, white); equal limits give 0 everywhere.

    Returns:
        uint8 of the same shape, 0..255.
    """
    black, white = limits
    if not white > black:
        return np.zeros(values.shape, np.uint8)
    scaled = (values - np.float32(black)) * np.float32(255 / (white - black))
    grey: npt.NDArray[np.uint8] = (np.clip(scaled, 0, 255) + np.float32(0.5)).astype(np.uint8)
    return grey


def picture(
    volume: Volume,
    axis: int,
    index: int,
    intensity: Intensity,
    ranges: tuple[Range, Range, Range],
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> npt.NDArray[np.uint8]:
    """Return one slice, or a part of it, as uint8 (H, W, 3), RGB, frame space.

    Args:
        volume: The scan.
        axis: Array axis perpendicular to the slice, 0..2.
        index: Slice number along that axis.
        intensity: Mapping of values to grey.
        ranges: The result of `intensity.ranges(volume)`, measured once per volume.
        part: Rows and columns.
    """
    if volume.colours is not None and intensity.channels == "grey":
        colours = [plane(volume.colours[..., n], axis, index)[part] for n in range(3)]
        return np.stack([to_grey(c, r) for c, r in zip(colours, ranges, strict=True)], axis=-1)
    if intensity.channels == "neighbours":
        last = volume.shape[axis] - 1
        steps = (max(index - 1, 0), index, min(index + 1, last))
    else:
        steps = (index, index, index)
    planes: dict[tuple[int, Range], npt.NDArray[np.uint8]] = {}
    for step, limits in zip(steps, ranges, strict=True):
        if (step, limits) not in planes:
            planes[step, limits] = to_grey(plane(volume.data, axis, step)[part], limits)
    return np.stack([planes[key] for key in zip(steps, ranges, strict=True)], axis=-1)


def plane(array: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    """Return slice `index` across an axis of (I, J, K) as (H, W); x is the earlier axis left.

    Axis 2 gives rows j and columns i, axis 1 rows k and columns i, axis 0 rows k and columns j.
    Nothing is flipped. The result is a view.
    """
    return np.moveaxis(array, axis, 0)[index].T
