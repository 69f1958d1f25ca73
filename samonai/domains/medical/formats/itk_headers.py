"""Header checks of NRRD and MetaImage, made before SimpleITK reads the files.

SimpleITK silently reads files that were cut short, uses 1 mm for voxels without a size, and
0 for invalid numbers.
"""

import logging
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.memory import check_memory

logger = logging.getLogger(__name__)

_COPIES = 2  # SimpleITK's own, and the array made of it
_HEADER_LIMIT = 1 << 20
_BLOCK, _INFLATED = 1 << 22, 1 << 24
# The patient's axes, without which a space's axes may point anywhere.
_ANATOMICAL = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
_ANATOMICAL_SPACES = frozenset(
    {*_ANATOMICAL, *(f"{name}-time" for name in _ANATOMICAL)}
    | {name + time for name in ("lps", "ras", "las") for time in ("", "t")}
)
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
_META_DIMENSIONS = ("1", "2", "3", "4", "5")
_META_VECTORS = frozenset(
    {"DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation"}
)
_META_MATRICES = frozenset({"TransformMatrix", "Rotation", "Orientation"})
_META_COUNTS = frozenset({"ElementNumberOfChannels", "HeaderSize", "CompressedDataSize"})
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
class Payload:
    """Location of the voxels: file, first byte, number of bytes, and compression."""

    path: Path
    offset: int
    expected: int
    encoding: str


def check_payload(payload: Payload) -> None:
    """Refuse voxels that are missing, cut short, or larger than the free memory.

    Raises:
        InputError: The voxels are missing, cut short, or too large.
    """
    if not payload.path.is_file():
        raise InputError(f"{payload.path}: the voxel file that the header names is missing")
    check_memory(_COPIES * payload.expected, f"{payload.path}: the volume")
    found = _payload_size(payload)
    if found < payload.expected:
        raise InputError(
            f"{payload.path}: cut short: the header promises {payload.expected} bytes of voxels, "
            f"found {found}; copy it again"
        )


def meta_payload(path: Path) -> Payload:
    """Return the location of a MetaImage's voxels, as stated by its header.

    Raises:
        InputError: The header is damaged, in another unit than mm, or names voxels elsewhere.
    """
    lines, position = _read_text_header(path, b"ElementDataFile")
    fields = {key.strip(): value.strip() for key, _, value in (x.partition("=") for x in lines)}
    _check_numbers(fields, path)
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?"):
        raise InputError(
            f"{path}: DistanceUnits {fields['DistanceUnits'][:20]!r}; expected mm: write its "
            "geometry in mm"
        )
    data_file, sizes = fields["ElementDataFile"], fields["DimSize"].split()
    if not fields.get("BinaryData", "True").lower().startswith("t"):
        raise InputError(f"{path}: voxels as text; save it as binary")
    voxel_file = path if data_file == "LOCAL" else _sibling(path, data_file)
    voxel = _META_BYTES.get(fields["ElementType"])
    if voxel is None:
        raise InputError(f"{path}: ElementType {fields['ElementType'][:20]!r}; expected numbers")
    sizes.append(fields.get("ElementNumberOfChannels", "1"))
    expected = voxel * _product(sizes, path)
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if data_file == "LOCAL":
        return Payload(path, position, expected, "zlib" if compressed else "raw")
    skipped = fields.get("HeaderSize", "0")  # -1: the voxels are the file's last bytes
    offset = int(skipped) if skipped.isdecimal() else 0
    return Payload(voxel_file, offset, expected, "zlib" if compressed else "raw")


def nrrd_payload(path: Path) -> Payload | None:
    """Return the location of a NRRD's voxels; None if only its reader can find it.

    Raises:
        InputError: The header is damaged, in another unit than mm, or names voxels elsewhere.
    """
    lines, position = _read_text_header(path, b"")
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in lines if not line.startswith("#"))
    }
    _check_units(fields, path)
    _check_voxel_size(fields, path)
    voxel = next((size for size, names in _NRRD_BYTES.items() if fields.get("type") in names), None)
    encoding = {"raw": "raw", "gzip": "zlib", "gz": "zlib"}.get(fields.get("encoding", ""))
    data_file = fields.get("data file", fields.get("datafile"))
    skips = fields.get("byte skip", "0") != "0" or fields.get("line skip", "0") != "0"
    voxel_file = path if data_file is None else _sibling(path, data_file)
    if voxel is None or encoding is None or skips:
        return None
    expected = voxel * _product(fields.get("sizes", "").split(), path)
    return Payload(voxel_file, position if data_file is None else 0, expected, encoding)


def _payload_size(payload: Payload) -> int:
    """Count the payload's bytes, up to the expected number, decompressing in blocks."""
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


def _check_numbers(fields: Mapping[str, str], path: Path) -> None:
    """Refuse a MetaImage whose header SimpleITK would misread, or crash on.

    It silently reads an invalid position or direction as 0.
    """
    for key in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(key):
            raise InputError(f"{path}: cut short or damaged: no {key} in the header; copy it again")
    if fields["NDims"] not in _META_DIMENSIONS:
        raise InputError(f"{path}: NDims {fields['NDims'][:20]!r}; expected a number from 1 to 5")
    if not fields.keys() & {"ElementSpacing", "ElementSize"}:
        raise InputError(f"{path}: no ElementSpacing in the header; write the size of its voxels")
    sides = int(fields["NDims"])
    for keys, count in ((_META_VECTORS, sides), (_META_MATRICES, sides * sides)):
        for key in sorted(fields.keys() & keys):
            if len(_finite(fields[key].split())) != count or len(fields[key].split()) != count:
                raise InputError(f"{path}: {key} is not {count} numbers; write a valid geometry")
    for key in sorted(fields.keys() & _META_COUNTS):
        digits = fields[key].removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InputError(f"{path}: {key} {fields[key][:20]!r}; expected a whole number")


def _finite(texts: Sequence[str]) -> list[float]:
    """Return the texts that are finite numbers."""
    found = []
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number) and text.isascii() and "_" not in text:
            found.append(number)
    return found


def _check_units(fields: Mapping[str, str], path: Path) -> None:
    """Refuse a NRRD in another unit than mm: its readers, ITK among them, assume mm."""
    for key in ("space units", "units"):
        units = {unit.strip().lower() for unit in _QUOTED.findall(fields.get(key, ""))}
        if key == "units":  # of every axis, times and layers among them
            units &= _LENGTHS
        if other := sorted(units - _MILLIMETRES - {"", "???"}):
            raise InputError(
                f"{path}: {key} {other[0][:20]!r}; expected mm, for which viewers take NRRD "
                "whatever it says: write its geometry in mm"
            )


def _check_voxel_size(fields: Mapping[str, str], path: Path) -> None:
    """Refuse a NRRD without a voxel size, for which SimpleITK uses 1 mm."""
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    sizes = vectors or _finite(fields.get("spacings", "").split())
    if len(sizes) < min(len(fields.get("sizes", "").split()), 3):
        raise InputError(
            f"{path}: space directions or spacings give no size of its voxels; write a valid "
            "geometry"
        )
    if vectors and fields.get("space", "").lower() not in _ANATOMICAL_SPACES:
        logger.warning(
            "%s: its space is not one of the patient's axes; taken for left-posterior-superior, "
            "as ITK does",
            path,
        )


def _product(sizes: list[str], path: Path) -> int:
    numbers = [int(size) for size in sizes if size.lstrip("+-").isdecimal()]
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
