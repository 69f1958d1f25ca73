"""Write a label map as a DICOM RT Structure Set: contours that hold exactly its voxels."""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from samonai import __version__
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom_files import quiet
from samonai.domains.medical.dicom_slices import Slice
from samonai.domains.medical.dicom_source import SourceSeries, copy_patient_and_study
from samonai.domains.medical.segments import Segment
from samonai.domains.outlines import outlines
from samonai.files import write_atomically

MANUFACTURER = "samonai"
_SERIES_OFFSET = 2
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # what radiotherapy objects call a study
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
        facts: Which algorithm made it.
        path: Where to write.

    Returns:
        What was written.
    """
    with quiet():
        dataset = _structure_set(source, facts)
        dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
        dataset.RTROIObservationsSequence = []
        for number, segment in enumerate(segments, start=1):
            dataset.StructureSetROISequence.append(_structure(number, segment, source))
            dataset.ROIContourSequence.append(_contours(number, segment, label, source))
            dataset.RTROIObservationsSequence.append(_observation(number, segment))
        with write_atomically(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
    return dataset


def _structure_set(source: SourceSeries, facts: LabelFacts) -> Dataset:
    now = datetime.datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    copy_patient_and_study(source.first, dataset)
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.RTStructureSetStorage, uid.generate_uid()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", uid.generate_uid()
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
        observation.RTROIIdentificationCodeSequence = [_coded(segment.code.type)]
    return observation


def _coded(pair: tuple[str, str]) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = pair
    code.CodingSchemeDesignator = "SCT"
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
    """Return the element as it will lie in the file: a number object per value fills memories."""
    text = "\\".join(str(format_number_as_ds(value)) for value in points.ravel().tolist())
    content = (text + " " * (len(text) % 2)).encode("ascii")
    return RawDataElement(_CONTOUR_DATA, "DS", len(content), content, 0, False, True)
