"""Append-only journals: a line is stored whole, or counts as never written."""

import os
from pathlib import Path


def append_lines(path: Path, text: str, *, after: int | None = None) -> None:
    """Append whole lines to a file and wait until they are on the disk; links are not followed.

    Args:
        path: The file; made when missing.
        text: Lines, each with its line break.
        after: Size in bytes of the valid part of the file; a half-written remainder is cut off.
            None: the whole file is valid.

    Raises:
        OSError: The disk is full or cannot be written; the file is restored if possible.
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
            os.ftruncate(handle, size)  # remove a half-written line
            raise
    finally:
        os.close(handle)


def whole_lines(content: bytes) -> tuple[list[bytes], int]:
    """Return the whole lines of a file and their size in bytes; a half-written rest is left out."""
    whole, end, _ = content.rpartition(b"\n")
    return [line for line in whole.split(b"\n") if line], len(whole) + len(end)
