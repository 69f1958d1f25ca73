"""Phantom patients: CT-like volumes with organs, for the demo, the tests and teaching.

No data of a person is used. Each patient is an abdomen of ellipsoids that is bent, moved,
textured and noised by a seeded generator, in Hounsfield units. The organs lie against bowel,
muscle and each other at 20 to 60 HU, so that finding their borders is not trivial.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from samonai.core.files import write_atomically
from samonai.domains.medical.phantom.anatomy import ORGAN_HU, paint_abdomen
from samonai.domains.medical.phantom.dicom import write_series

PHANTOM_CLASSES = dict(enumerate(ORGAN_HU, start=1))

_FIELD_OF_VIEW_MM = np.array([320.0, 320.0, 120.0])


@dataclass(frozen=True)
class Phantoms:
    """Paths written by `write_phantoms`.

    Attributes:
        images: Folder of NIfTI volumes, int16 HU.
        labels: Folder of NIfTI label maps, uint8, under the same names and on the same grids.
        dataset_json: The data set's description in the decathlon's layout.
        series: Folder of one more patient's DICOM series, or None.
        series_label: That patient's label map, on the series' grid, slices counted along its
            normal (towards the head).
        classes: Label value to name.
    """

    images: Path
    labels: Path
    dataset_json: Path
    series: Path | None = None
    series_label: Path | None = None
    classes: Mapping[int, str] = field(default_factory=lambda: dict(PHANTOM_CLASSES))


@dataclass(frozen=True)
class PhantomVolume:
    """One patient in memory.

    Attributes:
        data: int16 (I, J, K), HU; i runs to the patient's left, j to the back, k to the head.
        label: uint8 (I, J, K), values of `PHANTOM_CLASSES`, 0 is background.
        affine: float64 (4, 4), index to mm in RAS+.
    """

    data: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


def write_phantoms(
    folder: Path | str,
    *,
    patients: int = 6,
    seed: int = 0,
    shape: tuple[int, int, int] = (128, 128, 24),
    dicom: bool = True,
) -> Phantoms:
    """Write phantom patients as NIfTI, and one more as a DICOM series.

    Phantoms of an earlier call are removed from the folder first: slices of two series
    under one name would be read as one.

    Args:
        folder: Folder for `imagesTr/`, `labelsTr/`, `dataset.json`, `dicom/<case>/` and
            `labelsTs/<case>.nii.gz`; made when missing.
        patients: Number of NIfTI patients.
        seed: The same seed gives the same files; a patient does not depend on the number of
            patients.
        shape: Voxels along (i, j, k). The field of view stays about 320 x 320 x 120 mm, so a
            small shape means coarse voxels.
        dicom: Whether to add the DICOM patient, the one after the last NIfTI patient.
    """
    folder = Path(folder)
    _remove_phantoms(folder)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    cases = [f"phantom_{number:03d}" for number in range(1, patients + 1)]
    for number, case in enumerate(cases, start=1):
        volume = make_phantom(np.random.default_rng([seed, number]), shape)
        _write_nifti(images / f"{case}.nii.gz", volume.data, volume.affine)
        _write_nifti(labels / f"{case}.nii.gz", volume.label, volume.affine)
    series = series_label = None
    if dicom:
        number = patients + 1
        volume = make_phantom(np.random.default_rng([seed, number]), shape)
        series = folder / "dicom" / f"phantom_{number:03d}"
        affine = write_series(series, volume.data, volume.affine, number=number, seed=seed)
        series_label = folder / "labelsTs" / f"phantom_{number:03d}.nii.gz"
        _write_nifti(series_label, volume.label, affine)
    dataset_json = folder / "dataset.json"
    with write_atomically(dataset_json) as path:
        path.write_text(json.dumps(_description(cases), indent=2) + "\n", encoding="utf-8")
    return Phantoms(images, labels, dataset_json, series, series_label)


def make_phantom(rng: np.random.Generator, shape: tuple[int, int, int]) -> PhantomVolume:
    """Make one patient.

    Args:
        rng: Source of all differences between patients.
        shape: Voxels along (i, j, k).
    """
    spacing = np.round(_FIELD_OF_VIEW_MM * rng.uniform(0.94, 1.06, 3) / shape, 3)
    spacing[1] = spacing[0]  # scanners have square pixels; (I, J) may still differ in number
    data, label = paint_abdomen(rng, shape, spacing)
    return PhantomVolume(data, label, _oblique_affine(rng, shape, spacing))


def _oblique_affine(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return an affine in RAS+ of a slightly tilted scan that is centred off the origin."""
    pitch, yaw = np.deg2rad(rng.uniform(-6, 6, 2))
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    affine = np.eye(4)
    # i and j run to the left and to the back, as in CT; RAS+ counts to the right and the front.
    affine[:3, :3] = np.diag([-1, -1, 1]) @ about_z @ about_x @ np.diag(spacing)
    middle = rng.uniform(-40, 40, 3) - (0, 0, 300)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _write_nifti(
    path: Path, data: npt.NDArray[np.integer], affine: npt.NDArray[np.float64]
) -> None:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    with write_atomically(path) as temporary:
        nib.save(image, temporary)


def _remove_phantoms(folder: Path) -> None:
    for pattern in ("*/phantom_*.nii.gz", "dicom/phantom_*/IM*.dcm"):
        for path in folder.glob(pattern):
            path.unlink()
    for path in folder.glob("dicom/phantom_*"):
        if not any(path.iterdir()):
            path.rmdir()


def _description(cases: list[str]) -> dict[str, object]:
    return {
        "name": "samonai phantoms",
        "description": "Made-up CT-like abdomens; no person was scanned.",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(v): name for v, name in PHANTOM_CLASSES.items()}},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
            for case in cases
        ],
        "test": [],
    }
