"""Stacks: the slices of a folder grouped into possible volumes, and the choice of one."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.concatenation import concatenation
from samonai.domains.medical.dicom.headers import Header
from samonai.domains.medical.dicom.slices import Slice, is_placed, slices_of, sort_slices
from samonai.domains.medical.dicom.volume_split import split_volumes
from samonai.domains.medical.volume import ReadOptions

logger = logging.getLogger(__name__)

_SAME_ORIENTATION = 1e-2  # largest difference of a direction cosine within one stack
_UPRIGHT = 0.999  # cosine between a slice's normal and an axis of the body
# A few images of another orientation beside a stack at least this many times larger are scouts.
_SCOUT_RATIO = 5
_SCOUT_IMAGES = 3
# Without positions these are scans that lost their geometry; all others are separate pictures,
# and so is a single image of a gamma camera.
_SCANNERS = frozenset({"CT", "MR", "PT", "NM"})
_PROJECTS = "NM"
_LISTED = 12


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one size, orientation and series.

    Attributes:
        slices: In the order of their files.
        told_apart: How it differs from other volumes of its series, for messages.
    """

    slices: list[Slice]
    told_apart: str = ""

    @property
    def first(self) -> Header:
        """Return the header of a slice, for values shared by all."""
        return self.slices[0].header

    @property
    def uid(self) -> str:
        """Return the SeriesInstanceUID, or "unnamed"."""
        return self.first.text("SeriesInstanceUID") or "unnamed"

    @property
    def placed(self) -> bool:
        """Return whether its slices have positions in the patient."""
        return is_placed(self.first)

    def headers(self) -> list[Header]:
        """Return each file's header once."""
        return list({each.header.path: each.header for each in self.slices}.values())


def choose_stack(headers: Sequence[Header], options: ReadOptions, path: Path) -> Stack:
    """Return the one stack to read.

    Args:
        headers: Headers of all images found.
        options: The series, or the name of a stack in a message's list (`UID#2`), and
            the volume of it.
        path: The folder, for messages.

    Raises:
        InputError: The choice is ambiguous; the message lists the stacks.
    """
    series, time = options.series, options.time
    stacks = _without_scouts(_placed_stacks(_stacks(headers)))
    named = _named(stacks)
    chosen = named
    if series is not None:
        chosen = {name: s for name, s in named.items() if series in (name, s.uid)}
    if time is not None and chosen and len({stack.uid for stack in chosen.values()}) == 1:
        if not 1 <= time <= len(chosen):
            raise InputError(f"{path}: no volume {time}; the series has {len(chosen)}")
        return list(chosen.values())[time - 1]
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    raise InputError(f"{path}: {_what_is_there(named, options, bool(chosen))}")


def check_positions(stack: Stack) -> None:
    """Refuse a stack whose slices lack positions that their modality measures.

    Only the stack to read is checked: a screenshot beside a scan is left out.

    Raises:
        InputError: A scanner's slices have no positions, or pictures no order.
    """
    if stack.placed:
        return
    several = len(stack.slices) > 1
    where = f"{stack.first.path}: series {stack.uid}"
    modality = stack.first.text("Modality")
    if modality in _SCANNERS and (several or modality != _PROJECTS):
        what = "its frames do not say" if stack.slices[0].frame is not None else "nothing says"
        raise InputError(
            f"{where}: no ImagePositionPatient and ImageOrientationPatient, so {what} where they "
            "lie in the body; export the series again"
        )
    numbers = _instance_numbers(stack.slices)
    if stack.slices[0].frame is None and len(set(numbers)) < len(numbers):
        raise InputError(
            f"{where}: pictures without ImagePositionPatient whose InstanceNumber does not tell "
            "their order; export the series again"
        )


def _what_is_there(named: dict[str, Stack], options: ReadOptions, several: bool) -> str:
    listed = "; ".join(
        f"{number}) {stack.first.text('Modality') or 'unknown modality'}, "
        f"{len(stack.slices)} slice{'s' * (len(stack.slices) > 1)} of "
        f"{stack.first.number('Columns')}x{stack.first.number('Rows')}"
        f"{_differences(stack, list(named.values()))}, series {name}"
        for number, (name, stack) in enumerate(list(named.items())[:_LISTED], start=1)
    )
    more = f"; and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    of_one = len({stack.uid for stack in named.values()}) == 1
    if options.series is not None and not several:
        what = f"no series {options.series}"
    else:
        what = f"{len(named)} volumes in one series" if of_one else f"{len(named)} series"
    if options.of_label:
        return f"{what}; a label map is one volume: keep one of them in the folder: {listed}{more}"
    how = " or --set time=N" if of_one else ""
    return f"{what}; choose with --series UID{how} from: {listed}{more}"


