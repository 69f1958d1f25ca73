"""RTSTRUCT: writing of a label map, and reading of contours as masks on a series' grid."""

import datetime
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom.headers import element, quiet
from samonai.domains.medical.dicom.slices import Slice
from samonai.domains.medical.dicom.source_series import SourceSeries, copy_patient_and_study
from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.objects.contours import ContourCounts, combine_planar
from samonai.domains.medical.objects.object_uids import ObjectUids
from samonai.domains.medical.objects.segments import Segment
from samonai.domains.medical.volume import Volume
from samonai.domains.outlines import fill_polygons, outlines
from samonai.version import __version__

MANUFACTURER = "samonai"
_SERIES_OFFSET = 2
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # the study class used by radiotherapy objects
_CONTOUR_DATA = Tag(tag_for_keyword("ContourData") or 0)
_LONGEST_NAME = 64


def write_rtstruct(
    label: npt.NDArray[np.integer],
    segments: Sequence[Segment],
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
) -> Dataset:
    """Write a structure set with one structure per class.

    Each slice's contours run along the edges of its voxels, in the slice's own plane, one closed
    contour per component and slice, holes as keyholes.

    Args:
        label: integer (I, J, K), class per voxel, 0 is background.
        segments: The classes present in it, at least one.
        source: The headers of the series; slice k of the label lies on its slice k.
        facts: The algorithm of the label map.
        path: The file.

    Returns:
        The written object.
    """
    with quiet():
        dataset = _structure_set(source, facts, ObjectUids(label, segments, source, facts))
        dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
        dataset.RTROIObservationsSequence = []
        for number, segment in enumerate(segments, start=1):
            dataset.StructureSetROISequence.append(_structure(number, segment, source))
            dataset.ROIContourSequence.append(_contours(number, segment, label, source))
            dataset.RTROIObservationsSequence.append(_observation(number, segment))
        with write_atomically(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
    return dataset


def _structure_set(source: SourceSeries, facts: LabelFacts, uids: ObjectUids) -> Dataset:
    now = datetime.datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    copy_patient_and_study(source.first, dataset)
    dataset.SOPClassUID = uid.RTStructureSetStorage
    dataset.SOPInstanceUID = uids("RTSTRUCT", "instance")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", uids("RTSTRUCT", "series")
    dataset.SeriesNumber = source.series_number(_SERIES_OFFSET)
    dataset.SeriesDescription, dataset.OperatorsName = "samonai structures", ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = str(facts.algorithm.get("model", MANUFACTURER))[:_LONGEST_NAME]
    dataset.SoftwareVersions = __version__
    dataset.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = str(source.first.get("PositionReferenceIndicator") or "")
    dataset.StructureSetLabel = MANUFACTURER
    dataset.StructureSetDescription = ", ".join(
        f"{key}={value}" for key, value in facts.algorithm.items()
    )
    dataset.StructureSetDate, dataset.StructureSetTime = date, time
    dataset.InstanceNumber, dataset.ApprovalStatus = 1, "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_reference(source)]
    return dataset


def _reference(source: SourceSeries) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ContourImageSequence = [_image(each, None) for each in source.datasets]
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(header: Dataset, frame: int | None) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID = header.SOPClassUID
    image.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None:
        image.ReferencedFrameNumber = frame
    return image


def _structure(number: int, segment: Segment, source: SourceSeries) -> Dataset:
    structure = Dataset()
    structure.ROINumber, structure.ROIName = number, segment.name[:_LONGEST_NAME]
    structure.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    structure.ROIGenerationAlgorithm = "AUTOMATIC"
    structure.ROIGenerationDescription = f"{MANUFACTURER} {__version__}"
    return structure


def _observation(number: int, segment: Segment) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = "" if not segment.is_coded else "ORGAN"
    observation.ROIInterpreter = ""
    if segment.is_coded:
        observation.RTROIIdentificationCodeSequence = [
            _coded(segment.code.type, segment.code.scheme)
        ]
    return observation


def _coded(pair: tuple[str, str], scheme: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = pair
    code.CodingSchemeDesignator = scheme
    return code


def _contours(
    number: int, segment: Segment, label: npt.NDArray[np.integer], source: SourceSeries
) -> Dataset:
    contours = Dataset()
    contours.ReferencedROINumber = number
    contours.ROIDisplayColor = list(segment.colour)
    contours.ContourSequence = list(_slice_contours(segment.value, label, source))
    return contours


def _slice_contours(
    value: int, label: npt.NDArray[np.integer], source: SourceSeries
) -> Iterator[Dataset]:
    for k in range(label.shape[2]):
        mask: npt.NDArray[np.bool_] = np.equal(label[:, :, k].T, value)
        if not mask.any():
            continue
        image = _image(*source.numbers(k))
        for polygon in outlines(mask):
            contour = Dataset()
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            contour[_CONTOUR_DATA] = _contour_data(_in_patient(polygon, source.slices[k]))
            yield contour


def _in_patient(polygon: npt.NDArray[np.float64], each: Slice) -> npt.NDArray[np.float64]:
    """Return corners (x, y) of a slice's frame space as LPS mm, (N, 3)."""
    along_row, along_column = each.orientation[:3], each.orientation[3:]
    between_rows, between_columns = each.spacing
    return (
        each.position
        + polygon[:, :1] * between_columns * along_row
        + polygon[:, 1:] * between_rows * along_column
    )


def _contour_data(points: npt.NDArray[np.float64]) -> Any:
    """Return the element in its encoded form: a number object per value needs too much memory."""
    text = "\\".join(str(format_number_as_ds(value)) for value in points.ravel().tolist())
    content = (text + " " * (len(text) % 2)).encode("ascii")
    return RawDataElement(_CONTOUR_DATA, "DS", len(content), content, 0, False, True)


logger = logging.getLogger(__name__)

# Contours lie on slices; planning systems round their positions, but by less than this.
_OFF_SLICE = 0.1
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_FEWEST_POINTS = 3

Mask = npt.NDArray[np.bool_]


def roi_names(header: Dataset, path: Path) -> dict[int, str]:
    """Return the names of the regions that have closed contours, by number."""
    drawn = {
        int(element(item, "ReferencedROINumber", path) or 0)
        for item in element(header, "ROIContourSequence", path) or []
        if any(_is_closed(contour, path) for contour in _contour_items(item, path))
    }
    names = {}
    for item in element(header, "StructureSetROISequence", path) or []:
        number = int(element(item, "ROINumber", path) or 0)
        if number in drawn:
            names[number] = str(element(item, "ROIName", path) or f"roi_{number}").strip()
    return names


def read_regions(
    path: Path, reference: Volume, wanted: Collection[str] | None = None
) -> Iterator[tuple[str, Mask]]:
    """Yield each structure's name and mask; regions of one name are one structure, their union.

    The contours of one region on one slice are combined as `combine_planar` says, those of type
    CLOSEDPLANAR_XOR by the even-odd rule. Pixel centres count (see `fill_polygons`), so that
    contours along the edges of pixels give back exactly those pixels.

    Args:
        path: The structure set.
        reference: The volume of the series that it was drawn on.
        wanted: Names to read; faults in other regions are ignored. None: all.

    Yields:
        Name, and bool (I, J, K) on the reference's grid.

    Raises:
        InputError: The object is damaged, or a contour of a wanted region is not of finite numbers
            or lies between or outside the slices.
    """
    with quiet():
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception:
            raise InputError(f"{path}: not a readable RTSTRUCT; export it again") from None
        names = roi_names(dataset, path)
        by_name: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for item in element(dataset, "ROIContourSequence", path) or []:
            number = int(element(item, "ReferencedROINumber", path) or 0)
            name = names.get(number)
            if name is not None and (wanted is None or name in wanted):
                by_name[name][number] += _contour_items(item, path)
        counts, left_out = ContourCounts(), 0
        for name, regions in by_name.items():
            columns, rows, slices = reference.shape
            mask = np.zeros((slices, rows, columns), bool)
            for contours in regions.values():
                left_out += _fill(mask, name, contours, reference, path, counts)
            yield name, mask.transpose(2, 1, 0)
    _log(counts, left_out, sum(len(regions) - 1 for regions in by_name.values()))


def _log(counts: ContourCounts, left_out: int, joined: int) -> None:
    if left_out:
        logger.warning(
            "structure set: left out %d points, open lines and contours of fewer than three points",
            left_out,
        )
    level = logging.WARNING if joined or counts.repeated or counts.overlapping else logging.INFO
    if joined or counts != ContourCounts():
        logger.log(
            level,
            "structure set: %d contours stored twice count once, %d within another one are holes, "
            "%d pairs that overlap are united, %d regions are united with another one of their "
            "name",
            *(counts.repeated, counts.holes, counts.overlapping, joined),
        )


def _fill(
    mask: Mask,
    name: str,
    contours: list[Any],
    reference: Volume,
    path: Path,
    counts: ContourCounts,
) -> int:
    """Add one region to bool (K, J, I); return how many of its contours enclose no pixel."""
    to_voxels = np.linalg.inv(LPS_TO_RAS @ reference.affine)
    on_slice: dict[tuple[int, bool], list[npt.NDArray[np.float64]]] = defaultdict(list)
    left_out = 0
    for contour in contours:
        points = _points(name, contour, path) if _is_closed(contour, path) else ()
        if len(points) < _FEWEST_POINTS:
            left_out += 1
            continue
        voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        k = _slice_of(voxels, name, reference, path)
        is_xor = str(element(contour, "ContourGeometricType", path)) == _XOR
        on_slice[k, is_xor].append(voxels[:, :2])
    shape = mask.shape[1], mask.shape[2]
    for (k, is_xor), polygons in on_slice.items():
        if is_xor:
            mask[k] |= fill_polygons(polygons, shape)
        else:
            mask[k] |= combine_planar(polygons, shape, counts)
    return left_out


def _slice_of(voxels: npt.NDArray[np.float64], name: str, reference: Volume, path: Path) -> int:
    k = float(np.median(voxels[:, 2]))
    if np.abs(voxels[:, 2] - round(k)).max() > _OFF_SLICE:
        raise InputError(
            f"{path}: a contour of {name!r:.60} does not lie on a slice of the image (at slice "
            f"{k:.2f}); give the series that it was drawn on"
        )
    if not 0 <= round(k) < reference.shape[2]:
        raise InputError(
            f"{path}: a contour of {name!r:.60} lies beyond the image's slices; give the whole "
            "series that it was drawn on"
        )
    return round(k)


def _points(name: str, contour: Dataset, path: Path) -> npt.NDArray[np.float64]:
    """Return a contour's points as LPS mm, (N, 3)."""
    values = element(contour, "ContourData", path)
    try:
        points = np.array([float(value) for value in values or ()]).reshape(-1, 3)
    except (TypeError, ValueError):
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise InputError(
            f"{path}: a contour of {name!r:.60} is not made of points of three numbers; export it "
            "again, or name the structures to read: --set structures=NAME,..."
        )
    return points


def _contour_items(item: Dataset, path: Path) -> list[Any]:
    return list(element(item, "ContourSequence", path) or [])


def _is_closed(contour: Dataset, path: Path) -> bool:
    return str(element(contour, "ContourGeometricType", path) or "") in _CLOSED


def referenced_series(header: Dataset, path: Path) -> set[str]:
    """Return the SeriesInstanceUIDs that a structure set refers to; empty if it has none."""
    return {
        str(series.get("SeriesInstanceUID", ""))
        for frame in element(header, "ReferencedFrameOfReferenceSequence", path) or []
        for study in element(frame, "RTReferencedStudySequence", path) or []
        for series in element(study, "RTReferencedSeriesSequence", path) or []
    } - {""}


def referenced_frame(header: Dataset, path: Path) -> str:
    """Return the FrameOfReferenceUID of the contours; empty if there are several or none."""
    frames = element(header, "ReferencedFrameOfReferenceSequence", path) or []
    uids = {str(frame.get("FrameOfReferenceUID", "")) for frame in frames} or {
        str(element(header, "FrameOfReferenceUID", path) or "")
    }
    return uids.pop() if len(uids) == 1 else ""
