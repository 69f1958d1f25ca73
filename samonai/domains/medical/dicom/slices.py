"""Geometry of DICOM slices: positions, orientations and rescaling, checked slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.concatenation import frame_offset
from samonai.domains.medical.dicom.headers import Header, element
from samonai.domains.medical.dicom.pixel_size import picture_spacing
from samonai.domains.medical.dicom.stated_size import check_stated_frames

# Direction cosines are written with few digits; a larger error is not rounding.
_ORIENTATION_TOLERANCE = 5e-3
_SAME_POSITION_MM = 1e-3
# Positions within this part of the widest step, and within these mm, are equal.
_SAME_PART, _SAME_AT_MOST_MM = 0.01, 0.05

# Per-frame functional groups of an enhanced multi-frame object, by keyword of a plain file.
_CONTENT = "FrameContentSequence"
_IN_FRAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "TemporalPositionIdentifier": ((_CONTENT, "TemporalPositionIndex"),),
    "AcquisitionNumber": ((_CONTENT, "FrameAcquisitionNumber"),),
    "AcquisitionTime": ((_CONTENT, "FrameAcquisitionDateTime"),),
    "AcquisitionDate": (),
    "ContentTime": (),
    "ContentDate": (),
    "StackID": ((_CONTENT, "StackID"),),
    "EchoTime": (("MREchoSequence", "EffectiveEchoTime"),),
    "InversionTime": (("MRModifierSequence", "InversionTimes"),),
    "FlipAngle": (("MRTimingAndRelatedParametersSequence", "FlipAngle"),),
    "KVP": (("CTXRayDetailsSequence", "KVP"),),
    "ConvolutionKernel": (("CTReconstructionSequence", "ConvolutionKernel"),),
    "SliceThickness": (("PixelMeasuresSequence", "SliceThickness"),),
    "SpacingBetweenSlices": (("PixelMeasuresSequence", "SpacingBetweenSlices"),),
    "ContrastBolusAgent": (("ContrastBolusUsageSequence", "ContrastBolusAgentNumber"),),
    "DiffusionBValue": (("MRDiffusionSequence", "DiffusionBValue"),),
    "DiffusionGradientOrientation": (
        (
            "MRDiffusionSequence",
            "DiffusionGradientDirectionSequence",
            "DiffusionGradientOrientation",
        ),
    ),
    "TriggerTime": (("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),),
    "ImageType": (
        ("MRImageFrameTypeSequence", "FrameType"),
        ("CTImageFrameTypeSequence", "FrameType"),
        ("PETFrameTypeSequence", "FrameType"),
    ),
    "ComplexImageComponent": (("MRImageFrameTypeSequence", "ComplexImageComponent"),),
}
# Private elements of vendors for missing standard ones: standard element, creator,
# element.
_PRIVATE = {
    "DiffusionBValue": (
        ((0x0019, 0x0010), "SIEMENS MR HEADER", (0x0019, 0x100C)),
        ((0x2001, 0x0010), "Philips Imaging DD 001", (0x2001, 0x1003)),
        ((0x0043, 0x0010), "GEMS_PARM_01", (0x0043, 0x1039)),
    ),
    "ComplexImageComponent": (((0x0043, 0x0010), "GEMS_PARM_01", (0x0043, 0x102F)),),
}


@dataclass(frozen=True)
class Slice:
    """One frame of a series with its position in DICOM's patient coordinates (LPS, mm).

    Attributes:
        header: Its file.
        frame: Its number in a multi-frame file, from 0; None for a file that is one slice.
        position: float64 (3,), centre of the first pixel.
        orientation: float64 (6,), unit directions of growing column and of growing row number.
        spacing: (between rows, between columns) in mm.
        slope: Rescale slope.
        intercept: Rescale intercept.
        groups: The frame's own and the shared functional groups of a multi-frame object.
        uncalibrated: Why `spacing` is a proportion and not in mm; empty if it is in mm.
    """

    header: Header
    frame: int | None
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float
    groups: tuple[Dataset, ...] = ()
    uncalibrated: str = ""

    def fact(self, keyword: str) -> str:
        """Return a header value of a file or frame as text, empty if absent."""
        if not self.groups or keyword not in _IN_FRAMES:
            return self.header.text(keyword) or _private_text(self.header, keyword)
        for group in self.groups:
            for path in _IN_FRAMES[keyword]:
                if value := _deep_value(group, path, self.header.path):
                    return value
        return ""

    @property
    def distance(self) -> float:
        """Return the slice's position along its normal in mm."""
        return float(self.position @ self.normal)

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Return the unit normal that makes (column, row, slice) a right-handed system."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def slices_of(header: Header) -> list[Slice]:
    """Return the slices of a file: one, or each frame of an enhanced multi-frame object.

    Raises:
        InputError: Positions, spacing or rescaling are missing or not usable numbers.
    """
    path = header.path
    count = header.number("NumberOfFrames", 1)
    check_stated_frames(header)
    if "PerFrameFunctionalGroupsSequence" not in header.dataset:
        plain = _plain_slice(header)
        if count == 1:
            return [plain]
        # A loop of pictures: no frame has a position, so they are stacked in their order.
        first = frame_offset(header)
        return [
            replace(plain, frame=n, position=np.array([0.0, 0.0, first + n])) for n in range(count)
        ]
    frames = header.value("PerFrameFunctionalGroupsSequence") or []
    shared = (header.value("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if len(frames) != count:
        raise InputError(f"{path}: {count} frames but {len(frames)} positions; export it again")
    return [_enhanced_slice(header, number, frame, shared) for number, frame in enumerate(frames)]


def is_placed(header: Header) -> bool:
    """Return whether a file has positions of its slices in the patient.

    Projections and screenshots have none, nor do several frames with one position.
    """
    if "PerFrameFunctionalGroupsSequence" in header.dataset:
        return True
    if header.number("NumberOfFrames", 1) != 1:
        return False
    return bool(header.value("ImagePositionPatient") and header.value("ImageOrientationPatient"))


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices in the order of their positions along the common normal."""
    return sorted(slices, key=lambda each: each.distance)


def groups_by_position(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Return sorted slices grouped by position; more than one in a group are duplicates."""
    groups: list[list[Slice]] = []
    ordered = sort_slices(slices)
    steps = np.diff([each.distance for each in ordered])
    # Two passes of one position may end 10 micrometres apart.
    widest = min(_SAME_PART * float(steps.max(initial=0.0)), _SAME_AT_MOST_MM)
    same = max(widest, _SAME_POSITION_MM)
    for each in ordered:
        if groups and np.abs(each.position - groups[-1][0].position).max() <= same:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _plain_slice(header: Header) -> Slice:
    position, orientation = (
        header.value("ImagePositionPatient"),
        header.value("ImageOrientationPatient"),
    )
    spacing, uncalibrated = header.value("PixelSpacing"), ""
    if not is_placed(header):
        position, orientation = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        spacing, uncalibrated = picture_spacing(header)
    elif not spacing:
        raise InputError(
            f"{header.path}: no PixelSpacing, so nothing says how large its pixels are; export "
            "the series again"
        )
    slope, intercept = header.value("RescaleSlope"), header.value("RescaleIntercept")
    found = _checked_slice(header, None, position, orientation, spacing, slope, intercept)
    return replace(found, uncalibrated=uncalibrated)


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
    found = _checked_slice(header, number, position, orientation, spacing, slope, intercept)
    return replace(found, groups=(frame, shared))


def _private_text(header: Header, keyword: str) -> str:
    """Return a vendor's private element in place of the standard's, empty if absent."""
    for creator_tag, creator, tag in _PRIVATE.get(keyword, ()):
        dataset = header.dataset
        try:
            if str(dataset[creator_tag].value).strip() != creator:
                continue
            value = dataset[tag].value
        except Exception:  # absent, or a parser error of any type
            continue
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace").strip("\0 ").split("\\")[0]
        return str(value if isinstance(value, str | int | float) else next(iter(value), ""))
    return ""


def _deep_value(dataset: Dataset, keywords: Sequence[str], path: Path) -> str:
    for keyword in keywords[:-1]:
        items = element(dataset, keyword, path)
        if not items:
            return ""
        dataset = items[0]
    value = element(dataset, keywords[-1], path) if keywords else None
    return "" if value is None else str(value)


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
