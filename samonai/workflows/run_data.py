"""The data of a run: a digest of every case's files, by which a finished run finds other data.

`data.json` in the run's folder holds case ids and digests, no names of files. Sizes and times of
files are kept too: where these are as they were, nothing is read again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from samonai.core.errors import InputError
from samonai.core.files import sha256_file, walk_below, write_atomically
from samonai.core.json_files import read_json
from samonai.core.sealed import canonical_json, digest, is_whole, sealed
from samonai.domains.base import Case

DATA_FILE = "data.json"

_SHOWN = 3
_SIDECARS = frozenset({".mhd", ".nhdr", ".shp"})
"""Endings of files beside which others of the same stem hold the values."""


def write_data(folder: Path, cases: Sequence[Case]) -> None:
    """Write the digests of cases into a run's folder, where they are not written yet."""
    path = folder / DATA_FILE
    if path.exists():
        return
    found = {}
    for case in cases:
        files = _files(case)
        found[case.case_id] = {"stamp": _stamp(files), "files": _digest(files)}
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(sealed({"cases": found})) + "\n")


def check_data(folder: Path, cases: Sequence[Case]) -> None:
    """Refuse other data than a finished run was trained on.

    Nothing is compared where an older version made the run.

    Raises:
        InputError: A case was changed, added or removed since; or `data.json` is damaged.
    """
    path = folder / DATA_FILE
    try:
        content = read_json(path)
    except FileNotFoundError:
        return
    if not isinstance(content, dict) or not is_whole(content):
        raise InputError(
            f"{path} is damaged: its checksum differs; remove it if the data are as they were, or "
            "start over with --overwrite"
        )
    told = list(_differences(content["cases"], cases))
    if told:
        more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise InputError(
            f"{folder} was trained on other data ({'; '.join(told[:_SHOWN])}{more}); choose "
            "another folder, or start over with --overwrite"
        )


def _differences(before: Mapping[str, Mapping[str, Any]], cases: Sequence[Case]) -> Iterator[str]:
    now = {case.case_id: case for case in cases}
    for name, case in now.items():
        if name not in before:
            yield f"{name!r} is new"
            continue
        files = _files(case)
        if before[name]["stamp"] != _stamp(files) and before[name]["files"] != _digest(files):
            yield f"{name!r} was changed"
    yield from (f"{name!r} is gone" for name in before if name not in now)


class _File(NamedTuple):
    """A file of a case.

    Attributes:
        name: Its name within the case.
        path: Its path.
        stat: Its size and times.
    """

    name: str
    path: Path
    stat: os.stat_result


def _files(case: Case) -> list[_File]:
    """Return the files of a case."""
    files = []
    for path in filter(None, (case.image, case.label)):
        found = [path]
        if path.is_dir():
            found = sorted(walk_below(path).files)
        elif path.suffix.lower() in _SIDECARS:
            found = sorted(path.parent.glob(f"{path.stem}.*"))
        for file in found:
            direct = file.parent == path.parent
            name = file.name if direct else os.path.relpath(file, path.parent)
            files.append(_File(name, file, file.stat()))
    return files


def _stamp(files: Sequence[_File]) -> str:
    return digest(
        canonical_json([[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, _, s in files])
    )


def _digest(files: Sequence[_File]) -> str:
    total = hashlib.sha256()
    for name, file, stat in files:
        total.update(f"{name} {_of_file(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=64)
def _of_file(path: Path, _size: int, _changed: int) -> str:
    """Return the digest of a file, once for all cases that one label file is of."""
    return sha256_file(path)
