"""Atomic file writing (write beside, sync, rename), and listing of folders."""

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from samonai.core.errors import InputError

TEMPORARY_PREFIX = ".writing-"
"""Beginning of the names of files that are being written."""

STORE_FILE = "store.json"
"""The file with which an embedding store, and each section of it, begins."""

_HASH_BLOCK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_ABANDONED_SECONDS = 3600.0


@contextmanager
def write_atomically(
    path: Path | str, *, private: bool = False, durable: bool = True
) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block succeeds.

    The temporary file keeps the full ending of `path` (`.nii.gz`), since many writers choose
    their format by it. When the block raises, `path` is left as it was.

    Args:
        path: The file to write. Its folder is made when missing.
        private: Only its owner may read it, from the first byte on.
        durable: Wait until it is on the disk. Otherwise a power failure may leave a damaged file,
            which a checksum inside must reveal.

    Yields:
        The path to write to, in the same folder and so on the same file system.

    Raises:
        OSError: The disk is full or cannot be written, whichever error a library raised for it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=ending, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _system_errors(temporary):
            yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        # Some writers create the file again, with the default permissions.
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path, *, older_than: float = _ABANDONED_SECONDS) -> None:
    """Remove temporary files of killed `write_atomically` calls from a folder.

    Args:
        folder: The folder.
        older_than: Age in seconds of removed files; 0 where no other process can be writing.
    """
    for left in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # another process was faster
            if left.is_file() and time.time() - left.stat().st_mtime >= older_than:
                left.unlink()


@contextmanager
def _system_errors(temporary: Path) -> Iterator[None]:
    """Raise the system's error where a library raises its own for a full disk.

    torch, safetensors, SimpleITK and GDAL raise errors without `errno`. Rust libraries write it
    into their text; for the others, writing more bytes behind theirs shows whether the disk is at
    fault.
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        if told := _RUST_ERROR.search(str(error)):
            number = int(told[1])
            raise OSError(number, os.strerror(number)) from error
        try:
            with temporary.open("ab") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as cause:
            raise cause from error
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def as_path(given: object, what: str) -> Path:
    """Return a path given as a path or as text.

    Args:
        given: The path; `~` stands for the user's home.
        what: Name of the argument in the message, such as "images".

    Raises:
        InputError: The argument is not a path, is empty (as an unset variable is), or has a name
            longer than the system allows.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{what}: expected a path, got {type(given).__name__}")
    if not os.fspath(given):
        raise InputError(f"{what}: the path is empty; name a file or folder")
    path = Path(os.fspath(given)).expanduser()
    try:
        os.lstat(path)
    except ValueError as error:
        raise InputError(f"{what}: {error}; give a path without it") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"{what}: {error.strerror} ({str(path)[:60]}…)") from error
    return path


@contextmanager
def no_empty_folders(*paths: Path | str | None) -> Iterator[None]:
    """Remove the folders that a failed block made and left empty, and those above them.

    Args:
        *paths: Folders that the block may make. The file with which a store begins
            does not count as content; None and URLs are ignored.
    """
    folders = [Path(path) for path in paths if path is not None and "://" not in str(path)]
    made = [[part for part in (path, *path.parents) if not part.exists()] for path in folders]
    try:
        yield
    except BaseException:
        for new in filter(None, made):
            if not any(file.is_file() and file.name != STORE_FILE for file in new[0].rglob("*")):
                shutil.rmtree(new[0], ignore_errors=True)
            for part in new[1:]:
                with suppress(OSError):  # something else is in it
                    part.rmdir()
        raise


