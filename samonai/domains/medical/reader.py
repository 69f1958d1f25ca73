"""Read any scan or label map, recognised by its content, or say in one line why not."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.medical.itk import read_itk, sniff
from samonai.domains.medical.nifti import header_bytes, is_nifti, read_nifti
from samonai.domains.medical.volume import (
    RawVolume,
    ReadOptions,
    Volume,
    format_affine,
    format_shape,
    same_grid,
)
from samonai.errors import InputError

logger = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


def read_volume(
    path: Path | str,
    series: str | None = None,
    prefer: str | None = None,
    *,
    time: int | None = None,
    allow_gaps: bool = False,
    suv: bool | None = None,
) -> Volume:
    """Read one scan from a file (NIfTI, NRRD, MetaImage, DICOM) or a DICOM folder.

    Args:
        path: The file, or the folder that holds a DICOM series.
        series: See `ReadOptions`, as for the rest.
        prefer: See `ReadOptions`.
        time: See `ReadOptions`.
        allow_gaps: See `ReadOptions`.
        suv: See `ReadOptions`.

    Returns:
        The volume, without a label, geometry exactly as stored.

    Raises:
        InputError: One line that names the file, what is wrong and what to do.
    """
    path = Path(path)
    raw = read_raw(path, ReadOptions(series, prefer, time, allow_gaps, suv))
    # A DICOM folder may be named after the patient.
    logged = path.name if raw.facts.series_uid is None else f"series {raw.facts.series_uid}"
    data = raw.array.astype(np.float32)
    valid = raw.valid
    finite = np.isfinite(data)
    if not finite.all():
        if not finite.any():
            raise InputError(f"{path}: every voxel is NaN or infinite; export it again")
        logger.warning("%s: %d voxels are not numbers; masked", logged, (~finite).sum())
        valid = finite if valid is None else valid & finite
    if valid is not None:
        if not valid.any():
            raise InputError(f"{path}: every voxel is padding or not a number; export it again")
        data[~valid] = data[valid].min()
    if data.min() == data.max():
        logger.warning("%s: every voxel has the same value", logged)
    return Volume(data, raw.affine, source_name(path), raw.facts, valid=valid)


def read_label(
    path: Path | str,
    reference: Volume,
    label_map: dict[int, int] | None = None,
    prefer: str | None = None,
) -> npt.NDArray[np.int32]:
    """Read a label map that lies on a volume's grid.

    Args:
        path: The label file.
        reference: The image that the label belongs to.
        label_map: Stored value to class; values that it does not name keep their own. Needed for
            masks stored as 0 and 255.
        prefer: As in `read_volume`.

    Returns:
        int32 (I, J, K), class per voxel, 0 is background.

    Raises:
        InputError: On another grid, fractions, NaN, negative or undeclared 255 values.
    """
    path = Path(path)
    raw = read_raw(path, ReadOptions(prefer=prefer))
    _check_grid(raw, reference, path)
    label = _as_classes(raw.array, path)
    if label_map:
        label = _apply_map(label, label_map)
    _check_values(label, path)
    return label


def read_raw(path: Path, options: ReadOptions | None = None) -> RawVolume:
    """Read voxels, affine and facts by the reader that the content calls for."""
    options = options or ReadOptions()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return _read_dicom(path, options)
    head = header_bytes(path)
    if is_nifti(head):
        return read_nifti(path, options.prefer, options.time)
    if (kind := sniff(head)) is not None:
        return read_itk(path, kind, options.time)
    if head[128:132] == b"DICM":
        return _read_dicom(path, options)
    raise InputError(f"{path}: {_describe(head, path)}; expected NIfTI, NRRD, MHA or DICOM")


def source_name(path: Path) -> str:
    """Return a file's or folder's own name without its ending; nothing from inside the file."""
    return strip_ending(path.name or path.resolve().name)


def strip_ending(name: str) -> str:
    """Return a file name without a volume's ending; other names are returned as they are."""
    lower = name.lower()
    ending = next((ending for ending in ENDINGS if lower.endswith(ending)), "")
    return name[: len(name) - len(ending)] if ending else name


def _read_dicom(path: Path, options: ReadOptions) -> RawVolume:
    from samonai.domains.medical.dicom import read_dicom  # pydicom is slow to import

    return read_dicom(path, options)


def _describe(head: bytes, path: Path) -> str:
    if path.stat().st_size == 0:
        return "an empty file"
    if not head:
        return "a damaged gzip file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file itself (run git lfs pull)"
    if b"\0" not in head:
        return "a text file and no volume"
    return "not a volume in a known format, or its header is damaged"


def _check_grid(raw: RawVolume, reference: Volume, path: Path) -> None:
    shape, wanted = raw.array.shape, reference.shape
    if shape == wanted and same_grid(reference.affine, raw.affine, wanted):
        return
    if shape != wanted:
        here, there = format_shape(shape), format_shape(wanted)
    else:
        here, there = format_affine(raw.affine), format_affine(reference.affine)
    what = "shape" if shape != wanted else "affine"
    raise InputError(
        f"{path}: the label lies on another grid than image {reference.source_id}: {what} {here} "
        f"against {there}; resample the label onto the image (nearest neighbour)"
    )


def _as_classes(array: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int32]:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{path}: the label holds NaN or infinity; expected whole numbers")
        if (array != np.rint(array)).any():
            odd = float(array[array != np.rint(array)].flat[0])
            raise InputError(
                f"{path}: the label holds {odd:g}; expected whole numbers (was it resampled "
                "linearly? use nearest neighbour)"
            )
    lowest, highest = array.min(), array.max()
    if lowest < 0:
        raise InputError(f"{path}: the label holds {lowest:g}; expected 0 and positive classes")
    if highest > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: the label holds {highest:g}; classes go up to 65535")
    return array.astype(np.int32)


def _apply_map(label: npt.NDArray[np.int32], mapping: dict[int, int]) -> npt.NDArray[np.int32]:
    mapped = label.copy()
    for stored, wanted in mapping.items():
        mapped[label == stored] = wanted
    return mapped


def _check_values(label: npt.NDArray[np.int32], path: Path) -> None:
    values = np.flatnonzero(np.bincount(label.ravel(order="K")))
    if values.tolist() in ([255], [0, 255]):
        raise InputError(
            f"{path}: a mask stored as 0 and 255; say that 255 is class 1: --set label_map=255:1"
        )
    if values.tolist() == [0]:
        logger.warning("%s: the label is empty", path.name)
