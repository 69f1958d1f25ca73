"""Locks between processes: one holder of a folder at a time, also while lock files come and go."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from samonai.core.errors import InputError

LOCK_FILE = ".lock"


@contextmanager
def locked_folder(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for one process; the kernel gives it up when the process ends, however it ends.

    The lock file is removed before the lock on it is given up, and whoever locks a file looks
    whether it is still the one under that name: a second process can hold a file that was removed
    meanwhile, but never takes it for the folder's lock.

    Args:
        folder: The folder; made when missing.
        doing: What another holder does, for the message, such as "training into".

    Raises:
        InputError: Another process holds the folder, or it cannot be written.
    """
    path = folder / LOCK_FILE
    busy = InputError(f"another process is {doing} {folder}; wait for it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":  # pragma: no cover
            with _locked_by_filelock(path, busy):
                yield
            return
        handle = _lock(path)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from error
    if handle is None:
        raise busy
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path) -> int | None:
    """Return the handle of a locked file that is under its name; None while another holds it."""
    import fcntl  # not on Windows

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return None
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False)):
                return handle
        os.close(handle)  # its last holder has removed it


@contextmanager
def _locked_by_filelock(path: Path, busy: InputError) -> Iterator[None]:  # pragma: no cover
    """Hold a lock where a file that is open cannot be removed; the file stays."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()
