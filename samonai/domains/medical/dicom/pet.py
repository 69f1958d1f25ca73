"""PET in standardised uptake values by body weight (SUVbw), if the headers allow it.

The rules are those of the Quantitative Imaging Biomarkers Alliance: activity concentration in
BQML, corrected for attenuation and decay, and a known dose, half-life, time and body weight.
If any is missing, the stored unit is kept, since the result would not be an SUV.
"""

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.headers import Header, element

logger = logging.getLogger(__name__)

SUV_BODY_WEIGHT = "SUVbw"
_GRAMS_PER_KILOGRAM = 1000
_CORRECTIONS = ("ATTN", "DECY")


class _Missing(Exception):  # noqa: N818
    """Header elements missing for an SUV; its text holds keywords and no values."""


def suv_factor(
    headers: Sequence[Header], suv: bool | None, where: str, logged: str
) -> tuple[float, str | None]:
    """Return the factor of rescaled PET values, and their resulting unit.

    Args:
        headers: Headers of all files of the series.
        suv: True refuses a series that cannot be converted, False never converts, None converts
            if possible and logs why not.
        where: Name of the series in messages.
        logged: Name of the series in the log.

    Raises:
        InputError: SUV are demanded and cannot be computed.
    """
    first = headers[0]
    if first.text("Modality") != "PT":
        if suv:
            raise InputError(f"{where}: SUV are for PET, and this is {first.text('Modality')}")
        return 1.0, None
    unit = first.text("Units")
    if suv is False or unit == "GML":
        return 1.0, SUV_BODY_WEIGHT if unit == "GML" else unit or None
    try:
        return _factor(headers), SUV_BODY_WEIGHT
    except _Missing as reason:
        if suv:
            raise InputError(
                f"{where}: no SUV: {reason}; without --set suv=true it is read as stored"
            ) from None
        logger.warning("%s: PET read as stored and not as SUV: %s", logged, reason)
        return 1.0, unit or None


def _factor(headers: Sequence[Header]) -> float:
    first = headers[0]
    if first.text("Units") != "BQML":
        raise _Missing("Units are not BQML")
    corrected = first.value("CorrectedImage") or ()
    corrected = (corrected,) if isinstance(corrected, str) else tuple(corrected)
    if lacking := [name for name in _CORRECTIONS if name not in corrected]:
        raise _Missing(f"CorrectedImage lacks {' and '.join(lacking)}")
    correction = first.text("DecayCorrection")
    if correction not in ("START", "ADMIN"):
        raise _Missing("DecayCorrection is neither START nor ADMIN")
    items = first.value("RadiopharmaceuticalInformationSequence")
    if not items:
        raise _Missing("no RadiopharmaceuticalInformationSequence")
    dose = _positive(items[0], "RadionuclideTotalDose", first)
    half_life = _positive(items[0], "RadionuclideHalfLife", first)
    weight = _positive(first.dataset, "PatientWeight", first) * _GRAMS_PER_KILOGRAM
    if correction == "START":
        dose *= math.pow(2, -_seconds_since_injection(headers, items[0]) / half_life)
    return weight / dose


def _seconds_since_injection(headers: Sequence[Header], item: Dataset) -> float:
    """Return the time from injection to the start of the scan, to which decay is corrected."""
    first = headers[0]
    start = _moment(first, "SeriesDate", "SeriesTime")
    acquired = [_moment(header, "AcquisitionDate", "AcquisitionTime") for header in headers]
    if start > min(acquired):  # a series time that was rewritten after the scan
        start = min(acquired)
    whole = element(item, "RadiopharmaceuticalStartDateTime", first.path)
    if whole is not None:
        injected = _parsed(str(whole)[:14], "RadiopharmaceuticalStartDateTime")
    else:
        clock = element(item, "RadiopharmaceuticalStartTime", first.path)
        if clock is None:
            raise _Missing("no RadiopharmaceuticalStartTime")
        text = f"{start:%Y%m%d}{_clock(clock)}"
        injected = _parsed(text, "RadiopharmaceuticalStartTime")
        if injected > start:  # only the hour is given, and the scan was after midnight
            injected -= timedelta(days=1)
    seconds = (start - injected).total_seconds()
    if not 0 <= seconds < timedelta(days=1).total_seconds():
        raise _Missing("the injection is not within the day before the scan")
    return seconds


def _moment(header: Header, date: str, time: str) -> datetime:
    day, clock = header.text(date), header.text(time)
    if not day or not clock:
        raise _Missing(f"no {date} or no {time}")
    return _parsed(f"{day}{_clock(clock)}", time)


def _clock(value: Any) -> str:
    return str(value).split(".")[0].ljust(6, "0")


def _parsed(text: str, name: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S")
    except ValueError:
        raise _Missing(f"{name} is no time") from None


def _positive(dataset: Dataset, keyword: str, header: Header) -> float:
    value = element(dataset, keyword, header.path)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise _Missing(f"no {keyword} above 0")
    return number
