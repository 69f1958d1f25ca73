"""Series of a PACS as cases to annotate, and saved labels that go back to it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.domains.base import Case, Domain
from samonai.workflows.pacs_ends import is_pacs, opened_sink, pacs_series, sent_formats

if TYPE_CHECKING:
    from samonai.pacs.fetching import PacsSeries
    from samonai.pacs.sending import Sink

logger = logging.getLogger(__name__)

FETCHED = "fetched"


class PacsCases:
    """The PACS of an annotation server.

    Args:
        source: Address of the PACS whose series are annotated; None: a folder's images are.
        send: Address of the PACS that saved labels are sent to; None: none.
        domain: The kind of data.
        out: The workspace; fetched series are kept in it, for their owner alone.

    Raises:
        InputError: An address cannot be used.
    """

    def __init__(self, source: str | None, send: str | None, domain: str, out: Path) -> None:
        """Check the addresses; nothing is fetched yet."""
        address = None if source is None else pacs_address(source)
        self._series: PacsSeries | None = pacs_series(address, domain, folder=out / FETCHED)
        self._sink: Sink | None = opened_sink(send, self._series, domain)

    def cases(self, domain: Domain[Any]) -> list[Case]:
        """List the series of the PACS."""
        assert self._series is not None
        return self._series.cases(domain)

    def read(self, case: Case, domain: Domain[Any]) -> Any:
        """Read a case, which is fetched first where it is a series of the PACS."""
        return domain.read(case) if self._series is None else self._series.read(case, domain)

    def dicom_facts(self, case_id: str) -> dict[str, str] | None:
        """Return UIDs and modality of a series of the PACS; None: the case is none."""
        return None if self._series is None else self._series.facts(case_id)

    def formats(self, formats: Sequence[str]) -> list[str]:
        """Return the formats that saved labels are written in besides label maps."""
        return list(formats) if self._sink is None else sent_formats(formats)

    def send(self, written: Sequence[Path]) -> dict[str, Any]:
        """Send a saved label's DICOM objects, and return how that went; empty without a sink.

        A failure is no error: the label is saved, and saving it again sends it.
        """
        if self._sink is None:
            return {}
        try:
            sent = self._sink.send(written)
        except InputError as error:
            logger.warning("a saved label was not sent: %s", error)
            return {"sent": 0, "send_failure": str(error)}
        return {"sent": len(sent)}


def pacs_address(text: str) -> str:
    """Return the address of a PACS; one that begins with http or https is of DICOMweb."""
    return text if is_pacs(text) else f"dicomweb+{text}"


def http_address(text: str) -> str:
    """Return the http address of a DICOMweb server, without a query."""
    if not is_pacs(text):
        return text.partition("?")[0]
    from samonai.pacs.address import parse_address  # pydicom is slow to import

    return parse_address(text).url
