"""Plan of a folder of many runs: the file with its settings and results."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import read_json
from samonai.core.sealed import DIGEST_KEY, is_whole, sealed
from samonai.workflows.run_folder import SETTINGS_FILE, STORE_FOLDER

FORMAT_VERSION = 1

Differences = Callable[[Mapping[str, Any]], list[str]]
"""Function to the names of differences between an existing plan and the requested one."""


@contextmanager
def locked_plan(
    path: Path,
    document: Mapping[str, Any],
    differences: Differences,
    *,
    overwrite: bool = False,
    others: Sequence[str] = (),
) -> Iterator[None]:
    """Lock a folder for many runs; a plan without any trained run is removed again.

    Args:
        path: The plan's file in the folder.
        document: Its content, if no run is trained yet.
        differences: See there.
        overwrite: Remove existing runs.
        others: Names of other files of the plan, which are removed with it.

    Raises:
        InputError: The folder holds other files, or runs of another plan.
    """
    existed = path.parent.is_dir()
    if overwrite or not trained_in(path.parent):
        _remove(path, others)
    if path.is_file():
        if differing := differences(read_plan(path)):
            raise InputError(
                f"{path.parent} was made with other settings ({', '.join(differing)}); choose "
                f"another folder, or start over with --overwrite"
            )
    else:
        _refuse_others(path.parent)
        write_plan(path, document)
    try:
        yield
    except InputError:
        if not trained_in(path.parent):
            _remove(path, others)
            if not existed and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        raise


def read_plan(path: Path) -> dict[str, Any]:
    """Return the content of a plan's file.

    Raises:
        InputError: The file cannot be read, or was written by another version.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} was not written by this version of samonai")
    if DIGEST_KEY in content and not is_whole(content):
        raise InputError(f"{path} is damaged or was edited: its checksum differs")
    return {key: value for key, value in content.items() if key != DIGEST_KEY}


def write_plan(path: Path, document: Mapping[str, Any]) -> None:
    """Write the plan with its results so far."""
    with write_atomically(path) as temporary:
        plain = json.loads(json.dumps({"format_version": FORMAT_VERSION, **document}))
        text = json.dumps(sealed(plain), indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def differing_keys(document: Mapping[str, Any], keys: Sequence[str]) -> Differences:
    """Return a comparison of plans by some of their entries."""
    wanted = json.loads(json.dumps(dict(document)))
    return lambda found: [key for key in keys if found.get(key) != wanted.get(key)]


def trained_in(folder: Path) -> list[Path]:
    """Return the runs' folders in a folder, finished or not."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if (entry / SETTINGS_FILE).is_file())


def _remove(path: Path, others: Sequence[str]) -> None:
    """Remove a plan and its runs, if there is a plan."""
    if not path.is_file():
        return
    for folder in trained_in(path.parent):
        shutil.rmtree(folder)
    for name in others:
        (path.parent / name).unlink(missing_ok=True)
    path.unlink()


def _refuse_others(folder: Path) -> None:
    names = [entry.name for entry in (folder.iterdir() if folder.is_dir() else ())]
    others = [name for name in names if name != STORE_FOLDER and not name.startswith(".")]
    if others:
        raise InputError(
            f"{folder} holds other things already (such as {sorted(others)[0]}); choose an empty "
            f"or a new folder"
        )
