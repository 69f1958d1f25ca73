"""Scans small enough to train on within seconds: a bright ball in noise."""

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

SHAPE = (24, 20, 3)
CASES = ("case_a", "case_b", "case_c")


def ball(seed: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return an image and its label, both (I, J, K)."""
    rng = np.random.default_rng(seed)
    centre = np.array(SHAPE) / 2 + rng.uniform(-3, 3, 3) * (1, 1, 0)
    grid = np.stack(np.indices(SHAPE), -1) + 0.5
    label = (np.linalg.norm((grid - centre) * (1, 1, 2), axis=-1) < 6).astype(np.uint8)
    image = 100 * label + rng.normal(0, 10, SHAPE)
    return image.astype(np.int16), label


def affine(seed: int) -> npt.NDArray[np.float64]:
    matrix = np.diag([-1.5, -1.5, 4.0, 1.0])
    matrix[:3, 3] = seed, 10.0, -20.0
    return matrix


def save(path: Path, data: npt.NDArray[np.generic], matrix: npt.NDArray[np.float64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, matrix), path)
    return path


def write_scans(folder: Path, cases: tuple[str, ...] = CASES) -> tuple[Path, Path]:
    """Write images and labels; return their folders."""
    images, labels = folder / "images", folder / "labels"
    for seed, case in enumerate(cases):
        image, label = ball(seed)
        save(images / f"{case}.nii.gz", image, affine(seed))
        save(labels / f"{case}.nii.gz", label, affine(seed))
    return images, labels
