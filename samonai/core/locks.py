"""File locks between processes: one process holds a folder at a time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from samonai.core.errors import InputError

LOCK_FILE = ".lock"
_LOOK_SECONDS = 0.05


@contextmanager
def locked_folder(folder: Path, doing: str, name: str = LOCK_FILE) -> Iterator[None]:
    """Lock a folder for one process; the kernel releases the lock when the process ends.

    The lock file is removed before its lock is released, and a process that has locked a file
    checks that the file is still the one under that name. A second process may lock a file that
    was removed meanwhile, but does not take it for the folder's lock.

    Args:
        folder: The folder; made when missing.
        doing: Activity of the other process for the message, such as "training into".
        name: Name of the lock file; processes with other names do not exclude each other.

    Raises:
        InputError: Another process holds the folder, or it cannot be written.
    """
    path = folder / name
    busy = InputError(f"another process is {doing} {folder}; wait for it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":  # pragma: no cover
            with _locked_by_filelock(path, busy):
                yield
            return
        handle = _lock(path)
        if handle is None:
            time.sleep(_LOOK_SECONDS)  # another process may only have looked at it
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


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of this file; one that a killed process left is free.

    The lock is taken for a moment where it is free.
    """
    if sys.platform == "win32":  # pragma: no cover
        with suppress(Timeout), FileLock(path, timeout=0):
            return False
        return True
    import fcntl  # not on Windows

    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


@contextmanager
def open_locked(path: Path) -> Iterator[FileIO]:
    """Open a file for reading and writing, made when missing; others that open it so wait.

    The lock ends with the block, or with the process. A link is not followed.

    Raises:
        OSError: The file cannot be written, or the file system has no locks.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"):  # not every system has all
        flags |= getattr(os, name, 0)
    with ExitStack() as stack:
        if sys.platform == "win32":  # pragma: no cover
            stack.enter_context(FileLock(f"{path}.lock"))
        file = stack.enter_context(FileIO(os.open(path, flags, 0o666), "r+"))
        if sys.platform != "win32":
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _lock(path: Path) -> int | None:
    """Return the handle of the locked file under this name; None while another process holds it."""
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
    """Lock a folder on Windows, where an open file cannot be removed; the lock file stays."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()
