"""Write label maps onto the grid of the volume that they belong to."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.domains.medical.itk import write_itk
from samonai.domains.medical.nifti import write_nifti
from samonai.domains.medical.reader import ENDINGS
from samonai.domains.medical.volume import Volume, format_shape
from samonai.errors import InputError

_WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_label(volume: Volume, label: npt.NDArray[np.integer], path: Path | str) -> Path:
    """Write a label map on a volume's grid, whole or not at all.

    A NIfTI source's affine, codes and units are copied bit by bit; other sources' geometry is
    written from the affine. uint8 is used, or uint16 when a class is above 255; never a scaling.

    Args:
        volume: The volume whose grid the label lies on.
        label: integer (I, J, K), class per voxel, 0 is background.
        path: Where to write; the ending chooses the format (.nii.gz, .nii, .nrrd, .mha), and
            .nii.gz is added to a path without one.

    Returns:
        The file that was written.

    Raises:
        InputError: When the label does not fit the grid, or the ending cannot be written.
    """
    path = Path(path)
    if label.shape != volume.shape:
        raise InputError(
            f"{path}: label of {format_shape(label.shape)} voxels for a volume of "
            f"{format_shape(volume.shape)}; merge it on the volume's grid first"
        )
    stored = _smallest(label, path)
    ending = next((known for known in ENDINGS if path.name.lower().endswith(known)), None)
    if ending is None:
        path, ending = path.with_name(path.name + ".nii.gz"), ".nii.gz"
    if ending not in _WRITTEN:
        raise InputError(f"{path}: cannot write {ending}; use one of {', '.join(_WRITTEN)}")
    if ending.startswith(".nii"):
        write_nifti(stored, volume.affine, volume.facts, path)
    else:
        write_itk(stored, volume.affine, path)
    return path


def default_ending(volume: Volume) -> str:
    """Return the ending that a label on this volume gets: the input's format where written."""
    return {"nrrd": ".nrrd", "metaimage": ".mha"}.get(volume.facts.format, ".nii.gz")


def _smallest(label: npt.NDArray[np.integer], path: Path) -> npt.NDArray[np.integer]:
    if label.dtype.kind not in "iub":
        raise InputError(f"{path}: {label.dtype} label; expected integers (threshold it first)")
    lowest, highest = int(label.min()), int(label.max())
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: classes {lowest} to {highest}; expected 0 to 65535")
    return label.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