def _differences(stack: Stack, stacks: list[Stack]) -> str:
    """Return how a stack differs from others of its series, besides size and number of slices."""
    first = stack.slices[0]
    beside = [other.slices[0] for other in stacks if other.uid == stack.uid]
    told = [stack.told_apart] if stack.told_apart else []
    turned = (np.abs(other.orientation - first.orientation).max() for other in beside)
    if max(turned, default=0) > _SAME_ORIENTATION:
        normal = np.abs(first.normal)
        plane = ("sagittal", "coronal", "axial")[int(normal.argmax())]
        told.append(plane if normal.max() > _UPRIGHT else f"oblique to {plane}")
    if any(np.abs(np.subtract(other.spacing, first.spacing)).max() > 1e-4 for other in beside):
        told.append(f"pixels of {first.spacing[1]:.4g}x{first.spacing[0]:.4g} mm")
    return "".join(f", {each}" for each in told)


def _stacks(headers: Sequence[Header]) -> list[Stack]:
    """Group slices that may belong to one volume: never across series, sizes or orientations."""
    by_key: dict[Hashable, list[Slice]] = {}
    for header in headers:
        for each in slices_of(header):
            by_key.setdefault(_stack_key(each), []).append(each)
    stacks = [part for group in by_key.values() for part in _split_orientations(group)]
    return [part for stack in stacks for part in _split_images(stack)]


def _stack_key(each: Slice) -> Hashable:
    header = each.header
    placed = is_placed(header)
    # Slices with positions are described by their whole ImageType.
    kind = () if placed else header.value("ImageType") or ()
    return (
        header.text("SeriesInstanceUID"),
        header.text("Modality"),
        header.number("Rows"),
        header.number("Columns"),
        header.text("PhotometricInterpretation"),
        tuple(np.round(each.spacing, 4)),
        tuple(kind)[:3] if not isinstance(kind, str) else (kind,),
        concatenation(header) or header.path if each.frame is not None else None,
        placed,
    )


def _split_orientations(slices: list[Slice]) -> list[list[Slice]]:
    stacks: list[list[Slice]] = []
    for each in slices:
        for stack in stacks:
            if np.abs(each.orientation - stack[0].orientation).max() <= _SAME_ORIENTATION:
                stack.append(each)
                break
        else:
            stacks.append([each])
    return stacks


def _split_images(slices: list[Slice]) -> list[Stack]:
    """Split slices of different images: echoes, b-values, kernels, times."""
    if not is_placed(slices[0].header):
        return [Stack(_as_pictures(slices))]
    return [Stack(part.slices, part.told_apart) for part in split_volumes(slices)]


def _as_pictures(slices: list[Slice]) -> list[Slice]:
    """Stack pictures without a position in the order of their numbers."""
    if slices[0].frame is not None or len(slices) == 1:
        return sort_slices(slices)
    numbers = _instance_numbers(slices)
    ordered = sorted(zip(numbers, slices, strict=True), key=lambda pair: pair[0])
    return [
        replace(each, position=np.array([0.0, 0.0, float(number)]))
        for number, (_, each) in enumerate(ordered)
    ]


def _instance_numbers(slices: list[Slice]) -> list[int]:
    return [each.header.number("InstanceNumber", -1) for each in slices]


def _placed_stacks(stacks: list[Stack]) -> list[Stack]:
    """Leave out screenshots and projections if there are slices with a position."""
    placed = [stack for stack in stacks if stack.placed]
    others = [stack for stack in stacks if not stack.placed]
    if not placed or not others:
        return stacks
    series = {stack.uid for stack in placed}
    for stack in others:
        if stack.uid in series:
            raise InputError(
                f"{stack.first.path}: no ImagePositionPatient, unlike its series; export it again"
            )
    count = sum(len(stack.slices) for stack in others)
    logger.warning("left out %d images without a position", count)
    return placed


def _without_scouts(stacks: list[Stack]) -> list[Stack]:
    """Leave out localizers if there is any other stack."""

    def is_scout(stack: Stack) -> bool:
        if "LOCALIZER" in stack.first.text("ImageType").upper():
            return True
        beside = [other for other in stacks if other.uid == stack.uid]
        largest = max(len(other.slices) for other in beside)
        turned = all(_differ(other, stack) for other in beside if len(other.slices) == largest)
        return turned and len(stack.slices) <= min(_SCOUT_IMAGES, largest // _SCOUT_RATIO)

    kept = [stack for stack in stacks if not is_scout(stack)]
    if not kept or len(kept) == len(stacks):
        return stacks
    left_out = sum(len(stack.slices) for stack in stacks) - sum(len(s.slices) for s in kept)
    logger.warning("left out %d localizer images", left_out)
    return kept


def _differ(first: Stack, second: Stack) -> bool:
    turned = np.abs(first.slices[0].orientation - second.slices[0].orientation).max()
    return bool(turned > _SAME_ORIENTATION)


def _named(stacks: list[Stack]) -> dict[str, Stack]:
    """Name each stack by its series' UID, with a number if a series has several."""
    uids = [stack.uid for stack in stacks]
    named: dict[str, Any] = {}
    for stack in stacks:
        number = sum(name.split("#")[0] == stack.uid for name in named) + 1
        named[stack.uid if uids.count(stack.uid) == 1 else f"{stack.uid}#{number}"] = stack
    return named
