"""DICOM-SEG: writing of a label map, and reading of segments as masks on a series' grid."""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom.headers import element, quiet
from samonai.domains.medical.dicom.source_series import SourceSeries
from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.objects.object_uids import ObjectUids
from samonai.domains.medical.objects.segments import Segment
from samonai.domains.medical.volume import Volume, format_shape, is_sheared
from samonai.version import __version__

logger = logging.getLogger(__name__)

MANUFACTURER = "samonai"
_SERIES_OFFSET = 1
_LONGEST_TEXT = 64  # of DICOM's LO
_FEWEST_PIXELS = 8  # highdicom 0.28 packs the bits of smaller frames wrongly
# array axes (i, j, k) lie as (columns, rows, slices); highdicom's are (slices, rows, columns)
_TO_SLICES_FIRST = [2, 1, 0, 3]


def write_dicom_seg(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segments: Sequence[Segment],
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
) -> hd.seg.Segmentation:
    """Write a BINARY segmentation with one segment per class.

    Args:
        volume: The volume of the label's grid.
        label: integer (I, J, K), class per voxel, 0 is background.
        segments: The classes present in it, at least one; segment n is `segments[n - 1]`.
        source: The headers of the volume's series.
        facts: The algorithm of the label map.
        path: The file.

    Returns:
        The written object, for reports that refer to it.

    Raises:
        InputError: The grid is sheared and not the slices' own, its slices are tiny, or the
            series' headers cannot be copied into the object.
    """
    if label.shape[0] * label.shape[1] < _FEWEST_PIXELS:
        raise InputError(
            f"{path.name}: slices of fewer than {_FEWEST_PIXELS} pixels cannot be written as "
            f"DICOM-SEG; write nifti, nrrd or mha"
        )
    with quiet():
        segmentation = _segmentation(volume, label, segments, source, facts, path)
        with write_atomically(path) as temporary:
            segmentation.save_as(temporary)
    return segmentation


def algorithm_identification(facts: LabelFacts) -> hd.AlgorithmIdentificationSequence:
    """Return algorithm, version and weights of a label map for DICOM objects."""
    return hd.AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=_code("DCM", "123109", "Artificial Intelligence"),
        version=__version__,
        source=MANUFACTURER,
        parameters={key: str(value) for key, value in facts.algorithm.items()} or None,
    )


def coded(pair: tuple[str, str], scheme: str = "SCT") -> Code:
    """Return a code of a scheme, SNOMED CT by default, with its meaning as a DICOM code."""
    return _code(scheme, *pair)


def tracking_id(segment: Segment, uid: str) -> str:
    """Return a tracking id that is unique among segments of one name."""
    return f"{segment.name[: _LONGEST_TEXT - 9]} {uid[-8:]}"


def equipment(facts: LabelFacts) -> dict[str, Any]:
    """Return highdicom's arguments for the equipment."""
    weights = facts.algorithm.get("decoder_sha256") or facts.algorithm.get("encoder_sha256")
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": str(facts.algorithm.get("model", MANUFACTURER))[:_LONGEST_TEXT],
        "software_versions": __version__,
        "device_serial_number": str(weights or __version__)[:_LONGEST_TEXT],
    }


def _segmentation(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segments: Sequence[Segment],
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
) -> hd.seg.Segmentation:
    array, first = _numbered(label, segments)
    pixels, images = _placed(volume, array, first, source, path)
    uids = ObjectUids(label, segments, source, facts)
    try:
        return hd.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(segments, facts, uids),
            series_instance_uid=uids("SEG", "series"),
            series_number=source.series_number(_SERIES_OFFSET),
            sop_instance_uid=uids("SEG", "instance"),
            instance_number=1,
            series_description="samonai segmentation",
            content_label="SAMONAI",
            content_description="Predicted label map",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment(facts),
        )
    except (ValueError, TypeError, AttributeError) as error:
        # The error's text may quote the patient's elements.
        logger.debug("highdicom: %s", type(error).__name__)
        raise InputError(
            f"{path.name}: the series' headers cannot be carried over into a DICOM-SEG "
            f"({type(error).__name__}); write nifti, nrrd or mha"
        ) from None


