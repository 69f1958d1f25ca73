"""Files of the MONAI bundles: location, copies, and reading of configurations."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder
from samonai.core.folders import check_free, whole_folder
from samonai.core.settings import suggest
from samonai.settings import RENAMED

TRAIN, EVALUATE, INFERENCE = "train.json", "evaluate.json", "inference.json"

EVALUATED = ("$", "@", "%")
"""Characters with which MONAI recognises an expression, a reference or a macro."""


def bundles_folder() -> Path:
    """Return the folder of the bundles: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "bundles"
    return installed if installed.is_dir() else package.parent / "bundles"


def list_bundles() -> list[str]:
    """Return the names of the bundles that are part of samonai."""
    return sorted(path.parent.parent.name for path in bundles_folder().glob(f"*/configs/{TRAIN}"))


def find_bundle(bundle: str | Path) -> Path:
    """Return the folder of a bundle.

    Args:
        bundle: Its name, or the folder of a copy.

    Raises:
        InputError: The bundle does not exist.
    """
    names = list_bundles()
    if str(bundle) in names:
        return bundles_folder() / str(bundle)
    folder = as_path(bundle, "the kind of data, or bundle")
    if (folder / "configs").is_dir():
        return folder.resolve()
    raise InputError(
        f"no bundle {str(bundle)!r}{suggest(str(bundle), names)}; known are {', '.join(names)}, "
        f"or give a folder with configs/ in it"
    )


def lay_out(name: str, folder: Path | str) -> Path:
    """Copy a bundle into a folder of the user's own, whole or not at all.

    Args:
        name: The bundle's name.
        folder: A new or empty folder.

    Returns:
        The folder.

    Raises:
        InputError: The bundle does not exist, or the folder is not empty or cannot be written to.
    """
    source, folder = find_bundle(name), output_folder(folder)
    check_free(folder)
    with whole_folder(folder) as copy:
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(source, copy, ignore=ignored, dirs_exist_ok=True)
    return folder


def config_files(bundle: str | Path, *names: str) -> list[Path]:
    """Return configuration files of a bundle, in the order of their overrides.

    Args:
        bundle: See `find_bundle`.
        *names: Names of files in its `configs/`, or paths of files elsewhere.

    Raises:
        InputError: A file does not exist.
    """
    configs = find_bundle(bundle) / "configs"
    files = []
    for name in names:
        inside, elsewhere = configs / name, Path(name).expanduser()
        if not inside.is_file() and not elsewhere.is_file():
            known = sorted(path.name for path in configs.glob("*.json"))
            raise InputError(
                f"bundle {bundle} has no configuration {name!r}{suggest(name, known)}; it has "
                f"{', '.join(known)}"
            )
        files.append(inside if inside.is_file() else elsewhere.resolve())
    return files


def plain_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations of a bundle of samonai, as JSON, by file name."""
    return {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "configs").glob("*.json"))
    }


def read_config(files: Sequence[Path]) -> dict[str, Any]:
    """Return the merged content of configuration files, without evaluating expressions.

    Raises:
        InputError: A file is not JSON or YAML, or has entries under old names.
    """
    if all(file.suffix == ".json" for file in files):
        contents = [
            _checked_content(file, lambda path: json.loads(path.read_text("utf-8")))
            for file in files
        ]
        if not any(key.startswith("+") or "::" in key or "#" in key for c in contents for key in c):
            # MONAI, which is slow to import, also replaces entries of one name.
            return {key: value for content in contents for key, value in content.items()}
    from monai.bundle import ConfigParser

    for file in files:
        _checked_content(file, lambda path: ConfigParser.load_config_file(str(path)))
    return ConfigParser.load_config_files([str(file) for file in files])


def _checked_content(file: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    try:
        content = read(file)
    except Exception as error:  # JSON's and YAML's readers raise errors of their own
        raise InputError(f"cannot read {file.name}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"cannot read {file.name}: expected entries with names, as in epochs: 3")
    for key in content:
        if key in RENAMED:
            raise InputError(
                f"{file.name}: the entry {key!r} is now {RENAMED[key]!r}; rename it, or copy the "
                f"bundle again with `samonai bundle init`"
            )
    return content


def is_evaluated(value: Any) -> bool:
    """Return whether MONAI would evaluate a part of this value."""
    if isinstance(value, str):
        return value.startswith(EVALUATED)
    if isinstance(value, Mapping):
        return any(
            str(key).startswith(("_", "+", *EVALUATED)) or is_evaluated(inner)
            for key, inner in value.items()
        )
    return isinstance(value, list | tuple) and any(is_evaluated(inner) for inner in value)
