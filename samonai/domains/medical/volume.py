"""Volumes in memory: voxels, affine, metadata for writing back; percentiles of their values."""

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError

# Two grids are one when their affines' entries agree to a micrometre-scale tolerance and no
# corner moves by more than a small part of a voxel: single precision headers and quaternions
# stay well inside both, a wrong spacing or a shift does not.
AFFINE_TOLERANCE_MM = 1e-3
CORNER_TOLERANCE_VOXELS = 0.05
_SHEAR_TOLERANCE = 1e-3
_HASHED_AT_ONCE = 16

FloatArray = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]
Part = tuple[slice, slice, slice]
"""A box of voxels, by slices with start and stop."""


@dataclass(frozen=True)
class SourceSlice:
    """Location of one slice of a DICOM series on disk: written objects refer to it.

    Attributes:
        path: The file; its header is read again for writing, and not kept.
        frame: The slice's number in a multi-frame file, from 0; None for a file of one slice.
    """

    path: Path
    frame: int | None = None


@dataclass(frozen=True)
class FormatFacts:
    """Metadata of a file besides voxels and affine, for writing back and windowing.

    Attributes:
        format: "nifti", "nrrd", "metaimage", "dicom" or "picture".
        nifti_header: A NIfTI header holding geometry fields only (codes, quaternion, units), or
            None when the volume came from another format. Free-text fields are never kept.
        modality: DICOM's Modality ("CT", "MR", ...), or None where the format has none.
        slices: The slices that a DICOM volume was put together from, one per k; empty for other
            formats, and for a grid that was filled or interpolated (`allow_gaps`).
        unit: Unit of the values, if given by the file or its conversion ("SUVbw", "BQML").
        planar: Whether the slices are separate pictures, such as an ultrasound loop, and not
            neighbours in a body.
        series_uid: DICOM's SeriesInstanceUID, which label objects refer to.
        uncalibrated: Why the grid's spacing is not in millimetres (an uncalibrated
            picture); empty if it is.
    """

    format: str
    nifti_header: nib.Nifti1Header | None = None
    modality: str | None = None
    slices: tuple[SourceSlice, ...] = field(default=(), repr=False)  # paths may name a patient
    unit: str | None = None
    planar: bool = False
    series_uid: str | None = None
    uncalibrated: str = ""

    @property
    def unmeasurable(self) -> str:
        """Return why volumes in ml and distances in mm are undefined; empty if they are defined."""
        if self.planar and not self.uncalibrated:
            return "separate pictures without a distance between them"
        return self.uncalibrated


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading where a file or folder is ambiguous.

    Attributes:
        series: DICOM SeriesInstanceUID, needed where a folder holds several series.
        prefer: "sform" or "qform", for NIfTI files whose two geometries contradict each other.
        time: Number, from 1, of the volume to read where a series or file holds several.
        allow_gaps: Mask missing DICOM slices and interpolate uneven ones instead of refusing.
        suv: PET in SUV by body weight: True demands it, False leaves the stored unit, None
            converts where the headers allow it.
    """

    series: str | None = None
    prefer: str | None = None
    time: int | None = None
    allow_gaps: bool = False
    suv: bool | None = None
    of_label: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.prefer not in (None, "sform", "qform"):
            raise InputError(f"prefer={self.prefer!r}: expected sform or qform")
        if self.time is not None and (isinstance(self.time, bool) or not self._is_number()):
            raise InputError(f"time={self.time!r}: expected a volume's number, from 1")
        if not isinstance(self.allow_gaps, bool):
            raise InputError(f"allow_gaps={self.allow_gaps!r}: expected true or false")
        if self.suv not in (None, True, False):
            raise InputError(f"suv={self.suv!r}: expected true, false or null")

    def _is_number(self) -> bool:
        return isinstance(self.time, int) and self.time >= 1


@dataclass(frozen=True)
class LabelReadOptions(ReadOptions):
    """Options of reading a label map, without a choice: messages suggest none."""

    of_label: ClassVar[bool] = True


@dataclass(frozen=True)
class RawVolume:
    """Voxels returned by a format's reader, as stored, before any conversion.

    Attributes:
        array: Any real dtype, (I, J, K), rescaled to the file's physical values.
        affine: float64 (4, 4), voxel index to mm in RAS+.
        facts: Metadata for writing back.
        valid: bool (I, J, K), False on padding stated in the file; None: all valid.
        colours: uint8 (I, J, K, 3), RGB of a colour picture, whose luminance is `array`.
    """

    array: npt.NDArray[Any]
    affine: Affine
    facts: FormatFacts
    valid: npt.NDArray[np.bool_] | None = None
    colours: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan: voxels in the file's own index order, never flipped or resampled.

    Attributes:
        data: float32 (I, J, K), index order as nibabel and SimpleITK count: i along x (columns),
            j along y (rows), k along slices. Finite everywhere.
        affine: float64 (4, 4), index to millimetres in RAS+ (nibabel's convention); the centre
            of voxel (i, j, k) lies at `affine @ (i, j, k, 1)`.
        source_id: The case's identifier, from file or folder names and never from tags.
        facts: Metadata for writing onto the same grid.
        label: int32 (I, J, K), class per voxel, 0 is background; None when unlabelled.
        valid: bool (I, J, K), False on padding and on voxels that were not numbers; None: all.
        known: bool (I, J, K), False on unlabelled voxels; None: all labelled.
        crop: The part that slices show; None: all. All other attributes are of the whole volume.
        colours: uint8 (I, J, K, 3), RGB of a colour picture, whose luminance is `data`; None: grey.
    """

    data: FloatArray
    affine: Affine
    source_id: str
    facts: FormatFacts = field(default_factory=lambda: FormatFacts("nifti"))
    label: npt.NDArray[np.int32] | None = None
    valid: npt.NDArray[np.bool_] | None = None
    known: npt.NDArray[np.bool_] | None = None
    crop: Part | None = None
    colours: npt.NDArray[np.uint8] | None = None
    _measured: dict[Any, Any] = field(default_factory=dict, repr=False, init=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the grid's size (I, J, K) in voxels."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def unmeasurable(self) -> str:
        """Return why volumes in ml and distances in mm are undefined; empty if they are defined."""
        return self.facts.unmeasurable

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Return the distance in mm between neighbouring voxels along each array axis."""
        return axis_spacing(self.affine)

    @property
    def part(self) -> Part:
        """Return the part that slices show."""
        i, j, k = (slice(0, size) for size in self.shape)
        return (i, j, k) if self.crop is None else self.crop

    def with_crop(self, part: Part | None) -> "Volume":
        """Return this volume with slices that show a part of it, or all; no voxel is copied."""
        cropped = replace(self, crop=None)
        # Cached measurements are of the whole volume, and stay valid.
        cropped._measured.update(self._measured)
        if part is not None and part != cropped.part:
            object.__setattr__(cropped, "crop", part)
        return cropped

    def content_hash(self) -> str:
        """Return the sha256 of voxels, valid mask, affine and crop, without the label."""
        if "content" not in self._measured:
            coloured = () if self.colours is None else (self.colours,)
            self._measured["content"] = _hash_arrays(self.data, self.affine, self.valid, *coloured)
        whole = str(self._measured["content"])
        if self.crop is None:
            return whole
        sides = [(side.start, side.stop) for side in self.crop]
        return hashlib.sha256(f"{whole} cropped to {sides}".encode()).hexdigest()

    def label_hash(self) -> str | None:
        """Return the sha256 of the label map, or None when there is no label."""
        if self.label is None:
            return None
        if "label" not in self._measured:
            known = () if self.known is None else (self.known,)
            self._measured["label"] = _hash_arrays(self.label, *known)
        return str(self._measured["label"])

    def minimum(self) -> float:
        """Return the smallest value of the valid voxels, cached."""
        if "minimum" not in self._measured:
            values = self.data if self.valid is None else self.data[self.valid]
            self._measured["minimum"] = float(values.min())
        return float(self._measured["minimum"])

    def quantiles(self, lower: float, upper: float) -> tuple[float, float]:
        """Return two percentiles (0..100) of the valid voxels' values, cached."""
        key = ("quantiles", lower, upper)
        if key not in self._measured:
            values = self.data if self.valid is None else self.data[self.valid]
            self._measured[key] = quantiles(values, lower, upper)
        low, high = self._measured[key]
        return low, high


def axis_spacing(affine: Affine) -> tuple[float, float, float]:
    """Return the lengths in mm of an affine's three axis columns."""
    i, j, k = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(i), float(j), float(k)


def is_sheared(affine: Affine) -> bool:
    """Return whether the affine's axes are not at right angles (usually a tilted gantry)."""
    directions = affine[:3, :3] / np.asarray(axis_spacing(affine))
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR_TOLERANCE)


