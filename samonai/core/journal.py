"""Files that only grow, a line at a time: each line is there whole, or counts as never written."""

import os
from pathlib import Path


def append_lines(path: Path, text: str, *, after: int | None = None) -> None:
    """Add whole lines to a file and wait until they are on the disk; links are not followed.

    Args:
        path: The file; made when missing.
        text: Lines, each with its line break.
        after: The number of bytes of the file that count; what lies beyond them was written half,
            and is cut off. None: all of them.

    Raises:
        OSError: The disk is full or cannot be written; the file is then as it was, if it can be.
    """
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o644)
    try:
        if after is not None:
            os.ftruncate(handle, after)
        size = os.fstat(handle).st_size
        try:
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)  # no half line, onto which the next would be glued
            raise
    finally:
        os.close(handle)


def whole_lines(content: bytes) -> tuple[list[bytes], int]:
    """Return the whole lines of a file and the bytes that they take; the rest was written half."""
    whole, end, _ = content.rpartition(b"\n")
    return [line for line in whole.split(b"\n") if line], len(whole) + len(end)
