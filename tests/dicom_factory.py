"""Small DICOM series made up in memory: whole, shuffled, torn, doubled, mixed."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

CANARY = "CANARYPATIENT"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (0.8, 0.7)  # between rows, between columns
STEP = 2.5
INTERCEPT = -1024

Edit = Callable[[Dataset, int], None]


@dataclass(frozen=True)
class Series:
    """What was written, and what reading it must give."""

    folder: Path
    uid: str
    stored: npt.NDArray[np.int16]  # slices, rows, columns
    affine: npt.NDArray[np.float64]  # RAS+

    @property
    def expected(self) -> npt.NDArray[np.float32]:
        return (self.stored + np.float32(INTERCEPT)).transpose(2, 1, 0)


def stored_values(shape: tuple[int, int, int] = (6, 5, 4), seed: int = 0) -> npt.NDArray[np.int16]:
    """Random stored values of (slices, rows, columns)."""
    return np.random.default_rng(seed).integers(0, 3000, shape).astype(np.int16)


def write_series(
    folder: Path,
    stored: npt.NDArray[np.int16] | None = None,
    *,
    uid: str | None = None,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, -30.0),
    edit: Edit | None = None,
    skip: Sequence[int] = (),
    order: Sequence[int] | None = None,
    name: str = "slice{:03d}",
) -> Series:
    """Write one file per slice, and return what reading must give.

    `order` lists slice numbers in the order in which files and instance numbers count them,
    `skip` names slices that are left out, `edit` changes a slice's elements before it is written.
    """
    stored = stored_values() if stored is None else stored
    uid = uid or generate_uid()
    cosines = np.asarray(orientation, float).reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    study = generate_uid()
    for count, number in enumerate(order or range(len(stored))):
        if number in skip:
            continue
        position = np.asarray(origin) + normal * STEP * number
        with warnings.catch_warnings():  # nonsense is written on purpose
            warnings.simplefilter("ignore")
            dataset = make_slice(stored[number], position, orientation, uid, study)
            dataset.InstanceNumber = count + 1
            if edit is not None:
                edit(dataset, number)
            save(dataset, folder / name.format(count))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = cosines[0] * SPACING[1], cosines[1] * SPACING[0]
    lps[:3, 2], lps[:3, 3] = normal * STEP, origin
    return Series(folder, uid, stored, np.diag([-1.0, -1, 1, 1]) @ lps)


def make_slice(
    pixels: npt.NDArray[Any],
    position: Sequence[float] | npt.NDArray[np.float64],
    orientation: Sequence[float] = AXIAL,
    uid: str = "1.2.3",
    study: str = "1.2",
) -> FileDataset:
    """Return one CT slice, patient's text elements filled with a canary."""
    dataset = _image(pixels, CTImageStorage, uid, study)
    dataset.ImagePositionPatient = [float(value) for value in position]
    dataset.ImageOrientationPatient = [float(value) for value in orientation]
    dataset.PixelSpacing = list(SPACING)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, INTERCEPT
    return dataset


def make_enhanced(stored: npt.NDArray[np.int16], order: Sequence[int]) -> FileDataset:
    """Return an enhanced multi-frame CT whose frames lie in the given order."""
    dataset = _image(stored[list(order)], EnhancedCTImageStorage, generate_uid(), generate_uid())
    dataset.NumberOfFrames = len(stored)
    shared, measures, plane, value = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(SPACING)
    plane.ImageOrientationPatient = list(AXIAL)
    value.RescaleSlope, value.RescaleIntercept = 1, INTERCEPT
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    shared.PixelValueTransformationSequence = [value]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, 20.0, -30.0 + STEP * number]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _image(pixels: npt.NDArray[Any], sop_class: str, uid: str, study: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, uid
    dataset.FrameOfReferenceUID = study
    dataset.PatientName, dataset.PatientID = f"{CANARY}^A", CANARY
    dataset.SeriesDescription = dataset.StudyDescription = CANARY
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    return dataset
