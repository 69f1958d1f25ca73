"""Case index: facts of files by size and date, so that unchanged ones are not read again."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samonai.core.files import walk_below
from samonai.core.sealed import canonical_json, digest, is_whole, sealed
from samonai.domains.base import Case
from samonai.embeddings.store import StoreSection

_FOLDER = "cases"

# Headers whose values lie in another file: their own size and date do not cover the values.
_DETACHED_HEADERS = frozenset({".mhd", ".nhdr", ".hdr", ".img", ".vrt"})


@dataclass(frozen=True)
class CaseFacts:
    """Facts of a case from its first reading.

    Attributes:
        source_id: The source's identifier.
        source_hash: sha256 of the source's content.
        label_hash: sha256 of its label map, or None.
        frame_count: Number of frames.
        spacing: Size of a cell of the source's grid along each array axis.
        blank: Blank frames, see `Frame.is_blank`; None if not
            determined.
    """

    source_id: str
    source_hash: str
    label_hash: str | None
    frame_count: int
    spacing: tuple[float, ...]
    blank: tuple[int, ...] | None = None


class CaseIndex:
    """Facts per case within one signature, valid as long as the files' size and dates are.

    An entry's name is a hash of the case's paths, so that the store contains no path.
    """

    def __init__(self, section: StoreSection) -> None:
        """Open the index of a section."""
        self._files = section.store.files
        self._folder = f"{section.name}/{_FOLDER}"
        self._writable = not section.store.read_only
        if self._writable:
            self._files.sweep(self._folder)

    def get(self, case: Case, stamp: str | None) -> CaseFacts | None:
        """Return the facts of a case, or None if it or its files' `stamp` is unknown."""
        content = None if stamp is None else self._files.read(self._file(case))
        try:
            said = None if content is None else json.loads(content.tobytes())
        except (ValueError, RecursionError):  # damaged
            return None
        if not isinstance(said, dict) or said.get("stamp") != stamp or not is_whole(said):
            return None
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in said["facts"].items()
        }
        return CaseFacts(**known)

    def put(self, case: Case, stamp: str | None, facts: CaseFacts) -> None:
        """Add a case that was read; `stamp` was taken before reading."""
        if stamp is not None and self._writable:
            entry = sealed({"stamp": stamp, "facts": asdict(facts)})
            self._files.write(self._file(case), canonical_json(entry).encode())

    def _file(self, case: Case) -> str:
        return f"{self._folder}/{_name(case)}.json"


def file_stamp(case: Case) -> str | None:
    """Return a hash of sizes and dates of all files of a case.

    None if they do not cover the content: a file's values lie elsewhere.
    """
    stats: list[tuple[str, int, int, int]] = []
    for path in filter(None, (case.image, case.label)):
        for name, file in _files(path):
            if file.suffix.lower() in _DETACHED_HEADERS:
                return None
            try:
                stat = file.stat()
            except OSError:
                return None  # reading the case reports the fault
            stats.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        stats.append(("", 0, 0, 0))
    return digest(canonical_json(stats))


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a path, and their names below it."""
    if not path.is_dir():
        yield "", path
        return
    yield from ((os.path.relpath(file, path), file) for file in walk_below(path).files)


def _name(case: Case) -> str:
    paths = [os.path.realpath(case.image), case.series or ""]
    paths.append(os.path.realpath(case.label) if case.label else "")
    if case.part is not None:
        paths.append(case.part)
    if case.ignored:
        paths.append(f"without label values {sorted(case.ignored)}")
    classes = [list(pair) for pair in case.classes]
    return digest(canonical_json([paths, classes] if classes else paths))
