"""Files that are either whole or absent: write beside, sync, then rename."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HASH_BLOCK_BYTES = 1 << 20


@contextmanager
def write_atomically(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block succeeds.

    The temporary file keeps the full ending of `path` (`.nii.gz`), since many writers choose
    their format by it. When the block raises, `path` is left as it was.

    Args:
        path: The file to write. Its folder is made when missing.

    Yields:
        The path to write to, in the same folder and so on the same file system.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(prefix=".writing-", suffix=ending, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    # The mask can only be read by setting it; mkstemp made the file 0600 regardless of it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
