"""Choice of the client for a PACS's protocol."""

from samonai.core.errors import InputError
from samonai.pacs import INSTALL
from samonai.pacs.address import DICOMWEB, PacsAddress
from samonai.pacs.client import PacsClient


def open_client(address: PacsAddress) -> PacsClient:
    """Return the client of a PACS.

    Raises:
        InputError: The package that speaks its protocol is not installed.
    """
    try:
        if address.protocol == DICOMWEB:
            from samonai.pacs.dicomweb import DicomwebClient

            return DicomwebClient(address)
        from samonai.pacs.dimse import DimseClient

        return DimseClient(address)
    except ImportError as error:
        raise InputError(f"a PACS needs {error.name}, which is not installed: {INSTALL}") from error
