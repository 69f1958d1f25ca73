"""Client of a PACS: finds series, fetches them whole, and stores results, each one confirmed."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.medical.dicom.headers import quiet
from samonai.pacs.address import PacsAddress
from samonai.pacs.matching import (
    SERIES_KEYS,
    STUDY_KEYS,
    FoundSeries,
    is_uid,
    matching,
    part_of,
)

logger = logging.getLogger(__name__)

MOST_ANSWERS = 10_000
"""Studies or series that one query may find; a wider one is refused."""

SENT, ALREADY_THERE = "sent", "already there"


class UnreachableError(InputError):
    """A PACS that cannot be reached now; later it may."""


@dataclass(frozen=True)
class Stored:
    """An object that a PACS has confirmed.

    Attributes:
        path: The file.
        uid: Its SOPInstanceUID.
        state: `SENT`, or `ALREADY_THERE` where the PACS had it.
    """

    path: Path
    uid: str
    state: str


class PacsClient(ABC):
    """Client of a PACS; its methods raise `InputError` without quoting what the PACS answered.

    Args:
        address: The PACS.
    """

    def __init__(self, address: PacsAddress) -> None:
        """Keep the address; nothing is connected yet."""
        self.address = address

    def find(self, query: Mapping[str, str]) -> list[FoundSeries]:
        """Return the series that match a query, sorted by study and series; see `matching`.

        Args:
            query: Keyword to value; empty: all series.

        Raises:
            InputError: The PACS cannot be asked, or its answers cannot be matched.
        """
        where = self.address.shown
        of_study, of_series = part_of(query, STUDY_KEYS), part_of(query, SERIES_KEYS)
        if of_series.keys() == {"SeriesInstanceUID"} and not of_study:
            raise InputError("SeriesInstanceUID alone finds no series; give StudyInstanceUID too")
        with quiet():
            if of_study.keys() == {"StudyInstanceUID"}:
                studies = [of_study["StudyInstanceUID"]]
            else:
                answers = self._answers(self._studies(of_study), "studies")
                studies = sorted({_uid(one, "Study") for one in matching(answers, of_study, where)})
            found = []
            for study in studies:
                series = self._answers(self._series(study, sorted(of_series)), "series")
                found += [_found(study, one) for one in matching(series, of_series, where)]
        return sorted(set(found), key=lambda one: (one.study, one.series))

    def fetch(self, found: FoundSeries, folder: Path) -> int:
        """Write all instances of a series into an empty folder, and return their number.

        Raises:
            InputError: The PACS sends fewer instances than it says it has, or others.
        """
        with quiet():
            expected = self._expected(found)
            received = set(self._retrieved(found, folder))
        missing = len(expected - received)
        if missing or not received:
            raise InputError(
                f"{self.address.shown} sent {len(received)} of {len(expected)} instances of the "
                f"series; run the same command again"
            )
        return len(received)

    def send(self, paths: Sequence[Path]) -> list[Stored]:
        """Store DICOM files, in order, unless the PACS has them; each is confirmed by the PACS.

        Raises:
            InputError: The PACS refused a file, or did not confirm it.
        """
        done = []
        with quiet():
            for path in paths:
                header = pydicom.dcmread(path, stop_before_pixels=True)
                if self._is_there(header):
                    done.append(Stored(path, str(header.SOPInstanceUID), ALREADY_THERE))
                    continue
                self._store(path, header)
                done.append(Stored(path, str(header.SOPInstanceUID), SENT))
        return done

    def _answers(self, answers: Iterable[Dataset], what: str) -> list[Dataset]:
        """Return all answers, or refuse to go on with a part of them."""
        found = []
        for answer in answers:
            found.append(answer)
            if len(found) > MOST_ANSWERS:
                raise InputError(
                    f"{self.address.shown} has more than {MOST_ANSWERS} such {what}; narrow the "
                    f"query, for example by StudyDate"
                )
        return found

    def _expected(self, found: FoundSeries) -> set[str]:
        instances = self._answers(self._instances(found), "instances")
        expected = {_uid(one, "SOP") for one in instances}
        if not expected:
            raise InputError(f"{self.address.shown} has no instances of the series any more")
        return expected

    @abstractmethod
    def _studies(self, query: Mapping[str, str]) -> Iterator[Dataset]:
        """Yield studies, all that match and possibly others, with the elements of the query."""

    @abstractmethod
    def _series(self, study: str, keys: Sequence[str]) -> Iterator[Dataset]:
        """Yield all series of a study, with some elements."""

    @abstractmethod
    def _instances(self, found: FoundSeries) -> Iterator[Dataset]:
        """Yield all instances of a series, with SOPInstanceUID and SOPClassUID."""

    @abstractmethod
    def _retrieved(self, found: FoundSeries, folder: Path) -> Iterator[str]:
        """Write the instances of a series, and yield their SOPInstanceUIDs."""

    @abstractmethod
    def _is_there(self, header: Dataset) -> bool:
        """Return whether the PACS has an object already."""

    @abstractmethod
    def _store(self, path: Path, header: Dataset) -> None:
        """Store a file; raise unless the PACS confirms it."""


def keep_instance(
    content: bytes, sop: str, series: str, wanted: str, folder: Path, where: str
) -> str:
    """Write an instance under a name made of its own UID, and return that UID.

    Args:
        content: The file.
        sop: Its SOPInstanceUID, from a PACS.
        series: Its SeriesInstanceUID.
        wanted: The series that was asked for.
        folder: Where to.
        where: The PACS, for messages.

    Raises:
        InputError: The instance is of another series, or its UID is none.
    """
    if series != wanted:
        raise InputError(f"{where} sent an instance of another series than was asked for")
    if not is_uid(sop):
        raise InputError(f"{where} sent an instance whose SOPInstanceUID is no UID")
    with write_atomically(folder / f"{sop}.dcm", private=True) as temporary:
        temporary.write_bytes(content)
    return sop


def _uid(answer: Dataset, level: str) -> str:
    uid = str(answer.get(f"{level}InstanceUID", ""))
    if not is_uid(uid):
        raise InputError(f"the PACS answered without a usable {level}InstanceUID")
    return uid


def _found(study: str, answer: Dataset) -> FoundSeries:
    if (told := answer.get("StudyInstanceUID")) and UID(str(told)) != study:
        raise InputError("the PACS answered with a series of another study than was asked for")
    count = str(answer.get("NumberOfSeriesRelatedInstances", "") or "")
    return FoundSeries(
        study,
        _uid(answer, "Series"),
        str(answer.get("Modality", "") or ""),
        int(count) if count.isdigit() else None,
    )
