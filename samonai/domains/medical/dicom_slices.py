"""Where DICOM slices lie: positions checked, sorted along the normal, spacing proven even."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from samonai.domains.medical.dicom_files import Header, element
from samonai.domains.medical.itk import LPS_TO_RAS
from samonai.domains.medical.volume import Affine
from samonai.errors import InputError

logger = logging.getLogger(__name__)

# Direction cosines are written with few digits; beyond this they are wrong and not rounded.
_ORIENTATION_TOLERANCE = 5e-3
_SAME_POSITION_MM = 1e-3
_SPACING_TOLERANCE = 0.01  # of the spacing, as highdicom
_LEAN_TOLERANCE = 1e-3  # of the distance along the normal
_LISTED = 4


@dataclass(frozen=True)
class Slice:
    """One frame of a series and where it lies, in DICOM's patient coordinates (LPS, mm).

    Attributes:
        header: The file that it is in.
        frame: Its number in a multi-frame file, from 0; None for a file that is one slice.
        position: float64 (3,), centre of the first pixel.
        orientation: float64 (6,), unit directions of growing column and of growing row number.
        spacing: (between rows, between columns) in mm.
        slope: Rescale slope.
        intercept: Rescale intercept.
    """

    header: Header
    frame: int | None
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float

    @property
    def distance(self) -> float:
        """Return the slice's place along its normal in mm."""
        return float(self.position @ self.normal)

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Return the unit normal that makes (column, row, slice) a right-handed system."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def slices_of(header: Header) -> list[Slice]:
    """Return the slices of a file: one, or each frame of an enhanced multi-frame object.

    Raises:
        InputError: When positions, spacing or rescaling are missing or not usable numbers.
    """
    path = header.path
    count = header.number("NumberOfFrames", 1)
    if "PerFrameFunctionalGroupsSequence" not in header.dataset:
        return [_plain_slice(header)]
    frames = header.value("PerFrameFunctionalGroupsSequence") or []
    shared = (header.value("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if len(frames) != count:
        raise InputError(f"{path}: {count} frames but {len(frames)} positions; export it again")
    return [_enhanced_slice(header, number, frame, shared) for number, frame in enumerate(frames)]


def is_placed(header: Header) -> bool:
    """Say whether a file tells where it lies in the patient; projections and screenshots do not."""
    if "PerFrameFunctionalGroupsSequence" in header.dataset:
        return True
    return bool(header.value("ImagePositionPatient") and header.value("ImageOrientationPatient"))


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices in the order of their places along the common normal."""
    return sorted(slices, key=lambda each: each.distance)


def groups_by_position(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Return sorted slices grouped by place; more than one in a group are duplicates."""
    groups: list[list[Slice]] = []
    for each in sort_slices(slices):
        if groups and np.abs(each.position - groups[-1][0].position).max() <= _SAME_POSITION_MM:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def series_affine(slices: Sequence[Slice], where: Path) -> Affine:
    """Return the affine of sorted slices without duplicates.

    Args:
        slices: One per position, sorted.
        where: What messages name.

    Returns:
        float64 (4, 4), index (column, row, slice) to mm in RAS+.

    Raises:
        InputError: When slices are missing, unevenly spaced, or lean (tilted gantry).
    """
    first = slices[0]
    positions = np.stack([each.position for each in slices])
    step = _slice_step(first)
    if len(slices) > 1:
        _check_lean(positions, first, where)
        found, _ = hd.spatial.get_volume_positions(
            positions.tolist(), first.orientation.tolist(), rtol=_SPACING_TOLERANCE
        )
        if found is None:
            _refuse_uneven(np.array([each.distance for each in slices]), where)
        step = (slices[-1].distance - first.distance) / (len(slices) - 1)
    affine = hd.spatial.create_affine_matrix_from_attributes(
        image_position=first.position.tolist(),
        image_orientation=first.orientation.tolist(),
        pixel_spacing=first.spacing,
        spacing_between_slices=step,
        index_convention=("R", "D"),
    )
    return LPS_TO_RAS @ np.asarray(affine, np.float64)


def _refuse_uneven(places: npt.NDArray[np.float64], where: Path) -> None:
    """Say which slices are missing, or that the spacing varies."""
    gaps = np.diff(places)
    step = float(gaps.min())
    if gaps.max() - step <= _SPACING_TOLERANCE * gaps.max() or step <= _SAME_POSITION_MM:
        raise InputError(f"{where}: slices are shifted sideways; expected one straight stack")
    counts = np.rint(gaps / step)
    if np.abs(gaps / step - counts).max() <= 0.1 and counts.max() > 1:
        missing = [
            place + step * number
            for place, count in zip(places, counts, strict=False)
            for number in range(1, int(count))
        ]
        named = ", ".join(f"{place:.2f}" for place in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise InputError(
            f"{where}: {len(missing)} of {len(places) + len(missing)} slices missing, at "
            f"{named}{more} mm along the slice normal; export the whole series"
        )
    raise InputError(
        f"{where}: uneven slice spacing, {step:.3g} to {gaps.max():.3g} mm; "
        "resample the series onto an even grid"
    )


def _check_lean(positions: npt.NDArray[np.float64], first: Slice, where: Path) -> None:
    along = positions[-1] - positions[0]
    depth = float(along @ first.normal)
    lean = float(np.linalg.norm(along - depth * first.normal))
    if lean > max(_LEAN_TOLERANCE * depth, 2 * _SAME_POSITION_MM):
        angle = math.degrees(math.atan2(lean, depth))
        raise InputError(
            f"{where}: the slices lean by {angle:.1f} degrees (tilted gantry); "
            "correct the tilt first, for example with dcm2niix"
        )


def _slice_step(only: Slice) -> float:
    """Return the thickness that a single slice claims, 1 mm when it claims none."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = only.header.value(keyword)
        if value is not None and math.isfinite(float(value)) and abs(float(value)) > 0:
            return abs(float(value))
    return 1.0


def _plain_slice(header: Header) -> Slice:
    position, orientation = (
        header.value("ImagePositionPatient"),
        header.value("ImageOrientationPatient"),
    )
    if not is_placed(header):
        position, orientation = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    spacing = header.value("PixelSpacing") or header.value("ImagerPixelSpacing") or [1, 1]
    slope, intercept = header.value("RescaleSlope"), header.value("RescaleIntercept")
    return _checked_slice(header, None, position, orientation, spacing, slope, intercept)


def _enhanced_slice(header: Header, number: int, frame: Dataset, shared: Dataset) -> Slice:
    def find(group: str, keyword: str) -> Any:
        for place in (frame, shared):
            items = element(place, group, header.path)
            value = element(items[0], keyword, header.path) if items else None
            if value is not None:
                return value
        return None

    position = find("PlanePositionSequence", "ImagePositionPatient")
    orientation = find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        raise InputError(f"{header.path}: frame {number} has no position; expected a 3D scan")
    slope = find("PixelValueTransformationSequence", "RescaleSlope")
    intercept = find("PixelValueTransformationSequence", "RescaleIntercept")
    return _checked_slice(header, number, position, orientation, spacing, slope, intercept)


def _checked_slice(
    header: Header,
    frame: int | None,
    position: Any,
    orientation: Any,
    spacing: Any,
    slope: Any,
    intercept: Any,
) -> Slice:
    path = header.path
    place = _numbers(position, 3, "ImagePositionPatient", path)
    cosines = _numbers(orientation, 6, "ImageOrientationPatient", path)
    gaps = _numbers(spacing, 2, "PixelSpacing", path)
    scale = _numbers([1 if slope is None else slope], 1, "RescaleSlope", path)[0]
    shift = _numbers([0 if intercept is None else intercept], 1, "RescaleIntercept", path)[0]
    if gaps.min() <= 0 or scale == 0:
        name = "RescaleSlope" if scale == 0 else "PixelSpacing"
        raise InputError(f"{path}: {name} is zero or negative; export it again")
    lengths = np.linalg.norm(cosines.reshape(2, 3), axis=1)
    skew = abs(float(cosines[:3] @ cosines[3:]))
    if np.abs(lengths - 1).max() > _ORIENTATION_TOLERANCE or skew > _ORIENTATION_TOLERANCE:
        raise InputError(
            f"{path}: ImageOrientationPatient is not two unit vectors at right angles; "
            "export it again"
        )
    unit = (cosines.reshape(2, 3) / lengths[:, None]).ravel()
    return Slice(header, frame, place, unit, (gaps[0], gaps[1]), float(scale), float(shift))


def _numbers(values: Any, count: int, name: str, path: Path) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(
            f"{path}: {name} is not {count} finite number{'s' * (count > 1)}; export it again"
        )
    return numbers