def output_folder(path: Path | str, *, keep: bool = False) -> Path:
    """Return a path to a writable folder, which may not exist yet.

    Args:
        path: The folder.
        keep: Leave the folder made, where other processes begin to use it at the same time.

    Raises:
        InputError: The path is a file, or the folder cannot be written to.
    """
    path = as_path(path, "the output folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    made: list[Path] = []
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir(exist_ok=keep)
                made.append(folder)
        with tempfile.TemporaryFile(dir=path):
            pass
        remove_abandoned(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written to ({error.strerror}); give another folder"
        ) from error
    finally:
        for folder in [] if keep else reversed(made):
            with suppress(OSError):  # another run may have begun to use it
                folder.rmdir()
    return path


@contextmanager
def written_meanwhile(folder: Path) -> Iterator[list[Path]]:
    """Yield a list that holds the files written into a folder once the block has succeeded.

    Args:
        folder: May not exist yet. Subfolders and hidden files are not listed.
    """
    before = _write_times(folder)
    written: list[Path] = []
    yield written
    times = _write_times(folder)
    written += sorted(path for path, time in times.items() if before.get(path) != time)


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class Below(NamedTuple):
    """The contents of a folder and its subfolders.

    Attributes:
        files: All files, sorted.
        broken: Links without a target.
        unreadable: Folders that cannot be read.
    """

    files: list[Path]
    broken: list[Path]
    unreadable: list[Path]


def walk_below(folder: Path, *, hidden: bool = True) -> Below:
    """List the files below a folder; links to other folders are followed.

    Each folder is entered once, under its own name where it lies in this tree, so that circular
    links end and a link to a folder of this tree lists nothing twice. Links to a folder that
    contains this one are not followed: they would bring in all its other content.

    Args:
        folder: The folder.
        hidden: Also enter folders whose name begins with a dot.
    """
    found = Below([], [], [])
    top = os.path.realpath(folder)
    entered: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        # A walk does not enter links; they are followed after all folders of this tree.
        for parent, folders, names in os.walk(
            waiting.pop(0), onerror=lambda error: found.unreadable.append(Path(error.filename))
        ):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
            above = (top, os.path.realpath(parent))
            for path in (os.path.join(parent, name) for name in folders):
                if os.path.islink(path) and not _holds(os.path.realpath(path), above):
                    waiting.append(path)
            _sort_out(parent, names, found)
    return Below(sorted(found.files), sorted(found.broken), sorted(found.unreadable))


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted; see `walk_below`.

    Raises:
        InputError: A folder cannot be read.
    """
    found = walk_below(folder)
    check_readable(found)
    return found.files


def check_readable(found: Below) -> None:
    """Refuse a listing with unreadable folders.

    Raises:
        InputError: A folder cannot be read.
    """
    if found.unreadable:
        raise InputError(f"{found.unreadable[0]}: the folder cannot be read; check its permissions")


def _sort_out(parent: str, names: Iterable[str], found: Below) -> None:
    """Sort the files and links of a folder into the listing."""
    if not os.access(parent, os.X_OK):
        found.unreadable.append(Path(parent))
        return
    for path in (os.path.join(parent, name) for name in names):
        if os.path.isfile(path):
            found.files.append(Path(path))
        elif os.path.islink(path) and not os.path.exists(path):
            found.broken.append(Path(path))


def _holds(folder: str, inner: Iterable[str]) -> bool:
    """Return whether a folder contains any of the others, or is one of them."""
    return any(os.path.commonpath([folder, each]) == folder for each in inner)


def _write_times(folder: Path) -> dict[Path, int]:
    """Return the modification time of each file of a folder, in nanoseconds."""
    if not folder.is_dir():
        return {}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path: path.stat().st_mtime_ns for path in shown if path.is_file()}


@cache
def _umask() -> int:
    # The mask can only be read by setting it, which affects other threads: read it once.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def nothing_left_of_a_mistake(out: Path, *, results: bool = False) -> Iterator[None]:
    """Remove the folder that a refused call made; one that existed before stays.

    Args:
        out: The folder.
        results: Each file in it is a result by itself. Files that were written before the
            mistake then stay, and the message counts them.
    """
    existed, before = out.exists(), _write_times(out)
    try:
        yield
    except InputError as error:
        finished = {p for p, t in _write_times(out).items() if before.get(p) != t}
        if results and finished:
            kept = f"the files finished before ({len(finished)}) are in {out}"
            raise InputError(f"{error}; {kept}") from error
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


@contextmanager
def all_or_none(folder: Path, stem: str) -> Iterator[None]:
    """Remove the files that a refused block wrote into a folder under `stem` and any ending."""
    pattern = f"{glob.escape(stem)}.*"
    before = set(folder.glob(pattern))
    try:
        yield
    except InputError:
        for path in set(folder.glob(pattern)) - before:
            path.unlink(missing_ok=True)
        raise
