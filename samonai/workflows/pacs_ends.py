"""PACS as the source and the sink of workflows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.domains import DEFAULT_DOMAIN, get_domain
from samonai.domains.capabilities import capabilities

if TYPE_CHECKING:
    from samonai.pacs.fetching import PacsSeries
    from samonai.pacs.receiver import ReceiverOptions
    from samonai.pacs.sending import Sink

_DEFAULT_FORMATS = ("dicom-seg",)
_DICOM_FORMATS = frozenset({"dicom-seg", "rtstruct"})
_PREFIXES = ("dicomweb:", "dicomweb+", "dimse:")


def is_pacs(source: Any) -> bool:
    """Return whether a source is the address of a PACS."""
    return isinstance(source, Path | str) and str(source).lower().startswith(_PREFIXES)


def pacs_series(
    source: Any, domain: str, series: str | None = None, folder: Path | None = None
) -> "PacsSeries | None":
    """Return the series of a PACS; None if the source is a path.

    Args:
        source: The address, or a path.
        domain: The kind of data.
        series: SeriesInstanceUID, if one is wanted.
        folder: Where fetched series are kept; None: a folder of this process.

    Raises:
        InputError: The address cannot be used, or the data is none of a PACS.
    """
    if not is_pacs(source):
        return None
    _check_dicom(domain)
    from samonai.pacs.fetching import PacsSeries  # pydicom is slow to import

    return PacsSeries(source, series, folder)


def opened_sink(
    send: str | None, pacs: "PacsSeries | None" = None, domain: str = DEFAULT_DOMAIN
) -> "Sink | None":
    """Return the PACS that results are sent to; None: none.

    Args:
        send: The address.
        pacs: Where the sources are from.
        domain: The kind of data.

    Raises:
        InputError: The address cannot be used, or the data is none of a PACS.
    """
    if send is None:
        return None
    _check_dicom(domain)
    from samonai.pacs.credentials import check_one_server
    from samonai.pacs.sending import Sink

    sink = Sink(send)
    check_one_server([sink.address, None if pacs is None else pacs.address])
    return sink


def sent_formats(formats: Sequence[str]) -> list[str]:
    """Return the formats of results that are sent; by default DICOM-SEG.

    Raises:
        InputError: None of the formats is a DICOM object.
    """
    if formats and not _DICOM_FORMATS.intersection(formats):
        raise InputError("--send sends DICOM objects; add --format dicom-seg or --format rtstruct")
    return list(formats) or list(_DEFAULT_FORMATS)


def _check_dicom(domain: str) -> None:
    if not capabilities(get_domain(domain)).reads_dicom:
        raise InputError("a PACS holds DICOM, which is medical data")


def receiver_options(aet: str, host: str, port: int, allow: Sequence[str]) -> "ReceiverOptions":
    """Return the options of a storage SCP.

    Raises:
        InputError: They cannot be used, or pynetdicom is not installed.
    """
    try:
        from samonai.pacs.receiver import ReceiverOptions
    except ImportError as error:
        from samonai.pacs import INSTALL

        raise InputError(f"listening needs {error.name}: {INSTALL}") from error
    return ReceiverOptions(aet, host, port, tuple(allow))
