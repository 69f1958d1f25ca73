"""Volume reading: the format is recognised by content; errors are one line."""

import logging
from pathlib import Path

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.medical.formats.itk import read_itk, sniff
from samonai.domains.medical.formats.nifti import header_bytes, is_nifti, read_nifti
from samonai.domains.medical.formats.picture import (
    PICTURE_ENDINGS,
    is_picture,
    read_medical_picture,
)
from samonai.domains.medical.volume import (
    RawVolume,
    ReadOptions,
    Volume,
)

logger = logging.getLogger(__name__)

NO_MEMORY = "more voxels than memory holds; use a machine with more, or a smaller part of the scan"
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
        InputError: The file cannot be read as a volume; one line with file, fault and remedy.
    """
    path = Path(path)
    raw = read_raw(path, ReadOptions(series, prefer, time, allow_gaps, suv))
    try:
        return _as_volume(raw, path)
    except MemoryError:
        raise InputError(f"{path}: {NO_MEMORY}") from None


def _as_volume(raw: RawVolume, path: Path) -> Volume:
    """Return voxels as finite float32, with non-finite ones masked."""
    # A DICOM folder may be named after the patient.
    logged = path.name if raw.facts.series_uid is None else f"series {raw.facts.series_uid}"
    # In place: a series of 600 slices must not be held twice.
    data = raw.array.astype(np.float32, copy=not raw.array.flags.writeable)
    valid = raw.valid
    # Non-finite values show in minimum and maximum; checking each voxel takes ten times as long.
    if not np.isfinite([data.min(), data.max()]).all():
        finite = np.isfinite(data)
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
    return Volume(data, raw.affine, source_name(path), raw.facts, valid=valid, colours=raw.colours)


def read_raw(path: Path, options: ReadOptions | None = None) -> RawVolume:
    """Read voxels, affine and metadata by the reader for the content.

    Raises:
        InputError: The file cannot be read, or exceeds the free memory.
    """
    try:
        return _read_raw(path, options or ReadOptions())
    except MemoryError:
        raise InputError(f"{path}: {NO_MEMORY}") from None


def _read_raw(path: Path, options: ReadOptions) -> RawVolume:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return _read_dicom(path, options)
    head = header_bytes(path)
    if options.suv and head[128:132] != b"DICM":
        raise InputError(
            f"{path}: suv=true converts PET by its DICOM headers, and this is no DICOM; give "
            f"suv=false to take the values as they are"
        )
    if is_nifti(head):
        return read_nifti(path, options)
    if (kind := sniff(head)) is not None:
        return read_itk(path, kind, options)
    if head[128:132] == b"DICM":
        return _read_dicom(path, options)
    if is_picture(head):
        return read_medical_picture(path, options)
    raise InputError(
        f"{path}: {_describe(head, path)}; expected NIfTI, NRRD, MHA, DICOM, "
        f"or a picture (PNG, JPEG, TIFF)"
    )


def source_name(path: Path) -> str:
    """Return a file's or folder's own name without its ending, independent of its content."""
    return strip_ending(path.name or path.resolve().name)


def strip_ending(name: str) -> str:
    """Return a file name without a volume's ending; other names are unchanged."""
    lower = name.lower()
    known = (*ENDINGS, *PICTURE_ENDINGS)
    ending = next((ending for ending in known if lower.endswith(ending)), "")
    return name[: len(name) - len(ending)] if ending else name


def _read_dicom(path: Path, options: ReadOptions) -> RawVolume:
    from samonai.domains.medical.dicom.reader import read_dicom  # pydicom is slow to import

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
