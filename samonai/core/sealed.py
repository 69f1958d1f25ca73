"""Checksums inside of files: a file with a flipped bit is found and not used.

JSON documents hold theirs as an entry, files of `torch.save` (which are ZIP archives) as the
archive's comment, so that other programs read both as usual.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import sha256_file

DIGEST_KEY = "sha256"

_COMMENT = b"samonai-sha256:"
_DIGITS = 64
_COMMENT_BYTES = len(_COMMENT) + _DIGITS
_END_RECORD = b"PK\x05\x06"
_END_BYTES = 22


def canonical_json(value: Any) -> str:
    """Return JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """Return the sha256 of a text as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the digest of its other entries."""
    plain = {key: value for key, value in document.items() if key != DIGEST_KEY}
    return {**plain, DIGEST_KEY: digest(canonical_json(plain))}


def is_whole(document: Mapping[str, Any]) -> bool:
    """Return whether a document's digest agrees with its other entries."""
    try:
        return bool(sealed(document)[DIGEST_KEY] == document.get(DIGEST_KEY))
    except (ValueError, TypeError, RecursionError):  # NaN, or not JSON
        return False


def seal_archive(path: Path) -> None:
    """Write the digest of a `torch.save` file into its archive comment.

    Raises:
        ValueError: The file is not a ZIP archive, or has a comment already.
    """
    with path.open("r+b") as file:
        start = file.seek(-_END_BYTES, 2)
        end = file.read()
        if end[:4] != _END_RECORD or end[-2:] != b"\0\0":
            raise ValueError(f"{path.name} is no ZIP archive without a comment")
        file.seek(start)
        file.write(end[:-2] + struct.pack("<H", _COMMENT_BYTES))
    with path.open("ab") as file:
        file.write(_COMMENT + sha256_file(path).encode())


def check_archive(path: Path) -> None:
    """Refuse a damaged `torch.save` file.

    Without a digest, as in files of other programs, each record's own checksum is verified.

    Raises:
        InputError: The file is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _COMMENT_BYTES - _END_BYTES))
        end = file.read()
    comment = end[-_COMMENT_BYTES:]
    if comment.startswith(_COMMENT):
        whole = comment[len(_COMMENT) :].decode("ascii", "replace") == _sha256_without(
            path, _COMMENT_BYTES
        )
    else:
        whole = end[-_END_BYTES:][:4] == _END_RECORD and _records_are_whole(path)
    if not whole:
        raise InputError("its checksum differs: the file is damaged")


def _sha256_without(path: Path, count: int) -> str:
    """Return the sha256 of a file without its last bytes."""
    total, left = hashlib.sha256(), path.stat().st_size - count
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            total.update(block)
            left -= len(block)
    return total.hexdigest()


def _records_are_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged bytes make zipfile raise errors of any type
        return False
