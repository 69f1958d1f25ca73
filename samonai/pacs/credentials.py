"""Credentials of DICOMweb servers: from the environment, or from a file that only its owner reads.

The file is JSON, `{"host:port": {"user": …, "password": …}}` or `{"host": {"token": …}}`; its path
is in the environment variable SAMONAI_DICOMWEB_CREDENTIALS. Credentials are never part of an
address, and appear in no log, message or result.
"""

import base64
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.json_files import parse_json
from samonai.pacs.address import DICOMWEB, PacsAddress

USER, PASSWORD = "SAMONAI_DICOMWEB_USER", "SAMONAI_DICOMWEB_PASSWORD"
TOKEN = "SAMONAI_DICOMWEB_TOKEN"
FILE = "SAMONAI_DICOMWEB_CREDENTIALS"

_MOST_BYTES = 1 << 20


def authorization(address: PacsAddress) -> str | None:
    """Return the Authorization header for a DICOMweb server; None: no credentials were given.

    Raises:
        InputError: The file of credentials cannot be used.
    """
    if path := os.environ.get(FILE):
        return _header(_entry(Path(path).expanduser(), address.origin))
    return _header({"user": os.environ.get(USER), "password": os.environ.get(PASSWORD),
                    "token": os.environ.get(TOKEN)})  # fmt: skip


def check_one_server(addresses: Sequence[PacsAddress | None]) -> None:
    """Refuse one pair of credentials for two servers: one of them would learn the other's.

    Raises:
        InputError: Credentials are in the environment, and the addresses are of several servers.
    """
    origins = {found.origin for found in addresses if found and found.protocol == DICOMWEB}
    given = os.environ.get(USER) or os.environ.get(TOKEN)
    if len(origins) > 1 and given and not os.environ.get(FILE):
        raise InputError(
            f"{' and '.join(sorted(origins))} are two servers, and the environment has credentials "
            f"for one; put both into a file, and its path into {FILE}"
        )


def _entry(path: Path, origin: str) -> Mapping[str, str | None]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the credentials ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode) or len(content) > _MOST_BYTES:
        raise InputError(f"{path}: expected a small file with credentials")
    if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0)):
        raise InputError(
            f"{path}: others may read the credentials (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run chmod 600 on it"
        )
    try:
        found = parse_json(content, "the credentials")
    except InputError:
        found = None  # the message would quote the content
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise InputError(
            f'{path}: expected JSON such as {{"host:port": {{"user": "…", "password": "…"}}}}'
        )
    if origin not in found:
        raise InputError(f"{path} has no credentials for {origin}")
    entry = found[origin]
    if set(entry) not in ({"user", "password"}, {"token"}) or not all(
        isinstance(value, str) and value for value in entry.values()
    ):
        raise InputError(f"{path}: {origin}: expected user and password, or token")
    return entry


def _header(entry: Mapping[str, str | None]) -> str | None:
    user, password, token = (entry.get(key) or "" for key in ("user", "password", "token"))
    if user and token:
        raise InputError(f"{USER} and {TOKEN} are both set; unset one")
    for value in (user, password, token):
        if "\r" in value or "\n" in value:
            raise InputError("the credentials of the DICOMweb server have a line break")
    if token:
        return f"Bearer {token}"
    if not user:
        return None
    if ":" in user:
        raise InputError("the user of the DICOMweb server has a colon, which HTTP cannot send")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
