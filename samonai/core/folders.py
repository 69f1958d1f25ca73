"""Folders that are written beside their place, and moved there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samonai.core.errors import InputError


def check_free(out: Path) -> None:
    """Refuse a path that already holds files.

    Raises:
        InputError: The path is a file, or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already and is not an empty folder; choose another")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `out` when the block ends without an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
