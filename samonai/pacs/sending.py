"""Sending of results: DICOM objects go back into the study that they were made from."""

import logging
from collections.abc import Sequence
from pathlib import Path

from samonai.pacs.address import parse_address
from samonai.pacs.client import ALREADY_THERE, Stored
from samonai.pacs.opening import open_client

logger = logging.getLogger(__name__)

_ENDINGS = (".seg.dcm", ".rtstruct.dcm", ".sr.dcm")  # a report refers to the segmentation


class Sink:
    """A PACS that results are sent to.

    Args:
        address: The PACS; without a query.

    Raises:
        InputError: The address cannot be used, or its client is not installed.
    """

    def __init__(self, address: str) -> None:
        """Check the address; nothing is sent yet."""
        self.address = parse_address(address, query=False)
        self._client = open_client(self.address)

    def send(self, paths: Sequence[Path]) -> list[Stored]:
        """Send the DICOM objects among files; what the PACS has already is not sent again.

        Returns:
            The objects, each confirmed by the PACS.

        Raises:
            InputError: An object was not stored. The same call sends the rest later.
        """
        wanted = [path for ending in _ENDINGS for path in paths if path.name.endswith(ending)]
        stored = self._client.send(wanted)
        for one in stored:
            where = "was there" if one.state == ALREADY_THERE else "stored"
            logger.info("%s: %s %s", self.address.shown, one.path.name, where)
        return stored
