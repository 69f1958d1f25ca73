"""Storage SCP: instances that other nodes send by C-STORE go into a queue on disk."""

import io
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt

from samonai.core.errors import InputError
from samonai.core.hosts import is_loopback
from samonai.domains.medical.dicom.headers import quiet
from samonai.pacs.address import checked_aet
from samonai.pacs.dimse import SYNTAXES
from samonai.pacs.matching import is_uid
from samonai.pacs.queue import FullError, LateError, SeriesQueue

logger = logging.getLogger(__name__)

_config.LOG_HANDLER_LEVEL = "none"

STORED, OUT_OF_RESOURCES, NOT_UNDERSTOOD, TOO_LATE = 0x0000, 0xA700, 0xC000, 0xC001
IMAGES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.20",  # nuclear medicine
)
"""SOP classes of images that are accepted, enhanced ones included."""

_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
_SECONDS = 60.0
MOST_BYTES = 1 << 31
"""Largest size of one instance."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True)
class ReceiverOptions:
    """Who may send, and where to.

    Attributes:
        aet: Our AE title.
        host: The address to bind to.
        port: The port; 0: a free one.
        allow: AE titles that may send; none: any, on this machine's loopback address only.
        associations: Associations at a time.
    """

    aet: str = "SAMONAI"
    host: str = "127.0.0.1"
    port: int = 11112
    allow: Sequence[str] = field(default_factory=tuple)
    associations: int = 10

    def __post_init__(self) -> None:
        checked_aet(self.aet)
        for title in self.allow:
            checked_aet(title)
        if not is_loopback(self.host) and not self.allow:
            raise InputError(
                f"{self.host} is reached from other machines; name who may send: --allow AET"
            )


class Receiver:
    """The running storage SCP.

    Args:
        queue: Where instances go to.
        options: See there.

    Attributes:
        port: The port.

    Raises:
        InputError: The address cannot be bound.
    """

    def __init__(self, queue: SeriesQueue, options: ReceiverOptions) -> None:
        """Start to listen, in threads of its own."""
        self._queue = queue
        ae = AE(options.aet)
        ae.require_called_aet = True
        ae.require_calling_aet = list(options.allow)
        ae.maximum_associations = options.associations
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _SECONDS
        ae.add_supported_context(_VERIFICATION)
        for one in IMAGES:
            ae.add_supported_context(one, list(SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_C_ECHO, lambda _: STORED),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, _end_if_too_large),
        ]
        try:
            server = ae.start_server(
                (options.host, options.port), block=False, evt_handlers=handlers
            )
        except OSError as error:
            raise InputError(
                f"{options.host}:{options.port} cannot be bound ({error.strerror}); another "
                f"program may use the port: give another --port"
            ) from error
        assert server is not None
        assert server.socket is not None
        self._ae = ae
        self.port = int(server.socket.getsockname()[1])

    def stop(self) -> None:
        """End all associations; confirmed instances are in the queue."""
        self._ae.shutdown()

    def _store(self, event: evt.Event) -> int:
        """Keep an instance, and return the status; success only once it is on the disk."""
        try:
            content = event.encoded_dataset()
            if len(content) > MOST_BYTES:
                return OUT_OF_RESOURCES
            uids = _uids(content)
            if uids is None or uids.SOPInstanceUID != event.request.AffectedSOPInstanceUID:  # type: ignore[union-attr]
                return NOT_UNDERSTOOD
            self._queue.add(str(uids.SeriesInstanceUID), str(uids.SOPInstanceUID), content)
        except FullError as error:
            logger.warning("an instance was refused: %s", error)
            return OUT_OF_RESOURCES
        except LateError as error:
            logger.warning("an instance was refused: %s", error)
            return TOO_LATE
        except OSError as error:
            logger.warning("an instance was refused: %s", error.strerror)
            return OUT_OF_RESOURCES
        except Exception as error:  # its text may quote a patient's data
            logger.warning("an instance was refused: %s", type(error).__name__)
            return NOT_UNDERSTOOD
        return STORED


def _end_if_too_large(event: evt.Event) -> None:
    """End an association that sends an instance beyond the limit: it is received into memory."""
    link = event.assoc
    stream = getattr(link.dimse.message, "data_set", None)
    if stream is not None and stream.tell() > MOST_BYTES and link.is_established:
        logger.warning("an association was ended: an instance of more than %d bytes", MOST_BYTES)
        # Not in the thread of this event, which the end waits for.
        threading.Thread(target=link.abort, daemon=True).start()


def _uids(content: bytes) -> Dataset | None:
    """Return the identity of an instance; None: it has none."""
    with quiet():
        found = pydicom.dcmread(
            io.BytesIO(content), stop_before_pixels=True, specific_tags=list(_UIDS)
        )
        if all(is_uid(str(found.get(key, ""))) for key in _UIDS):
            return found
    return None
