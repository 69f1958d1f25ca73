"""Pseudonyms of cases: a keyed hash of the folder's or file's name.

A hospital names folders after patients, and the case id is part of file names, reports, stores and
checkpoints. So the case id of DICOM data is a hash of its name, keyed with a secret salt: constant
on this machine, and useless elsewhere. The salt is the environment variable SAMONAI_SALT, or the
file `samonai/salt` in $XDG_CONFIG_HOME (~/.config), created on first use and readable by its owner
alone. Without the salt a pseudonym cannot be traced to its name; `--case-map` writes a table of
both.
"""

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from samonai.core.csv_cells import cell_text, csv_cell
from samonai.core.errors import InputError
from samonai.core.files import write_atomically

SALT_VARIABLE = "SAMONAI_SALT"
PREFIX = "case-"
_DIGITS = 12
_MAP_COLUMNS = ("case", "name")


def pseudonym(name: str) -> str:
    """Return the pseudonym of a name: `case-` and twelve hexadecimal digits."""
    text = name.encode("utf-8", "surrogateescape")
    return PREFIX + hmac.new(salt(), text, hashlib.sha256).hexdigest()[:_DIGITS]


def stands_for(name: str, case_id: str) -> bool:
    """Return whether a name given by a user means a case: by its own name or its pseudonym."""
    return name == case_id or (case_id.startswith(PREFIX) and pseudonym(name) == case_id)


def known_as(name: str, known: Iterable[str]) -> str:
    """Return the case id among those known that a name means, or the name itself."""
    return next((case_id for case_id in known if stands_for(name, case_id)), name)


def salt() -> bytes:
    """Return the secret salt of the pseudonyms; see the module's docstring.

    Raises:
        InputError: Its file cannot be read or made, or is empty.
    """
    given = os.environ.get(SALT_VARIABLE)
    return given.encode() if given else _kept_salt(salt_file())


def salt_file() -> Path:
    """Return the path of the salt file."""
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "samonai" / "salt"


def write_case_map(path: Path | str, names: Mapping[str, str]) -> None:
    """Add entries to the table of pseudonyms and names, which only its owner may read.

    Args:
        path: The CSV file (columns case, name); its other entries stay.
        names: Name by pseudonym.

    Raises:
        InputError: The file exists and is not such a table.
    """
    path = Path(path).expanduser()
    known: dict[str, str] = {}
    if path.exists():
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            known = {row["case"]: cell_text(row["name"]) for row in rows}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):
            raise InputError(f"{path}: not a map of cases (columns case,name); keep it") from None
    both = known | dict(names)
    if both == known:
        return
    with (
        write_atomically(path, private=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_MAP_COLUMNS)
        writer.writerows((case, csv_cell(name)) for case, name in sorted(both.items()))


@lru_cache(maxsize=4)
def _kept_salt(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Only one of several processes creates it; the others read that file.
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        if not path.exists():
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32))
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        content = path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"{path}: cannot keep the salt of pseudonyms there ({error.strerror}); set "
            f"{SALT_VARIABLE}"
        ) from error
    if not content:
        raise InputError(f"{path}: the salt of pseudonyms is empty; remove the file")
    return content
