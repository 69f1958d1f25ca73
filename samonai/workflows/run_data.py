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
from typing import Any

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
    found = {case.case_id: {"stamp": _stamp(case), "files": _digest(case)} for case in cases}
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
        elif before[name]["stamp"] != _stamp(case) and before[name]["files"] != _digest(case):
            yield f"{name!r} was changed"
    yield from (f"{name!r} is gone" for name in before if name not in now)


def _files(case: Case) -> Iterator[tuple[str, Path]]:
    """Yield each file of a case and its name within the case."""
    for path in filter(None, (case.image, case.label)):
        found = [path]
        if path.is_dir():
            found = sorted(walk_below(path).files)
        elif path.suffix.lower() in _SIDECARS:
            found = sorted(path.parent.glob(f"{path.stem}.*"))
        yield from ((os.path.relpath(file, path.parent), file) for file in found)


def _stamp(case: Case) -> str:
    stats = ((name, file.stat()) for name, file in _files(case))
    return digest(
        canonical_json([[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats])
    )


def _digest(case: Case) -> str:
    total = hashlib.sha256()
    for name, file in _files(case):
        stat = file.stat()
        total.update(f"{name} {_of_file(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=64)
def _of_file(path: Path, _size: int, _changed: int) -> str:
    """Return the digest of a file, once for all cases that one label file is of."""
    return sha256_file(path)
