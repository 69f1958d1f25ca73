"""Archives made up on disk: studies that are fine, and studies broken in ten ways."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from dicom_factory import stored_values, write_series
from dicom_outputs import completed
from pydicom.dataset import Dataset

from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume
from samonai.workflows.archive.archive import MANIFEST_FILE
from samonai.workflows.archive.manifest import Manifest
from samonai.workflows.archive.worklist import locked_results, work_through

SHAPE = (3, 12, 10)  # slices, rows, columns


def write_study(folder: Path, seed: int) -> None:
    """Write a whole study: a series in a folder of its own."""
    write_series(folder / "CT", stored_values(SHAPE, seed), edit=completed)


def _spoil(folder: Path, change: Callable[[Dataset], None]) -> None:
    path = sorted((folder / "CT").iterdir())[1]
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def _set(keyword: str, value: object) -> Callable[[Path], None]:
    return lambda folder: _spoil(folder, lambda dataset: setattr(dataset, keyword, value))


def _cut(folder: Path, size: int) -> None:
    path = sorted((folder / "CT").iterdir())[1]
    path.write_bytes(path.read_bytes()[:size])


def _missing_slice(folder: Path) -> None:
    shutil.rmtree(folder / "CT")
    write_series(folder / "CT", stored_values((5, 12, 10)), edit=completed, skip=(2,))


def _doubled(folder: Path) -> None:
    source = sorted((folder / "CT").iterdir())[1]
    dataset = pydicom.dcmread(source)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "CT" / "twin")


def _no_dicom(folder: Path) -> None:
    for path in (folder / "CT").iterdir():
        path.write_bytes(b"not at all what it says")


def _emptied(folder: Path) -> None:
    for path in (folder / "CT").iterdir():
        path.write_bytes(b"")


WAYS: dict[str, Callable[[Path], None]] = {
    "pixels_cut": lambda folder: _cut(folder, -40),
    "header_cut": lambda folder: _cut(folder, 200),
    "slice_missing": _missing_slice,
    "two_slices_at_one_place": _doubled,
    "position_not_a_number": _set("ImagePositionPatient", [0.0, 0.0, float("nan")]),
    "spacing_zero": _set("PixelSpacing", [0.0, 0.7]),
    "slope_zero": _set("RescaleSlope", 0),
    "other_matrix": lambda folder: _spoil(folder, _smaller),
    "no_dicom": _no_dicom,
    "emptied": _emptied,
}
"""Name to what spoils a study."""


def _smaller(dataset: Dataset) -> None:
    dataset.Rows = dataset.Rows - 2
    dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 2]


def write_archive(root: Path, good: int, contents: int | None = None) -> dict[str, str]:
    """Write an archive of so many good studies and one broken in each way among them.

    Args:
        root: Its folder; studies lie two levels deep.
        good: Number of good studies.
        contents: Number of different scans among them; by default all differ.

    Returns:
        Case id to how it is broken, of those that are.
    """
    total, ways = good + len(WAYS), list(WAYS)
    spoiled = {int((n + 0.5) * total / len(ways)): way for n, way in enumerate(ways)}
    broken = {}
    for number in range(total):
        folder = root / f"site{number % 3}" / f"study{number:04d}"
        write_study(folder, number % (contents or total))
        if number in spoiled:
            WAYS[spoiled[number]](folder)
            broken[pseudonym(f"site{number % 3}__study{number:04d}__CT")] = spoiled[number]
    return broken


def write_boxes(path: Path, case_ids: list[str]) -> Path:
    """Write a CSV file of one box on the middle slice of each case."""
    rows = [f"{case_id},2,2,1,8,9,2" for case_id in case_ids]
    path.write_text("\n".join(["case,i0,j0,k0,i1,j1,k1", *rows]) + "\n")
    return path


def work_on_archive(source: Path, out: Path) -> None:
    """Read and write every study as the real thing does; only the network between is left out."""
    domain = MedicalDomain()

    def work(case: Case, volume: Volume) -> list[Path]:
        time.sleep(0.02)
        label = (volume.data > np.median(volume.data)).astype(np.int32)
        return domain.export(volume, label, out / case.case_id, ["nifti"])

    with locked_results(out):
        cases, _ = domain.find_archive(source)
        manifest = Manifest(out / MANIFEST_FILE, {"of": "a test"})
        work_through(cases, manifest, domain.read, work)
