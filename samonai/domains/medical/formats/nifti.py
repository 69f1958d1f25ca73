"""NIfTI reading and writing: headers parsed by nibabel, sizes checked before voxels are read."""

import gzip
import logging
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.memory import check_memory
from samonai.domains.medical.volume import (
    FormatFacts,
    RawVolume,
    ReadOptions,
    check_affine,
    format_affine,
    format_shape,
    is_sheared,
    same_corners,
)

logger = logging.getLogger(__name__)

GZIP_MAGIC = b"\x1f\x8b"
# Millimetres of a spatial unit's code; "unknown" is treated as mm, the common practice.
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# Deflate cannot expand by more; a header with a larger size is wrong.
_LARGEST_GZIP_RATIO = 1100
_SCALED_BYTES, _VOLUME_BYTES = 8, 4
_GEOMETRY_FIELDS = (
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "xyzt_units",
)


def is_nifti(head: bytes) -> bool:
    """Return whether a file's first (uncompressed) 348 bytes are a NIfTI header."""
    sizes = {head[:4], head[3::-1]}
    first = b"\x5c\x01\x00\x00" in sizes and head[344:348] == b"n+1\0"
    second = b"\x1c\x02\x00\x00" in sizes and head[4:8] == b"n+2\0"
    return first or second


