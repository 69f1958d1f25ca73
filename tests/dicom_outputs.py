"""What tests of written DICOM objects share: sources to write on, other readers, validators."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from dicom_factory import AXIAL, Series, stored_values, write_series
from pydicom.dataset import Dataset

from samonai.domains.base import LabelFacts
from samonai.domains.medical import Volume, read_volume
from samonai.domains.medical.formats.itk import LPS_TO_RAS

ORIENTATIONS = {
    "axial": AXIAL,
    "axial, upside down": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": (0.8, 0.6, 0.0, -0.36, 0.48, 0.8),
}
FACTS = LabelFacts(
    {1: "kidney_left", 3: "nobody knows this"},
    {"model": "micro", "encoder_sha256": "ab" * 8, "decoder_sha256": "cd" * 8},
)


def completed(dataset: Dataset, number: int) -> None:
    """Give a slice what whole series have: a frame of reference, dates, a description."""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.4.5", ""
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19700203", "F", "055Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "101112", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A77", "REFERRER^R"
    dataset.SeriesNumber, dataset.SliceThickness = 4, 2.5
    dataset.Manufacturer, dataset.FrameOfReferenceUID = "MAKER", "1.2.3.4.5"
    dataset.KVP, dataset.AcquisitionNumber = 120, 1
    dataset.RescaleType = "HU"


def make_source(
    folder: Path,
    orientation: Sequence[float] = AXIAL,
    shape: tuple[int, int, int] = (6, 9, 5),
    order: Sequence[int] | None = None,
) -> tuple[Series, Volume]:
    """Write a series of (slices, rows, columns) and read it."""
    series = write_series(
        folder, stored_values(shape), orientation=orientation, order=order, edit=completed
    )
    return series, read_volume(folder)


def make_label(shape: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    """A label map without any symmetry: a block with a hole, two other parts, a lone voxel."""
    label = np.zeros(shape, np.int32)
    first = min(1, shape[2] - 1)
    label[0:3, 1:5, first : max(first + 1, shape[2] - 1)] = 1
    label[1, 2, first] = 0
    label[-1, -1, -1] = 1
    label[-1, 0:2, 0] = 3
    return label


def read_seg(path: Path, volume: Volume) -> npt.NDArray[np.int64]:
    """Read a DICOM-SEG with highdicom alone, on the grid of a volume; segments as numbered."""
    found = hd.seg.segread(path).get_volume(combine_segments=True)
    affine = (LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]]
    grid = hd.VolumeGeometry(
        affine,
        spatial_shape=volume.shape[::-1],
        coordinate_system="PATIENT",
        frame_of_reference_uid="1.2.3.4.5",
    )
    return found.match_geometry(grid).array.transpose(2, 1, 0).astype(np.int64)


def tool(name: str) -> str:
    """Return an outside program, or skip saying which one is missing."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"needs {name}, which this machine does not have (dicom3tools, dcmqi, ...)")
    return found


def errors_of(*command: str | Path) -> list[str]:
    """Run a validator and return its lines that say Error."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0 or any("Error" in line for line in lines), lines
    return [line for line in lines if line.startswith("Error")]
