"""NRRD and MetaImage (.mha, .mhd) in and out through SimpleITK, with the checks it leaves out.

SimpleITK reads files that were cut short without a word, so payload sizes are compared with the
headers here before it is asked for voxels.
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (everybody's name for it)

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.memory import check_memory
from samonai.domains.medical.formats.nifti import check_volume_shape, take_volume
from samonai.domains.medical.volume import (
    Affine,
    FormatFacts,
    RawVolume,
    ReadOptions,
    axis_spacing,
    check_affine,
)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_IMAGE_IO = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_COPIES = 2  # what SimpleITK holds, and the array made of it
_HEADER_LIMIT = 1 << 20
_BLOCK, _INFLATED = 1 << 22, 1 << 24
_QUOTED = re.compile(r'"([^"]*)"')
_MILLIMETRES = frozenset({"mm", "millimeter", "millimeters", "millimetre", "millimetres"})
_LENGTHS = frozenset(
    {
        *("m", "meter", "meters", "metre", "metres", "cm", "centimeter", "centimeters", "nm"),
        *("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"),
        *("nanometer", "nanometers", "in", "inch", "inches", "mm"),
    }
)
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_NRRD_BYTES = {
    1: {"signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"},
    2: {"short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort",
        "unsigned short", "unsigned short int", "uint16", "uint16_t"},
    4: {"int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t",
        "float"},
    8: {"longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int", "uint64",
        "uint64_t", "double"},
}  # fmt: skip


@dataclass(frozen=True)
class _Payload:
    """Where voxels lie: the file, from which byte on, how many they are, and how compressed."""

    path: Path
    offset: int
    expected: int
    encoding: str


def sniff(head: bytes) -> str | None:
    """Return "nrrd" or "metaimage" when a file's first bytes are of that format, else None."""
    if head.startswith(b"NRRD000"):
        return "nrrd"
    keys = {line.split(b"=")[0].strip() for line in head.split(b"\n")[:12] if b"=" in line}
    return "metaimage" if {b"NDims", b"DimSize"} & keys else None


def read_itk(path: Path, kind: str, options: ReadOptions | None = None) -> RawVolume:
    """Read a NRRD or MetaImage volume.

    Args:
        path: The file, or the header of a file in two parts.
        kind: "nrrd" or "metaimage", as `sniff` found it.
        options: Which volume to take from a 4D file.

    Returns:
        The voxels in index order and their affine in RAS+.

    Raises:
        InputError: When the file is cut short, not 3D, not real-valued or without geometry.
    """
    options = options or ReadOptions()
    payload = (_nrrd_payload if kind == "nrrd" else _meta_payload)(path)
    if payload is not None:
        _check_payload(payload)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_IMAGE_IO[kind])
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise InputError(f"{path}: {_components(reader)}")
        shape = check_volume_shape(tuple(reader.GetSize()), path, options)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: SimpleITK cannot read it ({reason})") from error
    array = take_volume(sitk.GetArrayFromImage(image).T, shape, options.time)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path}: {array.dtype} voxels; expected one real number per voxel")
    affine = _affine(image)
    check_affine(affine, str(path))
    return RawVolume(array, affine, FormatFacts(kind))


def write_itk(
    label: npt.NDArray[Any],
    affine: Affine,
    path: Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a volume as .nrrd or .mha, compressed.

    Args:
        label: uint8, uint16 or float32 (I, J, K).
        affine: float64 (4, 4), index to mm in RAS+; it may be sheared.
        path: File ending in .nrrd or .mha.
        metadata: What a NRRD's header says besides the geometry, key to value.
    """
    lps = LPS_TO_RAS @ affine
    spacing = axis_spacing(affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(label.T))
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / np.asarray(spacing)).ravel().tolist())
    for key, value in (metadata or {}).items():
        image.SetMetaData(key, value)
    with write_atomically(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _components(reader: sitk.ImageFileReader) -> str:
    """Say what several numbers per voxel are: layers of a segmentation of 3D Slicer, or colours."""
    if any(key.startswith("Segment0_") for key in reader.GetMetaDataKeys()):
        return (
            f"a segmentation in {reader.GetNumberOfComponents()} layers, because its segments "
            "overlap; export each segment as a file of its own, in one folder per case"
        )
    return "colour or vector voxels; expected one number per voxel"


def _affine(image: sitk.Image) -> Affine:
    size = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(size, size)[:3, :3]
    lps = np.eye(4)
    lps[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    lps[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ lps


def _check_payload(payload: _Payload) -> None:
    if not payload.path.is_file():
        raise InputError(f"{payload.path}: the voxel file that the header names is missing")
    check_memory(_COPIES * payload.expected, f"{payload.path}: the volume")
    found = _payload_size(payload)
    if found < payload.expected:
        raise InputError(
            f"{payload.path}: cut short: the header promises {payload.expected} bytes of voxels, "
            f"found {found}; copy it again"
        )


def _payload_size(payload: _Payload) -> int:
    """Count the payload's bytes, up to what is expected, decompressing in blocks."""
    if payload.encoding == "raw":
        return payload.path.stat().st_size - payload.offset
    # 32 + 15 lets zlib recognise both its own and gzip's wrapping.
    decoder, count = zlib.decompressobj(32 + zlib.MAX_WBITS), 0
    with payload.path.open("rb") as file:
        file.seek(payload.offset)
        while count < payload.expected and (block := file.read(_BLOCK)):
            try:
                while block and count < payload.expected:
                    count += len(decoder.decompress(block, _INFLATED))
                    block = decoder.unconsumed_tail
            except zlib.error:
                break
    return count


def _read_text_header(path: Path, stop: bytes) -> tuple[list[str], int]:
    """Return a header's lines up to the one that starts with `stop`, and where voxels begin."""
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT)
    lines, position = [], 0
    for line in head.splitlines(keepends=True):
        position += len(line)
        lines.append(line.decode("latin-1").strip())
        if line.startswith(stop) if stop else not line.strip():
            break
    return lines, position


