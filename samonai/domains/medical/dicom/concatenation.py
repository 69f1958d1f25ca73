"""Concatenations: one multi-frame object in several files (PS3.3 C.7.6.16.2.2.4)."""

from collections.abc import Sequence

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.headers import Header

_LISTED = 4


def concatenation(header: Header) -> str:
    """Return the ConcatenationUID that the parts of one object share, empty for whole objects."""
    return header.text("ConcatenationUID")


def frame_offset(header: Header) -> int:
    """Return the number of the object's frames in the parts before this one."""
    return header.number("ConcatenationFrameOffsetNumber") if concatenation(header) else 0


def check_concatenation(headers: Sequence[Header], uid: str, where: str) -> None:
    """Refuse an incomplete concatenation.

    Args:
        headers: Headers of all files found.
        uid: The ConcatenationUID of the object to read; empty for whole objects.
        where: Name of the series in messages.

    Raises:
        InputError: A part is missing, or the parts' offsets leave frames out or repeat them.
    """
    parts = {header.number("InConcatenationNumber"): header for header in headers if uid}
    parts = {n: header for n, header in parts.items() if concatenation(header) == uid}
    if not parts:
        return
    total = max(header.number("InConcatenationTotalNumber") for header in parts.values())
    missing = sorted(set(range(1, max(total, *parts, 1) + 1)) - set(parts))
    if missing:
        named = ", ".join(map(str, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
        raise InputError(
            f"{where}: part {named} of the {max(total, *parts)} files of one object "
            "(a concatenation) is missing; copy the whole series"
        )
    frames = 0
    for number, header in sorted(parts.items()):
        if header.value("ConcatenationFrameOffsetNumber") is None or frame_offset(header) != frames:
            raise InputError(
                f"{header.path}: part {number} of a concatenation does not begin at frame "
                f"{frames + 1} of its object; export the series again"
            )
        frames += header.number("NumberOfFrames", 1)