def _numbered(
    label: npt.NDArray[np.integer], segments: Sequence[Segment]
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """Return the non-empty slices, slices first, with classes numbered from 1 as segments.

    Only those are copied, to save memory on long series.
    """
    filled = np.flatnonzero(label.any(axis=(0, 1)))
    first, last = int(filled[0]), int(filled[-1])
    kind = np.uint8 if len(segments) <= np.iinfo(np.uint8).max else np.uint16
    number = np.zeros(max(segment.value for segment in segments) + 1, kind)
    for position, segment in enumerate(segments, start=1):
        number[segment.value] = position
    return number[label[:, :, first : last + 1].transpose(2, 1, 0)], first


def _placed(
    volume: Volume,
    array: npt.NDArray[np.unsignedinteger[Any]],
    first: int,
    source: SourceSeries,
    path: Path,
) -> tuple[Any, list[Any]]:
    """Return the pixels with their positions, and the images that they refer to."""
    if not is_sheared(volume.affine):
        affine = (LPS_TO_RAS @ volume.affine)[:, _TO_SLICES_FIRST]
        affine[:3, 3] += affine[:3, 0] * first
        placed = hd.Volume(
            array,
            affine,
            coordinate_system="PATIENT",
            frame_of_reference_uid=source.first.FrameOfReferenceUID,
        )
        return placed, list(source.datasets)
    if len(source.datasets) != volume.shape[2]:
        raise InputError(f"{path.name}: the grid is sheared, which this DICOM-SEG cannot say")
    # Leaning slices: each frame lies where its own image does.
    return array, list(source.datasets[first : first + len(array)])


def _descriptions(
    segments: Sequence[Segment], facts: LabelFacts, uids: ObjectUids
) -> list[hd.seg.SegmentDescription]:
    identification = algorithm_identification(facts)
    descriptions = []
    for number, segment in enumerate(segments, start=1):
        uid = uids("segment", number)
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name[:_LONGEST_TEXT],
            segmented_property_category=coded(segment.code.category),
            segmented_property_type=coded(segment.code.type, segment.code.scheme),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identification,
            tracking_uid=uid,
            tracking_id=tracking_id(segment, uid),
            display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
        )
        if segment.code.side is not None:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [
                hd.sr.CodedConcept.from_code(coded(segment.code.side))
            ]
        descriptions.append(description)
    return descriptions


def _code(scheme: str, value: str, meaning: str) -> Code:
    return Code(value, scheme, meaning)


FRACTION = 0.5
"""A voxel of a fractional segment is inside from this share of the largest value on."""

# Voxel centres of label and image may differ by this many voxels, as corners of `same_grid` may.
_TOLERANCE_VOXELS = 0.05
_UNNUMBERED = 0  # background of label maps without a Pixel Padding Value
_BACKGROUND_CODE = ("125040", "DCM")

Mask = npt.NDArray[np.bool_]


def segment_names(header: Dataset, path: Path) -> dict[int, str]:
    """Return the labels of an object's segments by number, without the background.

    The background of a label map (PS3.3 C.8.20.2) is the segment of its Pixel Padding Value, 0
    without one; in any object it is the segment of the type 125040 DCM.
    """
    padding = element(header, "PixelPaddingValue", path) if _is_label_map(header, path) else None
    background = _UNNUMBERED if padding is None else int(padding)
    names = {}
    for item in element(header, "SegmentSequence", path) or []:
        number = int(element(item, "SegmentNumber", path) or 0)
        if number != background and not _is_background(item, path):
            names[number] = str(element(item, "SegmentLabel", path) or f"segment_{number}").strip()
    return names


def _is_label_map(header: Dataset, path: Path) -> bool:
    return str(element(header, "SegmentationType", path) or "") == "LABELMAP"