def check_affine(affine: Affine, where: str) -> None:
    """Refuse an affine that is not finite or is singular.

    Raises:
        InputError: The affine is not finite, or singular.
    """
    if not np.isfinite(affine).all():
        raise InputError(f"{where}: the affine holds NaN or infinity; write a valid geometry")
    spacing = axis_spacing(affine)
    volume = abs(float(np.linalg.det(affine[:3, :3])))
    if min(spacing) <= 0 or volume < 1e-6 * float(np.prod(spacing)):
        raise InputError(
            f"{where}: the affine is singular (spacing {format_spacing(spacing)} mm); "
            "write a valid geometry"
        )


def same_grid(first: Affine, second: Affine, shape: tuple[int, ...]) -> bool:
    """Return whether two affines put every voxel of a grid at the same place."""
    if np.abs(first - second).max() > AFFINE_TOLERANCE_MM:
        return False
    return same_corners(first, second, shape)


def same_corners(first: Affine, second: Affine, shape: tuple[int, ...]) -> bool:
    """Return whether two affines of one file mean one grid, written with different rounding."""
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.asarray(shape)[:, None] - 1)
    moved = (first - second) @ np.vstack([corners, np.ones(8)])
    largest = float(np.sqrt((moved[:3] ** 2).sum(axis=0)).max())
    return largest <= CORNER_TOLERANCE_VOXELS * min(axis_spacing(first))


