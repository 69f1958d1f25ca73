"""Files that are either whole or absent: write beside, sync, then rename; and finding files."""

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
"""How names of files begin that are being written."""

_HASH_BLOCK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_ABANDONED_SECONDS = 3600.0


@contextmanager
def write_atomically(path: Path | str, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block succeeds.

    The temporary file keeps the full ending of `path` (`.nii.gz`), since many writers choose
    their format by it. When the block raises, `path` is left as it was.

    Args:
        path: The file to write. Its folder is made when missing.
        private: Only its owner may read it, from the first byte on.

    Yields:
        The path to write to, in the same folder and so on the same file system.

    Raises:
        OSError: The disk is full or cannot be written, whatever error a library makes of it.
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
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # Some writers make the file anew, with the permissions that the system gives.
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path, *, older_than: float = _ABANDONED_SECONDS) -> None:
    """Remove what killed writers of `write_atomically` left in a folder.

    Args:
        folder: The folder.
        older_than: Age in seconds of what is removed; 0 where no other process can be writing.
    """
    for left in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # another process was faster
            if left.is_file() and time.time() - left.stat().st_mtime >= older_than:
                left.unlink()


@contextmanager
def _system_errors(temporary: Path) -> Iterator[None]:
    """Raise the system's error where a library makes one of its own of a full disk.

    torch, safetensors, SimpleITK and GDAL raise errors without `errno`. Rust's tell it in their
    text; else whether the disk was at fault shows when more is written behind what they wrote.
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
    """Return a path that was given as one or as text.

    Args:
        given: The path; `~` stands for the user's home.
        what: Named in the message, such as "images".

    Raises:
        InputError: It is something else, or empty, as a variable is that nobody set; or a name is
            longer than the system can have.
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
    """Take back the folders that a failed block made and put nothing into, and those above them.

    Args:
        *paths: Folders that the block may make. The `zarr.json` files with which a store begins
            are nothing; None and URLs are no folders.
    """
    folders = [Path(path) for path in paths if path is not None and "://" not in str(path)]
    made = [[part for part in (path, *path.parents) if not part.exists()] for path in folders]
    try:
        yield
    except BaseException:
        for new in filter(None, made):
            if not any(file.is_file() and file.name != "zarr.json" for file in new[0].rglob("*")):
                shutil.rmtree(new[0], ignore_errors=True)
            for part in new[1:]:
                with suppress(OSError):  # something else is in it
                    part.rmdir()
        raise


def output_folder(path: Path | str) -> Path:
    """Return a path that is a folder or nothing yet, and can be written to.

    Raises:
        InputError: It is a file, or nothing can be written there; better now than after hours.
    """
    path = as_path(path, "the output folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    made: list[Path] = []
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir()
                made.append(folder)
        with tempfile.TemporaryFile(dir=path):
            pass
        remove_abandoned(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written to ({error.strerror}); give another folder"
        ) from error
    finally:
        for folder in reversed(made):
            with suppress(OSError):  # another run may have begun to use it
                folder.rmdir()
    return path


@contextmanager
def written_meanwhile(folder: Path) -> Iterator[list[Path]]:
    """Yield a list that, once the block has succeeded, names the files that it wrote in a folder.

    Args:
        folder: It need not exist yet. What lies deeper, and what is hidden, does not count.
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
    """What lies below a folder.

    Attributes:
        files: All files, sorted.
        broken: Links that lead nowhere.
        unreadable: Folders that cannot be read.
    """

    files: list[Path]
    broken: list[Path]
    unreadable: list[Path]


def walk_below(folder: Path, *, hidden: bool = True) -> Below:
    """List the files below a folder; links to other folders are followed.

    Each folder is entered once and by its own name where it has one here, so that links in circles
    end, and a link to what lies here anyway shows nothing twice. Links that lead up, to a folder
    that holds this one, are not followed: they would bring in all that lies beside it.

    Args:
        folder: Where to look.
        hidden: Also enter folders whose name begins with a dot.
    """
    found = Below([], [], [])
    top = os.path.realpath(folder)
    entered: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        # A walk does not enter links; they wait until all that lies here has been seen.
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
    """Refuse what could not be looked at whole.

    Raises:
        InputError: A folder cannot be read.
    """
    if found.unreadable:
        raise InputError(f"{found.unreadable[0]}: the folder cannot be read; check its permissions")


def _sort_out(parent: str, names: Iterable[str], found: Below) -> None:
    """Put what a folder holds besides folders where it belongs."""
    if not os.access(parent, os.X_OK):
        found.unreadable.append(Path(parent))
        return
    for path in (os.path.join(parent, name) for name in names):
        if os.path.isfile(path):
            found.files.append(Path(path))
        elif os.path.islink(path) and not os.path.exists(path):
            found.broken.append(Path(path))


def _holds(folder: str, inner: Iterable[str]) -> bool:
    """Say whether a folder holds any of others, or is one of them."""
    return any(os.path.commonpath([folder, each]) == folder for each in inner)


def _write_times(folder: Path) -> dict[Path, int]:
    """Return when each file of a folder was last written, in nanoseconds."""
    if not folder.is_dir():
        return {}
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path: path.stat().st_mtime_ns for path in shown if path.is_file()}


@cache
def _umask() -> int:
    # The mask can only be read by setting it, which other threads would notice: once will do.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def nothing_left_of_a_mistake(out: Path, *, results: bool = False) -> Iterator[None]:
    """Remove the folder that a refused call made; one that was there before stays.

    Args:
        out: The folder.
        results: Each file in it is a result by itself. Then those that were written before the
            mistake stay, which may have taken hours, and the message says so.
    """
    existed, before = out.exists(), _write_times(out)
    try:
        yield
    except InputError as error:
        finished = {p for p, t in _write_times(out).items() if before.get(p) != t}
        if results and finished:
            said = f"what was finished before ({len(finished)} files) is in {out}"
            raise InputError(f"{error}; {said}") from error
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


@contextmanager
def all_or_none(folder: Path, stem: str) -> Iterator[None]:
    """Remove what a refused block wrote into a folder under `stem` and any ending."""
    pattern = f"{glob.escape(stem)}.*"
    before = set(folder.glob(pattern))
    try:
        yield
    except InputError:
        for path in set(folder.glob(pattern)) - before:
            path.unlink(missing_ok=True)
        raise
