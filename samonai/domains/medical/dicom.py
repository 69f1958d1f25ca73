"""Read one DICOM series into a volume, or say in one line why it is none."""

import logging
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.medical.dicom_files import Header, find_headers, quiet
from samonai.domains.medical.dicom_pixels import check_pixels, decode, slice_values
from samonai.domains.medical.dicom_slices import (
    Slice,
    groups_by_position,
    is_placed,
    series_affine,
    slices_of,
    sort_slices,
)
from samonai.domains.medical.volume import FormatFacts, RawVolume, SourceSlice, check_affine
from samonai.errors import InputError

logger = logging.getLogger(__name__)

_SAME_ORIENTATION = 1e-2  # largest difference of a direction cosine within one stack
# A few images of another orientation beside a stack at least this many times larger are scouts.
_SCOUT_RATIO = 5
_SCOUT_IMAGES = 3
# What tells apart stacks that share a series number, as 3D Slicer's DICOM plugin splits them.
_SPLITTING_KEYWORDS = (
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
)

Stack = list[Slice]


def read_dicom(path: Path, series: str | None = None) -> RawVolume:
    """Read a DICOM series.

    Args:
        path: A folder, searched through all its levels, or one file.
        series: SeriesInstanceUID, needed when there is more than one stack of slices; where one
            series holds several, as the error lists them (`UID#2`).

    Returns:
        float32 voxels (columns, rows, slices), slices sorted along their normal.

    Raises:
        InputError: When the stack to read is not clear, incomplete, uneven or damaged.
    """
    with quiet():
        return _read(path, series)


def _read(path: Path, series: str | None) -> RawVolume:
    headers = find_headers(path)
    stacks = _without_scouts(_placed_stacks(_stacks(headers), path), path)
    stack = _choose(stacks, series, path)
    if not is_placed(stack[0].header):
        logger.warning("%s: no position in the patient; taken as the origin", path.name)
    for header in _headers(stack):
        check_pixels(header)
    stack, pixels = _without_duplicates(stack, path)
    affine = series_affine(stack, path)
    check_affine(affine, str(path))
    array, valid = _assemble(stack, pixels)
    modality = stack[0].header.text("Modality") or None
    files = tuple(SourceSlice(each.header.path, each.frame) for each in stack)
    return RawVolume(array, affine, FormatFacts("dicom", modality=modality, slices=files), valid)