def format_shape(shape: tuple[int, ...]) -> str:
    """Format a shape for a message: 34x52x35."""
    return "x".join(str(size) for size in shape)


def format_spacing(spacing: tuple[float, ...]) -> str:
    """Format spacings for a message: 0.977x0.977x3.27."""
    return "x".join(f"{size:.4g}" for size in spacing)


def format_affine(affine: Affine) -> str:
    """Format an affine on one line for a message, rows separated by semicolons."""
    rows = ("[" + " ".join(f"{value:.6g}" for value in row) + "]" for row in affine[:3])
    return "; ".join(rows)


def _hash_arrays(*arrays: npt.NDArray[Any] | None) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none;")
            continue
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        for first in range(0, len(array), _HASHED_AT_ONCE):  # in blocks, without a copy
            digest.update(np.ascontiguousarray(array[first : first + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


_SAMPLED = 1 << 16
_AROUND = 0.005  # of all values, on each side of a percentile: far beyond a sample's error
_AT_ONCE = 1 << 18  # values that fit into a processor's cache

Values = npt.NDArray[np.float32]


def quantiles(values: Values, lower: float, upper: float) -> tuple[float, float]:
    """Return two percentiles, bitwise equal to `np.percentile`.

    A sample brackets each percentile between two values; only the values in between are sorted.
    That takes a fraction of the time of a sort, and no second copy of the volume.

    Args:
        values: float32, any shape, finite, at least one.
        lower: Percentile, 0..100.
        upper: Percentile, 0..100.
    """
    flat = values.ravel(order="K")  # a view, however the axes lie in memory
    sample = np.sort(flat[:: max(flat.size // _SAMPLED, 1)])
    found: list[float] = []
    for one in (lower, upper):
        place = (flat.size - 1) * (one / 100)
        neighbours = _neighbours(flat, sample, math.floor(place))
        if neighbours is None:  # the sample was not representative
            neighbours = np.sort(flat)[math.floor(place) :][:2]
        # As an array: numpy would take a lone number for one of single precision.
        share = np.array([place - math.floor(place)])
        found.append(float(np.quantile(neighbours, share)[0]))
    return found[0], found[1]


def _neighbours(flat: Values, sample: Values, rank: int) -> Values | None:
    """Return the values of a rank, from 0, and the next; None if they lie outside the bracket."""
    share = rank / flat.size
    low = sample[math.floor(max(share - _AROUND, 0) * (sample.size - 1))]
    high = sample[math.ceil(min(share + _AROUND, 1) * (sample.size - 1))]
    if share <= _AROUND:
        low = np.float32(-np.inf)
    if share >= 1 - _AROUND:
        high = np.float32(np.inf)
    below, between = 0, []
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        under = part < low
        below += int(np.count_nonzero(under))
        between.append(part[~under & (part <= high)])
    near = np.concatenate(between)
    last = min(rank + 1, flat.size - 1)
    if not below <= rank <= last < below + near.size:
        return None
    near.partition([rank - below, last - below])
    return near[[rank - below, last - below]]


def check_slice_number(source: Volume, axis: int, index: int) -> None:
    """Refuse the number of a slice that a volume does not have.

    Raises:
        IndexError: The number is below 0, or not below the size of the axis.
    """
    if not 0 <= index < source.shape[axis]:
        raise IndexError(
            f"slice {index} of {source.source_id}: it has slices 0 to {source.shape[axis] - 1} "
            f"across axis {axis}"
        )
