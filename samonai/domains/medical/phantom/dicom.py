"""Phantom patient as a DICOM series of CT images, one file per slice."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

_RESCALE_INTERCEPT = -1024
_DATE, _TIME = "20000101", "120000"
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(
    folder: Path,
    data: npt.NDArray[np.integer],
    affine: npt.NDArray[np.float64],
    *,
    number: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """Write a volume as an uncompressed CT series.

    The first instance is the slice nearest to the head, as scanners often number them, so the
    files' order is not the order along the normal.

    Args:
        folder: Folder of the files; made when missing.
        data: int16 (I, J, K), HU in -1024..3071; i along columns, j along rows, k along slices.
        affine: float64 (4, 4), index to mm in RAS+.
        number: The phantom's number, in its name and id.
        seed: Part of the UIDs, which are the same for the same seed and number.

    Returns:
        The affine of the written decimal strings, in RAS+, k along the normal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = _shared(number, seed)
    lps = _LPS_FROM_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    slices = data.shape[2]
    for k in range(slices):
        instance = slices - k
        image = Dataset()
        image.update(shared)
        image.SOPInstanceUID = generate_uid(entropy_srcs=[f"samonai {seed} {number} {instance}"])
        image.InstanceNumber = instance
        image.ImagePositionPatient = _decimals(lps[:3, 3] + k * lps[:3, 2])
        image.ImageOrientationPatient = _decimals(directions[:, :2].T.ravel())
        image.PixelSpacing = _decimals(spacing[[1, 0]])  # between rows first
        image.SliceThickness = _decimals(spacing[2:])[0]
        _set_pixels(image, data[:, :, k].T)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(folder / f"IM{instance:04d}.dcm", enforce_file_format=True)
        if k == 0:
            first = image
    last = image
    return _affine_of(first, last, slices, lps)


def _shared(number: int, seed: int) -> Dataset:
    """Return the elements shared by all slices."""
    uids = [
        generate_uid(entropy_srcs=[f"samonai {seed} {number} {what}"])
        for what in ("study", "series", "frame of reference")
    ]
    shared = Dataset()
    shared.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    shared.SOPClassUID = CTImageStorage
    shared.StudyInstanceUID, shared.SeriesInstanceUID, shared.FrameOfReferenceUID = uids
    shared.PatientName = f"PHANTOM^{number:03d}"
    shared.PatientID = f"PHANTOM-{number:03d}"
    shared.PatientBirthDate = shared.PatientSex = ""
    shared.QualityControlSubject = "YES"  # DICOM's word for a phantom
    shared.StudyDate = shared.SeriesDate = shared.ContentDate = _DATE
    shared.StudyTime = shared.SeriesTime = shared.ContentTime = _TIME
    shared.AccessionNumber = shared.ReferringPhysicianName = ""
    shared.StudyID = "1"
    shared.StudyDescription = shared.SeriesDescription = "made-up abdomen"
    shared.SeriesNumber = shared.AcquisitionNumber = 1
    shared.Modality = "CT"
    shared.Manufacturer = "samonai"
    shared.KVP = ""
    shared.PatientPosition = "HFS"
    shared.PositionReferenceIndicator = ""
    shared.BodyPartExamined = "ABDOMEN"
    shared.BurnedInAnnotation = "NO"
    return shared


def _set_pixels(image: Dataset, plane: npt.NDArray[np.integer]) -> None:
    """Store a plane of HU (rows, columns) as 12 bits."""
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = plane.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleIntercept, image.RescaleSlope = _RESCALE_INTERCEPT, 1
    image.RescaleType = "HU"
    image.WindowCenter, image.WindowWidth = 40, 400
    image.PixelData = (plane.astype(np.int32) - _RESCALE_INTERCEPT).astype("<u2").tobytes()


def _affine_of(
    first: Dataset, last: Dataset, slices: int, lps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    # A decimal string has 16 characters, so written positions differ from computed ones in the
    # last digits; the label must lie at the written positions.
    start, end = (np.array(image.ImagePositionPatient, float) for image in (first, last))
    along_row, along_column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(step) for step in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = (end - start) / (slices - 1) if slices > 1 else lps[:3, 2]
    affine[:3, 3] = start
    return _LPS_FROM_RAS @ affine


def _decimals(values: npt.NDArray[np.float64]) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]
