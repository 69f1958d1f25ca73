"""Cropping of slices to the body or to the surroundings of prompts.

A crop is one box of voxels for the whole volume. It is not limited along the slice
axis, so every slice shows the same rows and columns, with the offset `FrameLocation.origin`.
Voxels are neither moved nor resampled: a structure in the crop is only larger in
SAM's picture, and results are put back on the volume's own grid.

"body" removes air. In CT that is below -500 HU, half way from air (-1000) to water (0).
Elsewhere it is below the threshold of least cross entropy (Li and Lee, Pattern Recognition 1993):
about Otsu's in MR, and lower where few organs hold most of the signal, as in PET. Of the body's
components those of 1 % of the largest one's size or more count: both legs and an arm beside
the trunk, no speck of noise. "prompt" is the surroundings of boxes and clicks.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.settings import check_given
from samonai.domains.medical.intensity import looks_like_ct
from samonai.domains.medical.volume import Part, Volume, format_shape
from samonai.prompts.frame_prompts import FramePrompts
from samonai.settings.choices import CROPS
from samonai.settings.medical import MedicalSettings

logger = logging.getLogger(__name__)

NONE, BODY, PROMPT = CROPS

_AIR_HU = -500.0
_SIDE = 128  # largest number of analysed voxels along each axis
_SMALLEST = 0.01  # of the largest component
_CONTEXT = 2.0  # sides of the crop, relative to the extent of the prompts
_LEAST = 0.5  # of the slice's longer side, around clicks, which do not give an object's size

Prompts = Mapping[int, FramePrompts]
Span = tuple[int, int]


@dataclass(frozen=True)
class Crop:
    """Shown part of each slice.

    Attributes:
        what: One of `CROPS`.
        margin: Millimetres that are kept around it on each side, as far as the volume goes.

    Raises:
        InputError: The crop or the margin is invalid.
    """

    what: str = NONE
    margin: float = 10.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_given(MedicalSettings, {"crop": self.what, "crop_margin": self.margin})

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values.

        Empty without cropping, so that stores and runs of older versions stay valid.
        """
        return {} if self.what == NONE else {"crop": self.what, "crop_margin": float(self.margin)}

    def check_without_prompts(self) -> None:
        """Refuse a crop around prompts without prompts.

        Raises:
            InputError: The crop follows prompts.
        """
        if self.what == PROMPT:
            raise InputError(
                "crop=prompt follows the given boxes or clicks, and there are none here; "
                "use --set crop=body or --set crop=none"
            )

    def of_volume(self, volume: Volume, axis: int) -> Volume:
        """Return a volume cropped as far as possible without prompts."""
        if self.what != BODY:
            return volume
        found = body_part(volume)
        if found is None:
            logger.warning("%s: crop=body found nothing but air; not cropped", volume.source_id)
            return volume
        sides = [
            (0, size) if side == axis else _grown((part.start, part.stop), self._voxels(step), size)
            for side, (part, step, size) in enumerate(
                zip(found, volume.spacing, volume.shape, strict=True)
            )
        ]
        cropped = volume.with_crop(_part(sides))
        _say(cropped, axis, "crop=body keeps %s of %s voxels of each slice")
        return cropped

    def of_prompts(
        self, volume: Volume, axis: int, prompts: Prompts
    ) -> tuple[Volume, dict[int, FramePrompts]]:
        """Return a volume whose crop contains all prompts, and the prompts in its frames.

        Args:
            volume: As `of_volume` returned it.
            axis: Array axis perpendicular to the slices.
            prompts: By slice, in whole slices.
        """
        asked = _asked(prompts)
        if asked is not None and self.what == PROMPT:
            volume = volume.with_crop(self._around(volume, axis, asked, prompts))
            _say(volume, axis, "crop=prompt keeps %s of %s voxels of each slice")
        elif asked is not None and volume.crop is not None:
            volume = _widened(volume, axis, asked)
        return volume, in_frames(prompts, volume, axis)

    def _around(self, volume: Volume, axis: int, asked: list[Span], prompts: Prompts) -> Part:
        """Return a square around the prompts, as far as the slices extend."""
        plane = [side for side in range(3) if side != axis]
        sizes = [volume.shape[side] for side in plane]
        wanted = [0.0]
        for (low, high), side in zip(asked, plane, strict=True):
            room = 2 * self._voxels(volume.spacing[side])
            wanted.append(max(high - low + room, _CONTEXT * (high - low)))
        if any(np.isnan(found.boxes).any() for found in prompts.values()):
            wanted.append(_LEAST * max(sizes))
        # SAM's picture is square: padding on one side is better used as context.
        length = math.ceil(max(wanted))
        sides: list[Span] = [(0, size) for size in volume.shape]
        for (low, high), side, size in zip(asked, plane, sizes, strict=True):
            start = min(max((low + high - length) // 2, 0), max(size - length, 0))
            sides[side] = start, min(start + length, size)
        return _part(sides)

    def _voxels(self, spacing: float) -> int:
        return math.ceil(self.margin / spacing)


def body_part(volume: Volume) -> Part | None:
    """Return the box around everything but air, without margin; None for a constant volume.

    It is computed on a grid of at most 128 voxels along each axis, and grown by a step of it: it
    may be too large by that much, but not too small.
    """
    steps = [math.ceil(size / _SIDE) for size in volume.shape]
    seen = tuple(slice(None, None, step) for step in steps)
    solid = _solid(volume, seen)
    from scipy import ndimage  # slow to import

    numbers, count = ndimage.label(solid)
    if not count:
        return None
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(sizes >= _SMALLEST * sizes.max())
    windows = ndimage.find_objects(numbers)
    sides = []
    for side, (step, size) in enumerate(zip(steps, volume.shape, strict=True)):
        low = min(windows[number][side].start for number in large)
        high = max(windows[number][side].stop for number in large)
        sides.append(_grown((low * step, (high - 1) * step + 1), step - 1, size))
    return _part(sides)


def in_frames(prompts: Prompts, volume: Volume, axis: int) -> dict[int, FramePrompts]:
    """Return prompts in whole slices as prompts in the frames that are cut from a volume."""
    if volume.crop is None:
        return dict(prompts)
    x, y = (volume.crop[side].start for side in range(3) if side != axis)
    return {index: found.moved(-x, -y) for index, found in prompts.items()}


def rows_and_columns(volume: Volume, axis: int) -> tuple[slice, slice]:
    """Return the shown part of a slice across an axis."""
    x, y = (part for side, part in enumerate(volume.part) if side != axis)
    return y, x


def warn_of_labels_outside(volume: Volume) -> None:
    """Warn of labelled voxels outside the crop."""
    if volume.label is None or volume.crop is None:
        return
    whole, kept = np.count_nonzero(volume.label), np.count_nonzero(volume.label[volume.crop])
    if kept < whole:
        logger.warning(
            "%s: the crop leaves out %d of %d labelled voxels; nothing is learned of them; raise "
            "crop_margin",
            volume.source_id,
            whole - kept,
            whole,
        )


def _solid(volume: Volume, seen: tuple[slice, ...]) -> npt.NDArray[np.bool_]:
    """Return bool, True where a voxel of the coarse grid is not air."""
    values = volume.data[seen]
    valid = None if volume.valid is None else volume.valid[seen]
    known = values if valid is None else values[valid]
    if not known.size or known.min() == known.max():
        return np.zeros(values.shape, bool)
    threshold = _AIR_HU if looks_like_ct(volume) else _least_entropy(known)
    solid: npt.NDArray[np.bool_] = values > threshold
    return solid if valid is None else solid & valid


def _least_entropy(values: npt.NDArray[np.float32]) -> float:
    from skimage.filters import threshold_li  # slow to import

    # Without the few voxels far above all others, such as a catheter's.
    low, high = np.percentile(values, [0.5, 99.5])
    return float(threshold_li(values.clip(low, high)))


def _asked(prompts: Prompts) -> list[Span] | None:
    """Return the first and last columns and rows that boxes and clicks touch; None: none."""
    found = [part for one in prompts.values() for part in _extents(one)]
    if not found:
        return None
    extents = np.concatenate(found)
    x0, y0 = np.floor(extents[:, :2].min(0)).astype(int).tolist()
    x1, y1 = np.ceil(extents[:, 2:].max(0)).astype(int).tolist()
    return [(x0, x1), (y0, y1)]


def _extents(prompts: FramePrompts) -> list[npt.NDArray[np.float32]]:
    """Return the boxes (n, 4) of a slice, and those of the clicked pixels."""
    extents = [prompts.boxes[~np.isnan(prompts.boxes).any(1)]]
    if prompts.point_coords is not None and prompts.point_labels is not None:
        pixels = np.floor(prompts.point_coords[prompts.point_labels >= 0])
        extents.append(np.concatenate([pixels, pixels + 1], 1))
    return [part for part in extents if len(part)]


def _widened(volume: Volume, axis: int, asked: list[Span]) -> Volume:
    """Return a volume whose crop also contains the prompts."""
    plane = [side for side in range(3) if side != axis]
    sides = [(part.start, part.stop) for part in volume.part]
    for (low, high), side in zip(asked, plane, strict=True):
        start, stop = sides[side]
        sides[side] = max(min(start, low), 0), min(max(stop, high), volume.shape[side])
    if _part(sides) == volume.crop:
        return volume
    wider = volume.with_crop(_part(sides))
    _say(wider, axis, "the crop is widened to hold the prompts, %s of %s voxels of each slice")
    return wider


def _grown(span: Span, by: int, size: int) -> Span:
    return max(span[0] - by, 0), min(span[1] + by, size)


def _part(sides: list[Span]) -> Part:
    i, j, k = (slice(*side) for side in sides)
    return i, j, k


def _say(volume: Volume, axis: int, message: str) -> None:
    shown = [part.stop - part.start for part in volume.part]
    kept, whole = (
        format_shape(tuple(size for side, size in enumerate(sizes) if side != axis))
        for sizes in (shown, volume.shape)
    )
    logger.info(f"%s: {message}", volume.source_id, kept, whole)
