"""Splitting of one series into volumes: acquisitions, echoes, b-values and times.

Slices of different images (by echo, b-value, kernel, frame of reference, phase image) never
mix in a volume, at any position. Times count as volumes only if each of
them has the same positions; clocks that differ from slice to slice rank the slices of each
position instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from samonai.domains.medical.dicom.facts import by_number, canonical_texts, image_kind, shown
from samonai.domains.medical.dicom.slices import Slice, groups_by_position

# Different values of any of these mean different images.
_KINDS = (
    "ImageType",
    "ComplexImageComponent",
    "EchoTime",
    "EchoNumbers",
    "FlipAngle",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "CorrectedImage",
    "Units",
    "FrameOfReferenceUID",
)
# Different images if their slices alternate; consecutive blocks are passes of one scan.
_PASSES = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "StackID",
    "InversionTime",
    "SequenceName",
    "SliceThickness",
)
_MEASURED = ("InversionTime", "SliceThickness")  # of these, numbers may differ by rounding
_CLOCKS = ("AcquisitionTime", "ContentTime")
# Keywords that separate volumes at the same positions, as 3D Slicer's DICOM plugin splits them.
_SPLITTING = (
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "TriggerTime",
    "StackID",
    "ImageType",
    "InversionTime",
    "ComplexImageComponent",
    "FlipAngle",
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "CorrectedImage",
    "Units",
    "SequenceName",
    *_CLOCKS,
)
# Keywords that number the slices of one position, the plainest first.
_RANKING = (
    "TemporalPositionIdentifier",
    "TriggerTime",
    "InversionTime",
    "AcquisitionTime",
    "AcquisitionNumber",
    "ContentTime",
)
# A header's own slice spacing against that of all slices together, and of those of one clock.
_DENSER, _AGREES = 0.75, 0.1


@dataclass(frozen=True, eq=False)
class Part:
    """Slices that may be one volume, and how they differ from others of the series."""

    slices: list[Slice]
    told_apart: str = ""


class _Slices:
    """Slices with the position of each, counted from 0, and their header values, cached."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = list(slices)
        groups = groups_by_position(slices)
        self.counts = [len(group) for group in groups]
        places = {id(each): n for n, group in enumerate(groups) for each in group}
        self.places = [places[id(each)] for each in slices]
        self._texts: dict[str, list[str]] = {}

    @property
    def passes(self) -> int:
        """Return the number of slices of the fullest position."""
        return max(self.counts)

    @property
    def even(self) -> bool:
        """Return whether all positions have equally many slices."""
        return min(self.counts) == self.passes

    def texts(self, word: str) -> list[str]:
        """Return each slice's value of a keyword; a time is preceded by its date."""
        if word not in self._texts:
            date = word.removesuffix("Time") + "Date" if word in _CLOCKS else ""
            said = [(each.fact(date) if date else "") + each.fact(word) for each in self.slices]
            self._texts[word] = [image_kind(t) for t in said] if word == "ImageType" else said
        return self._texts[word]

    def varying(self, words: Sequence[str]) -> list[str]:
        """Return the keywords whose values differ between slices."""
        return [word for word in words if len(set(self.texts(word))) > 1]

    def partition(
        self, words: Sequence[str], close: bool = False
    ) -> dict[tuple[str, ...], list[int]]:
        """Group slice numbers by their values of keywords, in ascending order.

        Args:
            words: Keywords.
            close: Treat numbers that differ by rounding as equal.
        """
        columns = [self.texts(word) for word in words]
        if close:
            columns = [canonical_texts(column) for column in columns]
        parts: dict[tuple[str, ...], list[int]] = {}
        for number, key in enumerate(zip(*columns, strict=True)):
            parts.setdefault(key, []).append(number)
        return dict(sorted(parts.items(), key=lambda part: [by_number(text) for text in part[0]]))

    def one_each(self, part: Sequence[int]) -> bool:
        """Return whether no two slices of a part lie at one position."""
        return len({self.places[number] for number in part}) == len(part)

    def named(
        self, words: Sequence[str], parts: dict[tuple[str, ...], list[int]]
    ) -> list[tuple["_Slices", str]]:
        """Return parts with their distinguishing values as text."""
        values = [list(dict.fromkeys(column)) for column in zip(*parts, strict=True)]
        return [
            (
                _Slices([self.slices[number] for number in part]),
                ", ".join(
                    shown(word, text, column)
                    for word, text, column in zip(words, key, values, strict=True)
                ),
            )
            for key, part in parts.items()
        ]


def split_volumes(slices: Sequence[Slice]) -> list[Part]:
    """Split placed slices of one series, size and orientation into volumes.

    Returns:
        The volumes in a defined order: by echo, b-value, time and so on. One part whose slices
        repeat positions means that no header value separates them.
    """
    found = _Slices(slices)
    kinds = _kinds(found)
    complete = _complete_volumes(found, kinds)
    if complete is not None:
        return complete
    if not kinds:
        return _split_times(found, "")
    parts = found.named(kinds, found.partition(kinds, close=True))
    return [volume for part, told in parts for volume in _split_times(part, told)]


