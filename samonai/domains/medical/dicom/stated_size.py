"""Checks of a DICOM header's stated sizes against the file's length and the free memory."""

from pydicom.uid import UID

from samonai.core.errors import InputError
from samonai.core.memory import check_memory
from samonai.domains.medical.dicom.headers import Header

_DEFLATED = "1.2.840.10008.1.2.1.99"
_LARGEST_DEFLATE_RATIO = 1100
_ITEM_HEADER = 8  # each frame of a compressed file has an item of its own


def check_stated_frames(header: Header) -> None:
    """Refuse more frames than a file has room for, before they are counted through.

    Raises:
        InputError: The stated number of frames does not fit into the file.
    """
    frames = header.number("NumberOfFrames", 1)
    if frames < 1:
        raise InputError(f"{header.path}: NumberOfFrames is {frames}; export it again")
    if frames == 1:
        return
    room = header.path.stat().st_size
    syntax = str(getattr(header.dataset, "file_meta", {}).get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:
        room *= _LARGEST_DEFLATE_RATIO
    compressed = UID(syntax).is_transfer_syntax and UID(syntax).is_encapsulated
    needed = frames * _ITEM_HEADER if compressed else stored_bytes(header)
    if needed > room:
        raise InputError(
            f"{header.path}: NumberOfFrames is {frames}, and the file of "
            f"{header.path.stat().st_size} bytes has no room for them: cut short or damaged; "
            "copy it again"
        )


def check_decoding_memory(header: Header) -> None:
    """Refuse a file whose decoded pixels exceed the free memory.

    Raises:
        InputError: The file's pixels exceed it.
    """
    check_memory(stored_bytes(header), str(header.path))


def stored_bytes(header: Header) -> int:
    """Return the size of a file's decoded pixels in bytes."""
    voxels = header.number("Rows") * header.number("Columns") * header.number("NumberOfFrames", 1)
    bits = max(header.number("BitsAllocated", 16), 1)
    return voxels * max(header.number("SamplesPerPixel", 1), 1) * bits // 8