def _is_background(segment: Dataset, path: Path) -> bool:
    return any(
        (str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", "")))
        == _BACKGROUND_CODE
        for code in element(segment, "SegmentedPropertyTypeCodeSequence", path) or []
    )


def read_segments(
    path: Path, reference: Volume, wanted: Collection[str] | None = None
) -> Iterator[tuple[str, Mask]]:
    """Yield each segment's name and mask; segments of one name are one structure.

    Each frame is placed by its own position, so that neither their order, left-out frames nor a
    tilted series matter.

    Args:
        path: The object: BINARY, FRACTIONAL (see `FRACTION`) or LABELMAP.
        reference: The volume of the series.
        wanted: Names to read; faults in frames of other segments are ignored. None:
            all.

    Yields:
        Name, and bool (I, J, K) on the reference's grid.

    Raises:
        InputError: The object is damaged, or a frame lies on another grid.
    """
    try:
        segmentation = hd.seg.segread(path)
    except Exception:  # highdicom and pydicom raise almost anything on damaged files
        raise InputError(f"{path}: not a readable DICOM-SEG object; export it again") from None
    numbers: dict[str, list[int]] = {}
    for number, name in segment_names(segmentation, path).items():
        if wanted is None or name in wanted:
            numbers.setdefault(name, []).append(number)
    frames = _frames(segmentation, path, reference, {n for of in numbers.values() for n in of})
    for name, of_name in numbers.items():
        mask = np.zeros(reference.shape, bool)
        for segment, places in frames:
            if segment is None or segment in of_name:
                _paint(mask, segmentation, places, of_name if segment is None else None, path)
        yield name, mask


_Places = tuple[int, npt.NDArray[np.float64]]


def _frames(
    segmentation: Any, path: Path, reference: Volume, wanted: Collection[int]
) -> list[tuple[int | None, _Places]]:
    """Return the wanted segments' frames: segment (None: a label map's), pixel to voxel."""
    to_voxels = np.linalg.inv(LPS_TO_RAS @ reference.affine)
    shared = (element(segmentation, "SharedFunctionalGroupsSequence", path) or [Dataset()])[0]
    found: list[tuple[int | None, _Places]] = []
    for index, frame in enumerate(element(segmentation, "PerFrameFunctionalGroupsSequence", path)):
        number = _find(frame, shared, "SegmentIdentificationSequence", path)
        segment = None if number is None else int(number.ReferencedSegmentNumber)
        if segment is not None and segment not in wanted:
            continue
        position = _find(frame, shared, "PlanePositionSequence", path)
        orientation = _find(frame, shared, "PlaneOrientationSequence", path)
        measures = _find(frame, shared, "PixelMeasuresSequence", path)
        if position is None or orientation is None or measures is None:
            raise InputError(f"{path}: frame {index + 1} has no position; export it again")
        between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
        cosines = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
        lps = np.zeros((4, 3))
        lps[:3, 0], lps[:3, 1] = cosines[0] * between_columns, cosines[1] * between_rows
        lps[:, 2] = [*(float(v) for v in position.ImagePositionPatient), 1]
        found.append((segment, (index, (to_voxels @ lps)[:3])))
    return found


def _find(frame: Dataset, shared: Dataset, group: str, path: Path) -> Dataset | None:
    for place in (frame, shared):
        if items := element(place, group, path):
            return items[0]
    return None


def _paint(
    mask: Mask, segmentation: Any, places: _Places, values: list[int] | None, path: Path
) -> None:
    """Set the voxels of one frame; `values` are the label map's values of the segment."""
    index, pixel_to_voxel = places
    try:
        stored = np.asarray(segmentation.get_stored_frame(index, as_index=True))
    except Exception:
        raise InputError(f"{path}: pixel data cut short or damaged; copy it again") from None
    whole = np.rint(pixel_to_voxel)
    extent = np.array([stored.shape[1], stored.shape[0], 1])
    if (np.abs(pixel_to_voxel - whole) * extent).max() > _TOLERANCE_VOXELS:
        raise InputError(
            f"{path}: frame {index + 1} of {stored.shape[1]}x{stored.shape[0]} does not lie on the "
            f"voxels of the image of {format_shape(mask.shape)}; resample it onto the image"
        )
    if values is not None:
        inside = np.isin(stored, values)
    elif str(segmentation.SegmentationType) == "FRACTIONAL":
        inside = stored >= FRACTION * float(segmentation.MaximumFractionalValue)
    else:
        inside = stored > 0
    rows, columns = np.nonzero(inside)
    pixels = np.stack([columns, rows, np.ones_like(rows)])
    voxels = (whole.astype(np.int64) @ pixels).astype(np.int64)
    if ((voxels < 0) | (voxels >= np.array(mask.shape)[:, None])).any():
        raise InputError(f"{path}: frame {index + 1} reaches out of the image; is it of this scan?")
    mask[tuple(voxels)] = True


def referenced_series(header: Dataset, path: Path) -> set[str]:
    """Return the SeriesInstanceUIDs that an object refers to; empty if it has none."""
    items = element(header, "ReferencedSeriesSequence", path) or []
    return {str(item.get("SeriesInstanceUID", "")) for item in items} - {""}


def referenced_frame(header: Dataset, path: Path) -> str:
    """Return the FrameOfReferenceUID of an object; empty if it has none."""
    return str(element(header, "FrameOfReferenceUID", path) or "")
