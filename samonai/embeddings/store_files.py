"""Files of an embedding store: in a folder, or as objects behind an fsspec URL."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from io import FileIO
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import remove_abandoned, write_atomically
from samonai.core.locks import open_locked

# Protocols whose first part is a bucket, which nothing here makes.
_BUCKETS = frozenset(
    {"abfs", "abfss", "adl", "az", "cos", "gcs", "gs", "obs", "oci", "oss", "s3", "s3a", "tos"}
)

Bytes = npt.NDArray[np.uint8]


class StoreFiles(Protocol):
    """Files by their names below the store's root; each is either whole or absent.

    Attributes:
        appends: Whether a file can be added to, as objects cannot.
    """

    appends: bool

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes | None:
        """Return bytes `start` to `stop`, as far as the file goes; None when it is absent."""
        ...

    def read_parts(self, name: str, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return several parts of a file that exists."""
        ...

    def size(self, name: str) -> int | None:
        """Return the size in bytes; None when the file is absent."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of the files whose names begin so, by a listing; not where `appends`."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store a file."""
        ...

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """Return a context that yields a local path, whose file is stored after the block."""
        ...

    def appending(self, name: str) -> AbstractContextManager[FileIO]:
        """Return a context that yields the file, locked; only where `appends`."""
        ...

    def sweep(self, folder: str) -> None:
        """Remove what killed processes left in a folder."""
        ...


def open_files(url: str) -> StoreFiles:
    """Return the files of a folder or URL, which may not exist yet.

    Raises:
        InputError: fsspec or the support of the URL's protocol is not installed.
    """
    if "://" not in url:
        return LocalFiles(Path(url))
    if urlsplit(url).scheme == "file":
        return LocalFiles(Path(unquote(urlsplit(url).path)))
    if importlib.util.find_spec("fsspec") is None:
        extra = "s3" if urlsplit(url).scheme in ("s3", "s3a") else "remote"
        raise InputError(f"the store {url} needs fsspec: pip install 'samonai[{extra}]'")
    return RemoteFiles(url)


class LocalFiles:
    """The files of a folder."""

    appends = True

    def __init__(self, root: Path) -> None:
        """Use `open_files`."""
        self._root = str(root)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes | None:
        """See `StoreFiles.read`."""
        try:
            with open(f"{self._root}/{name}", "rb", buffering=0) as file:
                if stop is None:
                    stop = os.fstat(file.fileno()).st_size
                return _read(file, start, stop)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_parts(self, name: str, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `StoreFiles.read_parts`."""
        with open(f"{self._root}/{name}", "rb", buffering=0) as file:
            return [_read(file, start, stop).tobytes() for start, stop in parts]

    def size(self, name: str) -> int | None:
        """See `StoreFiles.size`."""
        try:
            return os.stat(f"{self._root}/{name}").st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `StoreFiles.sizes`."""
        raise NotImplementedError(f"{prefix}: records of a folder are read")

    def write(self, name: str, content: bytes) -> None:
        """See `StoreFiles.write`."""
        with self.replacing(name) as path:
            path.write_bytes(content)

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """See `StoreFiles.replacing`; a killed process leaves the file as it was."""
        return write_atomically(Path(self._root, name), durable=False)

    @contextmanager
    def appending(self, name: str) -> Iterator[FileIO]:
        """See `StoreFiles.appending`."""
        path = Path(self._root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_locked(path) as file:
            yield file

    def sweep(self, folder: str) -> None:
        """See `StoreFiles.sweep`."""
        remove_abandoned(Path(self._root, folder))


class RemoteFiles:
    """Objects behind an fsspec URL."""

    appends = False

    def __init__(self, url: str) -> None:
        """Use `open_files`.

        Raises:
            InputError: The protocol is unknown, or its package not installed.
        """
        self._url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        try:
            self._system()
        except (ImportError, ValueError, TypeError, LookupError) as error:
            remedy = "; pip install 'samonai[s3]'" if "s3fs" in str(error) else ""
            raise InputError(f"the store {url} cannot be opened: {error}{remedy}") from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes | None:
        """See `StoreFiles.read`."""
        system, root = self._system()
        try:
            content = system.cat_file(f"{root}/{name}", start=start, end=stop)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return np.frombuffer(content, np.uint8).copy()

    def read_parts(self, name: str, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `StoreFiles.read_parts`."""
        system, root = self._system()
        paths = [f"{root}/{name}"] * len(parts)
        found = system.cat_ranges(paths, [a for a, _ in parts], [b for _, b in parts])
        return [bytes(part) for part in found]

    def size(self, name: str) -> int | None:
        """See `StoreFiles.size`."""
        system, root = self._system()
        try:
            return int(system.size(f"{root}/{name}"))
        except (FileNotFoundError, NotADirectoryError, TypeError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """See `StoreFiles.write`."""
        with self._writing(name) as (system, path):
            system.pipe_file(path, content)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """See `StoreFiles.replacing`."""
        with tempfile.TemporaryDirectory() as folder:
            yield (local := Path(folder, "file"))
            with self._writing(name) as (system, path):
                system.put_file(str(local), path)

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `StoreFiles.sizes`."""
        system, root = self._system()
        folder, _, stem = f"{root}/{prefix}".rpartition("/")
        system.invalidate_cache()  # other workers write too
        try:
            if "prefix" in signature(getattr(system, "_find", system.find)).parameters:
                found = list(system.find(folder, prefix=stem, detail=True).values())
            else:
                found = system.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        begin = root.strip("/") + "/"
        sizes = {
            str(one["name"]).strip("/").removeprefix(begin): int(one["size"] or 0) for one in found
        }
        return {name: size for name, size in sizes.items() if name.startswith(prefix)}

    @contextmanager
    def _writing(self, name: str) -> Iterator[tuple[Any, str]]:
        """Yield the file system and the path of a file that is written.

        Raises:
            InputError: There is no such bucket, or it cannot be written to.
        """
        system, root = self._system()
        path = f"{root}/{name}"
        if urlsplit(self._url).scheme not in _BUCKETS:
            # Of a bucket, s3fs would make the bucket itself.
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            yield system, path
        except FileNotFoundError as error:
            raise InputError(
                f"the store {self._url} cannot be written: there is no bucket "
                f"{urlsplit(self._url).netloc!r}; make it first, or check its name"
            ) from error
        except PermissionError as error:
            raise InputError(
                f"the store {self._url} cannot be written: access is denied; check the "
                f"credentials of this process"
            ) from error

    def appending(self, name: str) -> AbstractContextManager[FileIO]:
        """See `StoreFiles.appending`."""
        raise NotImplementedError(f"{name}: objects are replaced as a whole")

    def sweep(self, folder: str) -> None:
        """See `StoreFiles.sweep`: objects appear as a whole."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connection out of a copy for another process."""
        return {**self.__dict__, "_opened": None}

    def _system(self) -> tuple[Any, str]:
        """Return the file system and the root in it; a forked process opens its own."""
        if self._opened is None or self._opened[0] != os.getpid():
            from fsspec.core import url_to_fs

            self._opened = (os.getpid(), *url_to_fs(self._url))
        return self._opened[1], self._opened[2]


def _read(file: FileIO, start: int, stop: int) -> Bytes:
    """Read a part of an unbuffered file into an array of the caller's own."""
    data = np.empty(max(0, stop - start), np.uint8)
    view, total = data.data, 0
    if start:
        file.seek(start)
    while total < len(data) and (count := file.readinto(view[total:])):
        total += count
    return data[:total]