def read_nifti(path: Path, options: ReadOptions | None = None) -> RawVolume:
    """Read a single-file NIfTI-1 or NIfTI-2 volume, compressed or not.

    Args:
        path: The file.
        options: The preferred one of two contradicting geometries, and the volume of a 4D file.

    Returns:
        The voxels with the header's scaling applied, and their affine in mm, for any
        `xyzt_units`.

    Raises:
        InputError: The file is cut short, not 3D, not real-valued, or without a usable
            geometry; the message has the file and the remedy.
    """
    options = options or ReadOptions()
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    _check_name(path, compressed)
    with _open(path, compressed) as stream:
        try:
            header = _read_header(stream, path)
            shape = _volume_shape(header, path, options)
            array = _read_voxels(stream, header, path, compressed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the file is cut short or damaged; copy it again") from error
    affine = _choose_affine(header, shape, path, options.prefer)
    volume = take_volume(array, shape, options.time)
    return RawVolume(volume, affine, FormatFacts("nifti", _geometry(header, options.prefer)))


def write_nifti(
    label: npt.NDArray[Any], affine: npt.NDArray[np.float64], facts: FormatFacts, path: Path
) -> None:
    """Write a volume on a grid; a NIfTI source's geometry fields are copied bit by bit.

    Args:
        label: uint8, uint16 or float32 (I, J, K).
        affine: float64 (4, 4), index to mm in RAS+.
        facts: Metadata of the source; its header is used if the source was NIfTI.
        path: File ending in .nii or .nii.gz.
    """
    if facts.nifti_header is not None:
        header = facts.nifti_header.copy()
        header.set_data_dtype(label.dtype)
        image = _image_class(header)(label, None, header)
    else:
        image = nib.Nifti1Image(label, affine)
        image.header.set_xyzt_units("unknown" if facts.uncalibrated else "mm")
        image.set_sform(affine, code="scanner")
        # A quaternion has no room for shear; readers then fall back to the sform alone.
        image.set_qform(affine, code="unknown" if is_sheared(affine) else "scanner")
    with write_atomically(path) as temporary:
        image.to_filename(temporary)


def _open(path: Path, compressed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if compressed else path.open("rb")


def _check_name(path: Path, compressed: bool) -> None:
    name = path.name.lower()
    if name.endswith(".gz") and not compressed:
        raise InputError(f"{path}: named .gz but not compressed; rename it to end in .nii")
    if name.endswith(".nii") and compressed:
        raise InputError(f"{path}: named .nii but gzip-compressed; rename it to end in .nii.gz")


def _read_header(stream: BinaryIO, path: Path) -> nib.Nifti1Header:
    head = stream.read(348)
    second = head[4:8] == b"n+2\0"
    block = head + stream.read(540 - 348) if second else head
    kind = nib.Nifti2Header if second else nib.Nifti1Header
    try:
        header = kind(block)
        stored = kind(block, check=False)["pixdim"][1:4]  # checking puts 1 where there is 0
    except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a valid NIfTI header ({_one_line(error)})") from error
    sizes = stored[: min(max(int(header["dim"][0]), 0), 3)]
    if not np.isfinite(sizes).all() or not np.all(sizes):
        shown = "x".join(f"{float(size):g}" for size in sizes)
        raise InputError(f"{path}: pixdim says voxels of {shown}; write a valid geometry")
    return header


def _volume_shape(
    header: nib.Nifti1Header, path: Path, options: ReadOptions
) -> tuple[int, int, int]:
    dim = [int(size) for size in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise InputError(f"{path}: impossible dimensions {dim} in the header; export it again")
    shape = tuple(dim[1 : dim[0] + 1])
    return check_volume_shape(shape, path, options)


def check_volume_shape(
    shape: tuple[int, ...], path: Path, options: ReadOptions | None = None
) -> tuple[int, int, int]:
    """Return a file's shape as three sizes; a fourth axis needs `time`, others have length 1.

    Raises:
        InputError: The file is 1D or 2D, or holds several volumes and none is chosen.
    """
    options = options or ReadOptions()
    if len(shape) < 3:
        raise InputError(f"{path}: a {len(shape)}D image ({format_shape(shape)}); expected 3D")
    count = shape[3] if len(shape) > 3 else 1
    what = f"a {len(shape)}D file ({format_shape(shape)})"
    if any(size != 1 for size in shape[4:]):
        raise InputError(f"{path}: {what}; expected one 3D volume: split it, one file per volume")
    if options.time is None and count != 1:
        choose = "" if options.of_label else f"choose one of {count} with --set time=N, or "
        raise InputError(
            f"{path}: {what}; expected one 3D {'label map' if options.of_label else 'volume'}: "
            f"{choose}split it into one file per volume"
        )
    if options.time is not None and options.time > count:
        raise InputError(f"{path}: no volume {options.time}; the file has {count}")
    return shape[0], shape[1], shape[2]


def take_volume(
    array: npt.NDArray[Any], shape: tuple[int, int, int], time: int | None
) -> npt.NDArray[Any]:
    """Return the chosen volume, counted from 1, of an array with a checked shape."""
    return array.reshape((*shape, -1))[..., (time or 1) - 1]


def _read_voxels(
    stream: BinaryIO, header: nib.Nifti1Header, path: Path, compressed: bool
) -> npt.NDArray[Any]:
    dtype = _voxel_dtype(header, path)
    shape = tuple(int(size) for size in header.get_data_shape())
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    offset = max(_voxel_offset(header, path), int(header["sizeof_hdr"]))
    room = path.stat().st_size * (_LARGEST_GZIP_RATIO if compressed else 1)
    if offset + wanted > room:
        raise InputError(_truncated(path, shape, wanted))
    slope, inter = _scaling(header, path)
    scaled = slope not in (None, 1.0) or inter not in (None, 0.0)
    # The bytes, the scaled values, and the float32 copy that readers make of one volume.
    copies = wanted + wanted // dtype.itemsize * (_SCALED_BYTES * scaled + _VOLUME_BYTES)
    check_memory(copies, f"{path}: {format_shape(shape)} voxels: it")
    stream.seek(offset)
    raw = stream.read(wanted)
    if len(raw) != wanted:
        raise InputError(_truncated(path, shape, wanted))
    stream.read(1)  # at the end of the stream gzip verifies its checksum
    array = np.frombuffer(raw, dtype).reshape(shape, order="F")
    return np.asarray(apply_read_scaling(array, slope, inter))


def _voxel_offset(header: nib.Nifti1Header, path: Path) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < 0:
        raise InputError(f"{path}: vox_offset is {offset:g}; expected a number of bytes")
    return int(offset)


def _scaling(header: nib.Nifti1Header, path: Path) -> tuple[float | None, float | None]:
    """Return slope and intercept; None without scaling.

    A slope of 0 means no scaling (NIfTI-1), and so does NaN, which nibabel writes.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return None, None
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise InputError(
            f"{path}: scl_slope {slope:g} and scl_inter {inter:g} give no values; export it again"
        )
    return slope, inter


def _voxel_dtype(header: nib.Nifti1Header, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"{path}: unknown voxel type; export it as integers or floats") from error
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "colour" if dtype.fields is not None else str(dtype)
        raise InputError(f"{path}: {kind} voxels; expected one real number per voxel")
    return dtype


def _truncated(path: Path, shape: tuple[int, ...], wanted: int) -> str:
    return (
        f"{path}: cut short: the header promises {format_shape(shape)} voxels ({wanted} bytes) "
        "and the file holds fewer; copy it again"
    )


def _choose_affine(
    header: nib.Nifti1Header, shape: tuple[int, int, int], path: Path, prefer: str | None
) -> npt.NDArray[np.float64]:
    qform, sform = _coded_qform(header, path), header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        logger.warning(
            "%s: no orientation in the header; axes are taken as the file has them", path
        )
        affine = header.get_base_affine()
    elif qform is None or sform is None:
        affine = sform if qform is None else qform
    else:
        affine = qform if prefer == "qform" else sform
        finite = np.isfinite(qform).all() and np.isfinite(sform).all()
        if prefer is None and finite and not same_corners(sform, qform, shape):
            raise InputError(
                f"{path}: qform {format_affine(qform)} and sform {format_affine(sform)} contradict "
                "each other; say which is right with --set prefer=sform or --set prefer=qform"
            )
    affine = np.array(affine, np.float64)
    affine[:3] *= _millimetres(header, path)
    check_affine(affine, str(path))
    if is_sheared(affine):
        logger.warning("%s: the voxel grid is sheared; kept as it is", path)
    return affine


def _millimetres(header: nib.Nifti1Header, path: Path) -> float:
    """Return the millimetres in the file's unit of length."""
    code = int(header["xyzt_units"]) & 7
    if code not in _MILLIMETRES:
        logger.warning("%s: unit of length %d is not defined; taken for mm", path.name, code)
    return _MILLIMETRES.get(code, 1.0)


def _coded_qform(header: nib.Nifti1Header, path: Path) -> npt.NDArray[np.float64] | None:
    try:
        return cast("npt.NDArray[np.float64] | None", header.get_qform(coded=True)[0])
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: invalid quaternion in the header; export it again") from error


def _geometry(header: nib.Nifti1Header, prefer: str | None) -> nib.Nifti1Header:
    """Copy the geometry fields alone, so that free text (names, dates) is not copied."""
    geometry = type(header)(endianness=header.endianness)
    for name in _GEOMETRY_FIELDS:
        geometry[name] = header[name]
    if prefer is not None and header["qform_code"] and header["sform_code"]:
        # A geometry rejected on reading must not be written back.
        geometry["sform_code" if prefer == "qform" else "qform_code"] = 0
    return geometry


def _image_class(header: nib.Nifti1Header) -> Any:
    return nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def header_bytes(path: Path) -> bytes:
    """Return a file's first bytes, uncompressed if it is gzip; empty if damaged."""
    with path.open("rb") as file:
        head = file.read(1024)
        if not head.startswith(GZIP_MAGIC):
            return head
        file.seek(0)
        try:
            return gzip.GzipFile(fileobj=file).read(1024)
        except (EOFError, OSError, zlib.error):
            return b""
