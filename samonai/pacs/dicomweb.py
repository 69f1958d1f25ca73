"""DICOMweb client: QIDO-RS, WADO-RS and STOW-RS by `dicomweb_client`.

The server's address is the only one that is connected to: redirects and the addresses in its
answers are not followed, proxies and `.netrc` of the environment are not used.
"""

import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.web import DICOMwebClient as Library
from pydicom.dataset import Dataset

from samonai.core.errors import InputError
from samonai.pacs.address import PacsAddress
from samonai.pacs.client import PacsClient, UnreachableError, keep_instance
from samonai.pacs.credentials import FILE, TOKEN, USER, authorization
from samonai.pacs.matching import FoundSeries, without_escapes

for _name in ("dicomweb_client", "retrying"):  # they quote addresses and answers
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_PAGE = 500
_SECONDS = (10.0, 120.0)  # to connect, and between two pieces of an answer
_AS_STORED = (("application/dicom", "*"),)
_UNSPLIT = 1 << 31  # bytes; below it a request has a length, which old servers need
_REFUSED, _NOT_ACCEPTABLE, _CONFLICT = (401, 403), 406, 409
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")

_Search = Callable[..., list[dict[str, dict[str, Any]]]]


class DicomwebClient(PacsClient):
    """See `PacsClient`."""

    def __init__(self, address: PacsAddress) -> None:
        """Prepare a session; nothing is sent yet."""
        super().__init__(address)
        session = _session(address)
        self._library = Library(address.url, session=session, timeout=_SECONDS)
        self._storing = Library(address.url, session=session, timeout=_SECONDS, chunk_size=_UNSPLIT)
        for library in (self._library, self._storing):
            library.set_http_retry_params(retry=False)  # archives and the listener retry later

    def _studies(self, query: Mapping[str, str]) -> Iterator[Dataset]:
        search = self._library.search_for_studies
        return self._paged(search, sorted(query), without_escapes(query))

    def _series(self, study: str, keys: Sequence[str]) -> Iterator[Dataset]:
        fields = [*keys, "NumberOfSeriesRelatedInstances", "Modality"]
        return self._paged(self._library.search_for_series, fields, {}, study)

    def _instances(self, found: FoundSeries, **filters: str) -> Iterator[Dataset]:
        search = self._library.search_for_instances
        return self._paged(search, (), filters, found.study, found.series)

    def _paged(
        self, search: _Search, fields: Sequence[str], filters: Mapping[str, str], *place: str
    ) -> Iterator[Dataset]:
        """Yield all answers of a search; servers limit how many they give at a time."""
        seen: set[str] = set()
        offset = 0
        while True:
            with self._errors():
                page = search(
                    *place, limit=_PAGE, offset=offset, fields=sorted(set(fields)),
                    search_filters=dict(filters),
                )  # fmt: skip
                answers = [Dataset.from_json(one) for one in page]
            new = 0
            for answer in answers:
                uid = _lowest_uid(answer)
                if uid not in seen:
                    seen.add(uid)
                    new += 1
                    yield answer
            offset += len(page)
            if not page:
                return
            if not new:
                if len(page) >= _PAGE:
                    raise InputError(
                        f"{self.address.shown} gives the same {len(page)} answers again and again; "
                        f"narrow the query"
                    )
                return

    def _retrieved(self, found: FoundSeries, folder: Path) -> Iterator[str]:
        place = found.study, found.series
        with self._errors():
            try:
                datasets = self._library.iter_series(*place, media_types=_AS_STORED)
            except requests.HTTPError as error:
                if _status(error) != _NOT_ACCEPTABLE:
                    raise
                datasets = self._library.iter_series(*place)
            for dataset in datasets:
                buffer = io.BytesIO()
                dataset.save_as(buffer, enforce_file_format=True)
                sop, series = str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID)
                content = buffer.getvalue()
                yield keep_instance(content, sop, series, found.series, folder, self.address.shown)

    def _is_there(self, header: Dataset) -> bool:
        sop = str(header.SOPInstanceUID)
        place = FoundSeries(str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
        try:
            found = list(self._instances(place, SOPInstanceUID=sop))
        except _NotFoundError:  # some servers answer so for a series that they do not have
            return False
        return any(str(one.get("SOPInstanceUID", "")) == sop for one in found)

    def _store(self, path: Path, header: Dataset) -> None:
        study, sop = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
        with self._errors():
            answer = self._storing.store_instances([pydicom.dcmread(path)], study)
        for item in answer.get("FailedSOPSequence") or ():
            reason = item.get("FailureReason")
            code = "without a reason" if reason is None else f"reason 0x{int(reason):04X}"
            raise InputError(f"{self.address.shown} did not store {path.name} ({code})")
        stored = answer.get("ReferencedSOPSequence") or ()
        if any(str(item.get("ReferencedSOPInstanceUID", "")) == sop for item in stored):
            return
        if not self._is_there(header):
            raise InputError(f"{self.address.shown} did not confirm that it stored {path.name}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of one line, without what the server answered."""
        where = self.address.shown
        try:
            yield
        except InputError:
            raise
        except requests.HTTPError as error:
            status = _status(error)
            if status in _REFUSED:
                raise InputError(
                    f"{where} refuses the credentials (status {status}); set {USER} and its "
                    f"password, {TOKEN}, or {FILE}"
                ) from None
            if status == requests.codes.not_found:
                raise _NotFoundError(f"{where} has no such study, or no DICOMweb (404)") from None
            hint = "; it may have objects of that name" if status == _CONFLICT else ""
            raise InputError(f"{where} answered with status {status}{hint}") from None
        except requests.TooManyRedirects:
            raise InputError(f"{where} redirects; give the address that it redirects to") from None
        except requests.exceptions.SSLError:
            raise InputError(
                f"{where}: its certificate cannot be verified; set {_CERTIFICATES[0]} to the file "
                f"with your certificate authority, or give the name that the certificate has"
            ) from None
        except requests.Timeout:
            raise UnreachableError(f"{where} does not answer in time") from None
        except requests.ConnectionError:
            raise UnreachableError(f"{where} cannot be reached, or closed the connection") from None
        except Exception as error:  # its text may quote a patient's data
            raise InputError(
                f"{where} sent an answer that cannot be understood ({type(error).__name__})"
            ) from None


class _NotFoundError(InputError):
    """A resource that a server does not have."""


class _Session(requests.Session):
    """A session that sets the Host header from the address: the library leaves the port out."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request."""
        request.headers.pop("Host", None)
        return super().send(request, **options)


def _session(address: PacsAddress) -> requests.Session:
    session = _Session()
    session.trust_env, session.max_redirects = False, 0
    bundle = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), None)
    if bundle is not None:
        session.verify = bundle
    header = authorization(address)
    if header is not None:
        session.headers["Authorization"] = header
    return session


def _status(error: requests.HTTPError) -> int:
    return 0 if error.response is None else error.response.status_code


def _lowest_uid(answer: Dataset) -> str:
    levels = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return next((str(answer[key].value) for key in levels if key in answer), "")
