"""Matching of studies and series, done here, so that a query never misses in silence.

Servers differ in how they match. Some take percent-escapes literally, so that a query for a name,
for a value with a space or a slash, or with a wildcard finds nothing though there is something;
others take a wildcard for a byte, and find no name with an umlaut. Therefore names are never sent,
DICOMweb sends only values that need no escape, DIMSE a wider pattern, and all values are matched
here against what the server answers.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from samonai.core.errors import InputError

UID_KEYS = frozenset({"StudyInstanceUID", "SeriesInstanceUID"})
STUDY_KEYS = (
    "StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate",
    "StudyDescription", "ModalitiesInStudy",
)  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription")

NOT_IMAGES = frozenset(
    {"SEG", "SR", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "PR", "KO", "REG", "FID", "DOC",
     "AU", "ECG", "HD", "SMR", "PLAN"}
)  # fmt: skip
"""Modalities of series without images."""

_NAME = "PatientName"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_DAY = r"\d{8}"
_DATES = re.compile(rf"{_DAY}|{_DAY}-|-{_DAY}|{_DAY}-{_DAY}")
_UNESCAPED = re.compile(r"[A-Za-z0-9._-]+")
_WIDENED = re.compile(r"[^ -)+->@-~]+")  # all but ASCII without * and ?
_LONGEST = 256


@dataclass(frozen=True)
class FoundSeries:
    """A series of a PACS.

    Attributes:
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        modality: The modality, empty if the PACS does not say.
        instances: Number of its instances; None if the PACS does not say.
    """

    study: str
    series: str
    modality: str = ""
    instances: int | None = None

    @property
    def left_out(self) -> str | None:
        """Return why there is nothing to segment; None for images."""
        return f"no scan: {self.modality}" if self.modality in NOT_IMAGES else None


def is_uid(text: str) -> bool:
    """Return whether a text is a DICOM UID: digits and dots, at most 64."""
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def checked_query(asked: Mapping[str, str]) -> dict[str, str]:
    """Return a query whose keys and values can be matched.

    Raises:
        InputError: A key is not known, or a value is not of its kind.
    """
    for key, value in asked.items():
        if key not in STUDY_KEYS and key not in SERIES_KEYS:
            known = ", ".join((*STUDY_KEYS, *SERIES_KEYS))
            raise InputError(f"the query of a PACS: {key[:40]!r} is not known; use {known}")
        if len(value) > _LONGEST or not value.isprintable() or "\\" in value:
            raise InputError(f"the query of a PACS: the value of {key} cannot be used")
        if key in UID_KEYS and not is_uid(value):
            raise InputError(f"{key}: expected digits and dots, and one UID without wildcards")
        if key == "StudyDate" and not _DATES.fullmatch(value):
            raise InputError(
                "StudyDate: expected a day YYYYMMDD, or days such as YYYYMMDD-YYYYMMDD"
            )
        if key == "SeriesNumber" and not re.fullmatch(r"-?\d{1,10}", value):
            raise InputError("SeriesNumber: expected a whole number")
    return dict(asked)


def part_of(query: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Return the entries of a query of one level: `STUDY_KEYS` or `SERIES_KEYS`."""
    return {key: query[key] for key in keys if key in query}


def without_escapes(query: Mapping[str, str]) -> dict[str, str]:
    """Return what every DICOMweb server understands alike: no name, nothing that needs escapes."""
    return {
        key: value for key, value in query.items() if key != _NAME and _UNESCAPED.fullmatch(value)
    }


def wider(query: Mapping[str, str]) -> dict[str, str]:
    """Return a query that finds at least as much on every DIMSE server.

    Names are left out, whose case servers treat differently; where character sets or wildcards
    may be taken differently, `*` stands.
    """
    return {key: _WIDENED.sub("*", value) for key, value in query.items() if key != _NAME}


def matching(answers: Iterable[Dataset], query: Mapping[str, str], where: str) -> list[Dataset]:
    """Return the answers of a PACS that match all of a query.

    Text is compared with the wildcards `*` and `?`, names without regard to case.

    Args:
        answers: What the PACS answered.
        query: Keyword to value.
        where: The PACS, for messages.

    Raises:
        InputError: No answer states an element that the query has, so that matching is impossible.
    """
    answers = list(answers)
    for key in query:
        if answers and not any(key in answer for answer in answers):
            raise InputError(
                f"{where} does not answer {key}, so that studies cannot be told apart by it; use "
                f"StudyInstanceUID or another key"
            )
    return [
        answer
        for answer in answers
        if all(_matches(key, answer.get(key), value) for key, value in query.items())
    ]


def _matches(key: str, found: Any, wanted: str) -> bool:
    values = found if isinstance(found, list | tuple) or hasattr(found, "append") else [found]
    return any(_is(key, value, wanted) for value in values if value is not None)


def _is(key: str, value: Any, wanted: str) -> bool:
    text = _plain(str(value))
    if key == "StudyDate":
        first, dash, last = wanted.partition("-")
        inside = first <= text <= (last or "9" * 8) if dash else text == wanted
        return bool(text) and inside
    if key == "SeriesNumber":
        return text.lstrip("+-").isdigit() and int(text) == int(wanted)
    if key == _NAME:
        pattern = _pattern(_name(wanted))
        groups = [_name(group) for group in (text, *text.split("="))]
        return any(pattern.fullmatch(group) for group in groups)
    return bool(_pattern(_plain(wanted)).fullmatch(text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip(" \0")


def _name(text: str) -> str:
    """Return a name without case, and without empty components at its end."""
    return _plain(text).casefold().rstrip("^ ")


def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile("".join(parts), re.DOTALL)