def _meta_payload(path: Path) -> _Payload | None:
    lines, position = _read_text_header(path, b"ElementDataFile")
    fields = {key.strip(): value.strip() for key, _, value in (x.partition("=") for x in lines)}
    # SimpleITK prints several lines of its own when one of these is missing.
    for key in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(key):
            raise InputError(f"{path}: cut short or damaged: no {key} in the header; copy it again")
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?"):
        raise InputError(
            f"{path}: DistanceUnits {fields['DistanceUnits'][:20]!r}; expected mm: write its "
            "geometry in mm"
        )
    data_file, sizes = fields["ElementDataFile"], fields["DimSize"].split()
    voxel_file = path if data_file == "LOCAL" else _sibling(path, data_file)
    voxel = _META_BYTES.get(fields["ElementType"])
    if voxel is None:
        return None
    sizes.append(fields.get("ElementNumberOfChannels", "1"))
    expected = voxel * _product(sizes, path)
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if data_file == "LOCAL":
        return _Payload(path, position, expected, "zlib" if compressed else "raw")
    skipped = fields.get("HeaderSize", "0")  # -1: the voxels are the file's last bytes
    offset = int(skipped) if skipped.isdigit() else 0
    return _Payload(voxel_file, offset, expected, "zlib" if compressed else "raw")


def _nrrd_payload(path: Path) -> _Payload | None:
    lines, position = _read_text_header(path, b"")
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in lines if not line.startswith("#"))
    }
    _check_units(fields, path)
    voxel = next((size for size, names in _NRRD_BYTES.items() if fields.get("type") in names), None)
    encoding = {"raw": "raw", "gzip": "zlib", "gz": "zlib"}.get(fields.get("encoding", ""))
    data_file = fields.get("data file", fields.get("datafile"))
    skips = fields.get("byte skip", "0") != "0" or fields.get("line skip", "0") != "0"
    voxel_file = path if data_file is None else _sibling(path, data_file)
    if voxel is None or encoding is None or skips:
        return None
    expected = voxel * _product(fields.get("sizes", "").split(), path)
    return _Payload(voxel_file, position if data_file is None else 0, expected, encoding)


def _check_units(fields: Mapping[str, str], path: Path) -> None:
    """Refuse a NRRD in another unit than mm: its readers, ITK among them, take all for mm."""
    for key in ("space units", "units"):
        units = {unit.strip().lower() for unit in _QUOTED.findall(fields.get(key, ""))}
        if key == "units":  # of every axis, times and layers among them
            units &= _LENGTHS
        if other := sorted(units - _MILLIMETRES - {"", "???"}):
            raise InputError(
                f"{path}: {key} {other[0][:20]!r}; expected mm, for which viewers take NRRD "
                "whatever it says: write its geometry in mm"
            )


def _product(sizes: list[str], path: Path) -> int:
    numbers = [int(size) for size in sizes if size.lstrip("+-").isdigit()]
    if not numbers or len(numbers) != len(sizes) or min(numbers) < 1:
        raise InputError(f"{path}: impossible dimensions {' '.join(sizes)!r}; export it again")
    return math.prod(numbers)


def _sibling(path: Path, name: str) -> Path:
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"{path}: voxels spread over several files; save it as one .mha or .nrrd")
    # A header may not reach out of its own folder: it may come from anywhere.
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{path}: its voxel file {name!r} lies outside the header's folder")
    return path.parent / name
