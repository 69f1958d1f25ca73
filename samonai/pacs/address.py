"""Addresses of PACS: `dicomweb://host/path?StudyInstanceUID=…` and `dimse://AET@host:port?…`.

The scheme `dicomweb` means https, and http on this machine's own loopback address only;
`dicomweb+http` and `dicomweb+https` name the protocol. Everything after the question mark is a
query; see `samonai.pacs.matching`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from samonai.core.errors import InputError
from samonai.core.hosts import is_loopback
from samonai.pacs.matching import checked_query

DICOMWEB, DIMSE = "dicomweb", "dimse"
OUR_AET = "SAMONAI"

_SCHEME = re.compile(r"(dicomweb(?:\+https?)?|dimse):/{1,2}(?=[^/])", re.IGNORECASE)
_AET = re.compile(r"[ -\[\]-~]{1,16}")
_CALLING = "calling"
_EXAMPLE = (
    "expected dicomweb://HOST[:PORT]/PATH?StudyInstanceUID=… or dimse://AET@HOST:PORT?StudyInsta"
    "nceUID=…"
)


@dataclass(frozen=True)
class PacsAddress:
    """A PACS, and the query for its series.

    Attributes:
        protocol: "dicomweb" or "dimse".
        url: DICOMweb: the http or https address without a query; DIMSE: empty.
        host: Host name or IP address.
        port: The port; None: the protocol's own.
        called_aet: DIMSE: AE title of the PACS.
        calling_aet: DIMSE: AE title that the PACS knows samonai by.
        query: Keyword to value of the wanted studies and series, as typed; may hold a name.
    """

    protocol: str
    url: str
    host: str
    port: int | None
    called_aet: str = ""
    calling_aet: str = OUR_AET
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """Return the address for messages: without the query, which may hold a patient's name."""
        return self.url or f"dimse://{self.called_aet}@{self.origin}"

    @property
    def origin(self) -> str:
        """Return host and port, which credentials belong to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether the PACS is on this machine."""
        return is_loopback(self.host)


def parse_address(text: Path | str, *, query: bool = True) -> PacsAddress:
    """Return the parts of an address.

    Args:
        text: The address.
        query: Whether it may have a query; one that results are sent to has none.

    Raises:
        InputError: The address is none of a PACS, holds a password, or its query cannot be used.
    """
    found = _SCHEME.match(str(text))
    if found is None:
        raise InputError(f"the address of a PACS: {_EXAMPLE}")
    scheme = found[1].lower()
    try:
        parts = urlsplit(f"{scheme}://{str(text)[found.end() :]}")
        port = parts.port
    except ValueError as error:
        raise InputError(f"the address of a PACS: {_EXAMPLE}") from error
    if not parts.hostname:
        raise InputError(f"the address of a PACS names no host: {_EXAMPLE}")
    if parts.fragment:
        raise InputError("the address of a PACS: write # as %23")
    if parts.query and not query:
        raise InputError("the address that results are sent to has no query; leave out ? and more")
    asked = _query_of(parts.query)
    if scheme == DIMSE:
        return _dimse(parts, port, asked)
    if parts.username is not None or parts.password is not None:
        raise InputError(
            "the address of a PACS holds no user and password: give these in "
            "SAMONAI_DICOMWEB_USER and SAMONAI_DICOMWEB_PASSWORD, or in a file"
        )
    protocol = "http" if is_loopback(parts.hostname) else "https"
    if "+" in scheme:
        protocol = scheme.partition("+")[2]
    url = f"{protocol}://{parts.netloc}{parts.path.rstrip('/')}"
    return PacsAddress(DICOMWEB, url, parts.hostname, port, query=checked_query(asked))


def _dimse(parts: SplitResult, port: int | None, asked: dict[str, str]) -> PacsAddress:
    if parts.password is not None or not parts.username or port is None:
        raise InputError("a DIMSE address: expected dimse://AET@HOST:PORT, AET the PACS's AE title")
    if parts.path.strip("/"):
        raise InputError("a DIMSE address has no path: expected dimse://AET@HOST:PORT?…")
    calling = checked_aet(asked.pop(_CALLING, OUR_AET))
    called = checked_aet(unquote(parts.username))
    host = parts.hostname or ""
    return PacsAddress(DIMSE, "", host, port, called, calling, checked_query(asked))


def checked_aet(title: str) -> str:
    """Return an AE title.

    Raises:
        InputError: The title is empty, too long, or has characters that DICOM does not allow.
    """
    if not _AET.fullmatch(title) or not title.strip():
        raise InputError(f"AE title {title[:40]!r}: expected 1 to 16 ASCII characters, no \\")
    return title.strip()


def _query_of(text: str) -> dict[str, str]:
    """Return keyword to value, percent-decoded; a plus sign stays one."""
    asked: dict[str, str] = {}
    for part in text.split("&") if text else ():
        key, equals, value = part.partition("=")
        key = unquote(key)
        if not equals or not value:
            raise InputError(f"the query of a PACS: {key[:40]!r} has no value; leave it out")
        if key in asked:
            raise InputError(f"the query of a PACS: {key[:40]!r} is given twice")
        try:
            asked[key] = unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise InputError(f"the query of a PACS: {key[:40]!r} is not UTF-8") from error
    return asked
