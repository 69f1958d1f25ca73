"""Case ids that do not give a patient away: a keyed hash of the folder's or file's name.

A hospital names folders after patients, and a case's id stands in file names, reports, stores and
checkpoints. So what comes from DICOM is called by a hash of its name, keyed with a secret salt:
the same on this machine each time, and of no use elsewhere. The salt is the environment variable
SAMONAI_SALT, or the file `samonai/salt` in $XDG_CONFIG_HOME (~/.config), made when first needed and
readable by its owner alone. Without it nobody can say which name a pseudonym stands for; who
needs that asks for a map.
"""

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.tables import cell_text, csv_cell

SALT_VARIABLE = "SAMONAI_SALT"
PREFIX = "case-"
_DIGITS = 12
_MAP_COLUMNS = ("case", "name")


def pseudonym(name: str) -> str:
    """Return the id that stands for a name: `case-` and twelve hexadecimal digits."""
    text = name.encode("utf-8", "surrogateescape")
    return PREFIX + hmac.new(salt(), text, hashlib.sha256).hexdigest()[:_DIGITS]


def stands_for(name: str, case_id: str) -> bool:
    """Say whether a user who writes a name means a case: by its own name, or by its pseudonym."""
    return name == case_id or (case_id.startswith(PREFIX) and pseudonym(name) == case_id)


def known_as(name: str, known: Iterable[str]) -> str:
    """Return the case id that a name stands for among those known, or the name itself."""
    return next((case_id for case_id in known if stands_for(name, case_id)), name)


def salt() -> bytes:
    """Return the secret that pseudonyms hang on; see the module's docstring.

    Raises:
        InputError: Its file cannot be read or made, or is empty.
    """
    given = os.environ.get(SALT_VARIABLE)
    return given.encode() if given else _kept_salt(salt_file())


def salt_file() -> Path:
    """Return where the salt is kept."""
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "samonai" / "salt"


def write_case_map(path: Path | str, names: Mapping[str, str]) -> None:
    """Add to the map from pseudonyms to names, which only its owner may read.

    Args:
        path: The CSV file (columns case, name); what it holds stays.
        names: Name by pseudonym.

    Raises:
        InputError: The file is there and is no such map.
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
        # Only one of several processes makes it; the others read what that one wrote.
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
