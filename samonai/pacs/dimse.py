"""DIMSE client: C-FIND, C-GET and C-STORE by `pynetdicom`, in the Study Root information model."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, build_role

from samonai.core.errors import InputError
from samonai.pacs.client import PacsClient, UnreachableError, keep_instance
from samonai.pacs.matching import FoundSeries, wider

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # it quotes messages
_config.LOG_HANDLER_LEVEL = "none"

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    "1.2.840.10008.1.2.5",  # run lengths
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",  # JPEG 2000
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.50",  # JPEG
    "1.2.840.10008.1.2.4.51",
)
"""Transfer syntaxes that our reader decodes."""

_SECONDS = 60.0
_SUCCESS, _PENDING, _WARNING = 0x0000, (0xFF00, 0xFF01), 0xB000
_MOST_CONTEXTS = 128
_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # of the Study Root model
_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")


class DimseClient(PacsClient):
    """See `PacsClient`. The PACS must know the calling AE title, and support C-GET."""

    def _studies(self, query: Mapping[str, str]) -> Iterator[Dataset]:
        asked = _identifier("STUDY", "StudyInstanceUID", *query)
        for key, value in wider(query).items():
            setattr(asked, key, value)
        return self._answered(asked)

    def _series(self, study: str, keys: Sequence[str]) -> Iterator[Dataset]:
        more = ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
        asked = _identifier("SERIES", *more, *keys)
        asked.StudyInstanceUID = study
        return self._answered(asked)

    def _instances(self, found: FoundSeries, sop: str = "") -> Iterator[Dataset]:
        asked = _identifier("IMAGE", "SOPClassUID")
        asked.StudyInstanceUID, asked.SeriesInstanceUID = found.study, found.series
        asked.SOPInstanceUID = sop
        return self._answered(asked)

    def _answered(self, asked: Dataset) -> Iterator[Dataset]:
        with self._associated([build_context(_FIND)]) as link:
            for status, answer in link.send_c_find(asked, _FIND):
                code = self._code(status)
                if code == _SUCCESS:
                    return
                if code not in _PENDING:
                    raise InputError(f"{self.address.shown} refused the query (0x{code:04X})")
                if answer is None:
                    raise InputError(f"{self.address.shown} sent an answer that cannot be read")
                yield answer
        raise UnreachableError(f"{self.address.shown} ended the query before all answers")

    def _retrieved(self, found: FoundSeries, folder: Path) -> Iterator[str]:
        classes = sorted({str(one.SOPClassUID) for one in self._instances(found)})
        contexts = [build_context(one, syntax) for one in classes for syntax in SYNTAXES]
        if len(contexts) >= _MOST_CONTEXTS:
            raise InputError(f"{self.address.shown}: the series has {len(classes)} SOP classes")
        received: list[str] = []
        faults: list[InputError] = []

        def store(event: evt.Event) -> int:
            try:
                data = event.dataset
                uids = str(data.SOPInstanceUID), str(data.SeriesInstanceUID)
                content = event.encoded_dataset()
                received.append(
                    keep_instance(content, *uids, found.series, folder, self.address.shown)
                )
            except InputError as error:
                faults.append(error)
                return 0xC000
            return _SUCCESS

        asked = Dataset()
        asked.QueryRetrieveLevel = "SERIES"
        asked.StudyInstanceUID, asked.SeriesInstanceUID = found.study, found.series
        roles = [build_role(one, scp_role=True) for one in classes]
        contexts.append(build_context(_GET))
        with self._associated(contexts, roles, [(evt.EVT_C_STORE, store)]) as link:
            code, status = None, Dataset()
            for status, _ in link.send_c_get(asked, _GET):
                code = self._code(status)
        if faults:
            raise faults[0]
        if code != _SUCCESS:
            failed = status.get("NumberOfFailedSuboperations")
            told = f"; {failed} instances failed" if failed else ""
            raise InputError(
                f"{self.address.shown} did not send the series "
                f"({'no status' if code is None else f'0x{code:04X}'}{told})"
            )
        yield from received

    def _is_there(self, header: Dataset) -> bool:
        sop = str(header.SOPInstanceUID)
        place = FoundSeries(str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
        try:
            found = list(self._instances(place, sop))
        except _NotOfferedError:  # a node that only stores
            return False
        return any(str(one.get("SOPInstanceUID", "")) == sop for one in found)

    def _store(self, path: Path, header: Dataset) -> None:
        syntax = str(header.file_meta.TransferSyntaxUID)
        context = build_context(str(header.SOPClassUID), syntax)
        with self._associated([context]) as link:
            code = self._code(link.send_c_store(pydicom.dcmread(path)))
        if code != _SUCCESS and code & 0xF000 != _WARNING:
            raise InputError(f"{self.address.shown} did not store {path.name} (0x{code:04X})")

    def _code(self, status: Dataset) -> int:
        if "Status" not in status:
            raise UnreachableError(f"{self.address.shown} closed the connection, or timed out")
        return int(status.Status)

    @contextmanager
    def _associated(
        self,
        contexts: list[PresentationContext],
        roles: list[Any] | None = None,
        handlers: list[Any] | None = None,
    ) -> Iterator[Association]:
        """Open an association in which the last context, that of the operation, is accepted."""
        address, where = self.address, self.address.shown
        ae = AE(address.calling_aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _SECONDS
        ae.connection_timeout = _SECONDS / 6
        link = ae.associate(
            address.host, address.port or 0, contexts, address.called_aet,
            ext_neg=roles or [], evt_handlers=handlers or [],
        )  # fmt: skip
        if not link.is_established:
            if link.is_rejected:
                raise InputError(
                    f"{where} rejects the association; does it know the AE title "
                    f"{address.calling_aet}, and is {address.called_aet} its own?"
                )
            if link.acceptor.primitive is not None and not link.accepted_contexts:
                raise _NotOfferedError(f"{where} offers no such service")
            raise UnreachableError(f"{where} cannot be reached, or closed the connection")
        try:
            accepted = {str(one.abstract_syntax) for one in link.accepted_contexts}
            if str(contexts[-1].abstract_syntax) not in accepted:
                raise _NotOfferedError(
                    f"{where} does not offer {_name(contexts[-1])}, which this needs"
                )
            yield link
        except BaseException:  # an operation may be under way
            link.abort()
            raise
        if link.is_established:
            link.release()


class _NotOfferedError(InputError):
    """A service that a PACS does not offer."""


def _name(context: PresentationContext) -> str:
    syntax = context.abstract_syntax
    return "this kind of object" if syntax is None else syntax.name


def _identifier(level: str, *keywords: str) -> Dataset:
    """Return the identifier of a C-FIND with empty elements, which match all."""
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword in keywords:
        setattr(asked, keyword, None if keyword.startswith("Number") else "")
    return asked