class _Pixels:
    """Decoded files, each decoded once while its slices are used one after the other."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stored: npt.NDArray[Any] | None = None

    def stored(self, each: Slice) -> npt.NDArray[Any]:
        if self._stored is None or self._path != each.header.path:
            self._stored = decode(each.header)
            self._path = each.header.path
        if each.frame is None or self._stored.ndim == 2:
            return self._stored
        return self._stored[each.frame]


def _headers(stack: Stack) -> list[Header]:
    return list({each.header.path: each.header for each in stack}.values())


def _stacks(headers: Sequence[Header]) -> list[Stack]:
    """Group slices that may belong to one volume: never across series, sizes or orientations."""
    by_key: dict[Hashable, Stack] = {}
    for header in headers:
        for each in slices_of(header):
            by_key.setdefault(_stack_key(each), []).append(each)
    stacks = [part for group in by_key.values() for part in _split_orientations(group)]
    return [part for stack in stacks for part in _split_repeated(stack)]


def _stack_key(each: Slice) -> Hashable:
    header = each.header
    kind = header.value("ImageType") or ()
    return (
        header.text("SeriesInstanceUID"),
        header.text("Modality"),
        header.number("Rows"),
        header.number("Columns"),
        header.text("PhotometricInterpretation"),
        tuple(np.round(each.spacing, 4)),
        tuple(kind)[:3] if not isinstance(kind, str) else (kind,),
        header.path if each.frame is not None else None,
        is_placed(header),
    )


def _split_orientations(slices: Stack) -> list[Stack]:
    stacks: list[Stack] = []
    for each in slices:
        for stack in stacks:
            if np.abs(each.orientation - stack[0].orientation).max() <= _SAME_ORIENTATION:
                stack.append(each)
                break
        else:
            stacks.append([each])
    return stacks


def _split_repeated(stack: Stack) -> list[Stack]:
    """Split a stack that passes its positions several times (echoes, time points, b-values)."""
    if all(len(group) == 1 for group in groups_by_position(stack)):
        return [stack]
    for keyword in _SPLITTING_KEYWORDS:
        parts = _partition(stack, keyword)
        single = all(len(group) == 1 for part in parts for group in groups_by_position(part))
        if len(parts) > 1 and single:
            return parts
    return [stack]


def _partition(stack: Stack, keyword: str) -> list[Stack]:
    parts: dict[str, Stack] = {}
    for each in stack:
        parts.setdefault(each.header.text(keyword), []).append(each)
    return list(parts.values())


def _placed_stacks(stacks: list[Stack], path: Path) -> list[Stack]:
    """Leave out screenshots and projections, where slices with a position are there."""
    placed = [stack for stack in stacks if is_placed(stack[0].header)]
    others = [stack for stack in stacks if not is_placed(stack[0].header)]
    if not placed or not others:
        return stacks
    series = {stack[0].header.text("SeriesInstanceUID") for stack in placed}
    for stack in others:
        header = stack[0].header
        if header.text("SeriesInstanceUID") in series:
            raise InputError(
                f"{header.path}: no ImagePositionPatient, unlike its series; export it again"
            )
    count = sum(len(stack) for stack in others)
    logger.warning("%s: left out %d images without a position", path.name, count)
    return placed


def _without_scouts(stacks: list[Stack], path: Path) -> list[Stack]:
    """Leave out localizers, where anything else is there."""

    def is_scout(stack: Stack) -> bool:
        header = stack[0].header
        if "LOCALIZER" in header.text("ImageType").upper():
            return True
        uid = header.text("SeriesInstanceUID")
        largest = max(len(s) for s in stacks if s[0].header.text("SeriesInstanceUID") == uid)
        turned = all(
            np.abs(s[0].orientation - stack[0].orientation).max() > _SAME_ORIENTATION
            for s in stacks
            if len(s) == largest
        )
        return turned and len(stack) <= min(_SCOUT_IMAGES, largest // _SCOUT_RATIO)

    kept = [stack for stack in stacks if not is_scout(stack)]
    if not kept or len(kept) == len(stacks):
        return stacks
    left_out = sum(len(stack) for stack in stacks) - sum(len(stack) for stack in kept)
    logger.warning("%s: left out %d localizer images", path.name, left_out)
    return kept


def _choose(stacks: list[Stack], series: str | None, path: Path) -> Stack:
    named = _named(stacks)
    if series is None and len(named) == 1:
        return next(iter(named.values()))
    if series is not None:
        if series in named:
            return named[series]
        of_uid = [stack for name, stack in named.items() if name.split("#")[0] == series]
        if len(of_uid) == 1:
            return of_uid[0]
    listed = "; ".join(
        f"{number}) {stack[0].header.text('Modality') or 'unknown modality'}, "
        f"{len(stack)} slice{'s' * (len(stack) > 1)} of {stack[0].header.number('Columns')}x"
        f"{stack[0].header.number('Rows')}, series {name}"
        for number, (name, stack) in enumerate(named.items(), start=1)
    )
    what = f"no series {series}" if series is not None else f"{len(named)} series"
    raise InputError(f"{path}: {what}; choose with --series UID from: {listed}")


def _named(stacks: list[Stack]) -> dict[str, Stack]:
    """Name each stack by its series' UID, numbered where a series holds several."""
    uids = [stack[0].header.text("SeriesInstanceUID") or "unnamed" for stack in stacks]
    named: dict[str, Stack] = {}
    for uid, stack in zip(uids, stacks, strict=True):
        number = sum(name.split("#")[0] == uid for name in named) + 1
        named[uid if uids.count(uid) == 1 else f"{uid}#{number}"] = stack
    return named


def _without_duplicates(stack: Stack, path: Path) -> tuple[Stack, _Pixels]:
    """Drop copies of a slice; refuse different slices at one position."""
    pixels, kept, dropped = _Pixels(), [], 0
    for group in groups_by_position(stack):
        kept.append(group[0])
        if len(group) == 1:
            continue
        first = pixels.stored(group[0])
        for other in group[1:]:
            rescaled = (other.slope, other.intercept) == (group[0].slope, group[0].intercept)
            if not rescaled or not np.array_equal(first, pixels.stored(other)):
                raise InputError(
                    f"{path}: {len(group)} different slices at {group[0].distance:.2f} mm along "
                    "the slice normal (several time points or echoes?); keep one volume per folder"
                )
            dropped += 1
    if dropped:
        logger.warning("%s: dropped %d identical copies of slices", path.name, dropped)
    return sort_slices(kept), pixels


def _assemble(
    stack: Stack, pixels: _Pixels
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    rows, columns = (stack[0].header.number(name) for name in ("Rows", "Columns"))
    # Slices first in memory, so that each is written in one piece; then seen as (I, J, K).
    array = np.empty((len(stack), rows, columns), np.float32)
    valid = np.ones(array.shape, bool)
    for number, each in enumerate(stack):
        stored = pixels.stored(each)
        if stored.shape != (rows, columns):
            raise InputError(f"{each.header.path}: pixel data cut short or damaged; copy it again")
        array[number], mask = slice_values(stored, each)
        if mask is not None:
            valid[number] = mask
    return array.transpose(2, 1, 0), None if valid.all() else valid.transpose(2, 1, 0)
