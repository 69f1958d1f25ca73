"""Label objects made up beside a series of `dicom_factory`: DICOM-SEG and RTSTRUCT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from samonai.domains.medical import Volume
from samonai.domains.medical.formats.itk import LPS_TO_RAS

Contours = Sequence[tuple[int, Sequence[tuple[float, float]]]]


def write_seg(
    series: Path,
    masks: Mapping[str, npt.NDArray[Any]],
    path: Path,
    kind: str = "BINARY",
) -> None:
    """Write masks (I, J, K) as segments; for FRACTIONAL they hold shares from 0 to 1."""
    images = [pydicom.dcmread(file) for file in series.rglob("*") if file.is_file()]
    images.sort(key=lambda each: _distance(each))
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels.astype(np.float64 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type="MANUAL",
            )
            for number, name in enumerate(masks, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        max_fractional_value=200,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def _distance(image: Dataset) -> float:
    cosines = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    return float(np.array(image.ImagePositionPatient, float) @ normal)


def write_rtstruct(
    volume: Volume, regions: Mapping[str, Contours], path: Path, kind: str = "CLOSED_PLANAR"
) -> None:
    """Write contours given as (slice, [(i, j), ...]) in voxel indices of a DICOM volume."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    dataset.StudyInstanceUID = "1.2"
    dataset.StructureSetLabel = "test"
    dataset.ReferencedFrameOfReferenceSequence = [_reference(volume)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    dataset.RTROIObservationsSequence = []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        roi.ReferencedFrameOfReferenceUID = "1.2.3.4.5"
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(volume, k, points, kind) for k, points in contours]
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _reference(volume: Volume) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = volume.facts.series_uid
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    frame.FrameOfReferenceUID = "1.2.3.4.5"
    return frame


def _contour(volume: Volume, k: int, points: Sequence[tuple[float, float]], kind: str) -> Dataset:
    voxels = np.array([(i, j, k, 1) for i, j in points], float)
    lps = voxels @ (LPS_TO_RAS @ volume.affine).T
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.6f}"[:16] for value in lps[:, :3].ravel()]
    return contour


def square(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]