def _kinds(found: _Slices) -> list[str]:
    """Return the smallest set of keywords that separates all kinds of images."""
    words: list[str] = []
    count = 1
    for word in found.varying(_KINDS):
        finer = len(found.partition([*words, word], close=True))
        if finer > count:
            words.append(word)
            count = finer
    return words


def _complete_volumes(found: _Slices, kinds: Sequence[str]) -> list[Part] | None:
    """Return the volumes by the fewest keywords; None unless all have every position."""
    if found.passes == 1 or not found.even:
        return None
    by_kind = found.partition(kinds, close=True) if kinds else {(): list(range(len(found.places)))}
    kind_of = {number: n for n, part in enumerate(by_kind.values()) for number in part}
    for words in _combinations(found.varying(_SPLITTING)):
        parts = found.partition(words)
        if len(parts) != found.passes or not all(map(found.one_each, parts.values())):
            continue
        if all(len({kind_of[number] for number in part}) == 1 for part in parts.values()):
            return [Part(part.slices, told) for part, told in found.named(words, parts)]
    return None


def _combinations(words: list[str]) -> Iterator[tuple[str, ...]]:
    for count in (1, 2, 3):
        yield from combinations(words, count)


def _split_times(found: _Slices, told: str) -> list[Part]:
    """Split images of one kind into their times."""
    if found.passes == 1:
        return _unwoven(found, told)
    complete = _complete_volumes(found, ()) or _ranked(found) or _incomplete(found)
    if complete is None:
        return [Part(found.slices, told)]
    return [Part(part.slices, _joined(told, part.told_apart)) for part in complete]


def _unwoven(found: _Slices, told: str) -> list[Part]:
    """Split slices at positions of their own into two alternating passes."""
    for word in found.varying((*_PASSES, *_CLOCKS)):
        parts = found.partition([word], close=word in _MEASURED)
        if word == "StackID" and _spacing_is_of_all(found):
            continue  # packages of slices: several stacks of one volume
        if _alternate(found, parts) and (word in _PASSES or _spacing_says_so(found, parts)):
            named = found.named([word], parts)
            return [v for part, own in named for v in _unwoven(part, _joined(told, own))]
    return [Part(found.slices, told)]


def _alternate(found: _Slices, parts: dict[tuple[str, ...], list[int]]) -> bool:
    """Return whether slices of one part lie between those of another."""
    spans = [{found.places[number] for number in part} for part in parts.values()]
    return any(
        min(first) < place < max(first)
        for first in spans
        for second in spans
        if first is not second
        for place in second
    )


def _spacing_says_so(found: _Slices, parts: dict[tuple[str, ...], list[int]]) -> bool:
    """Return whether the header's slice spacing is that of each part and not of all together."""
    wanted = _declared_spacing(found)
    if not wanted:
        return False
    together = _step(found, list(range(len(found.slices))))
    apart = [_step(found, part) for part in parts.values() if len(part) > 1]
    return together < _DENSER * wanted and all(
        abs(step - wanted) <= _AGREES * wanted for step in apart
    )


def _spacing_is_of_all(found: _Slices) -> bool:
    """Return whether the header's slice spacing is that of all slices together."""
    wanted = _declared_spacing(found)
    together = _step(found, list(range(len(found.slices))))
    return bool(wanted) and abs(together - wanted) <= _AGREES * wanted


def _declared_spacing(found: _Slices) -> float:
    """Return the distance of neighbouring slices by the header in mm; 0 where it has none."""
    first = found.slices[0]
    claimed = first.fact("SpacingBetweenSlices")
    if not claimed and first.header.text("Modality") == "MR":
        claimed = first.fact("SliceThickness")
    known, declared, _ = by_number(claimed)
    return 0.0 if known or not declared else abs(float(declared))


def _step(found: _Slices, part: Sequence[int]) -> float:
    places = np.sort([found.slices[number].distance for number in part])
    return float(np.median(np.diff(places)))


def _ranked(found: _Slices) -> list[Part] | None:
    """Return the volumes of the first, second, third... slice of each position, by time."""
    if not found.even:
        return None
    for word in _RANKING:
        order = [by_number(text) for text in found.texts(word)]
        if any(key[0] for key in order):
            continue
        columns: list[list[int]] = [[] for _ in found.counts]
        for number, place in enumerate(found.places):
            columns[place].append(number)
        if any(len({order[number] for number in column}) < found.passes for column in columns):
            continue
        ordered = [sorted(column, key=order.__getitem__) for column in columns]
        return [
            Part(
                [found.slices[number] for number in numbers],
                f"{word}: number {rank} of {found.passes} at each position",
            )
            for rank, numbers in enumerate(zip(*ordered, strict=True), start=1)
        ]
    return None


def _incomplete(found: _Slices) -> list[Part] | None:
    """Return volumes of unequal numbers of slices if one keyword numbers them."""
    for word in found.varying(_PASSES):
        parts = found.partition([word])
        if len(parts) == found.passes and all(map(found.one_each, parts.values())):
            return [Part(part.slices, told) for part, told in found.named([word], parts)]
    return None


def _joined(first: str, second: str) -> str:
    return ", ".join(filter(None, (first, second)))
