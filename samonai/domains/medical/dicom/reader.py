"""DICOM reader: one series to a volume, or a one-line error."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.memory import check_memory
from samonai.domains.medical.dicom.concatenation import check_concatenation, concatenation
from samonai.domains.medical.dicom.headers import Header, find_headers, quiet
from samonai.domains.medical.dicom.pet import suv_factor
from samonai.domains.medical.dicom.pixels import Values, check_pixels, decode, slice_values
from samonai.domains.medical.dicom.slice_grid import Grid, Plane, series_grid, stated_thickness
from samonai.domains.medical.dicom.slices import Slice, groups_by_position, sort_slices
from samonai.domains.medical.dicom.stacks import Stack, check_positions, choose_stack
from samonai.domains.medical.volume import (
    FormatFacts,
    RawVolume,
    ReadOptions,
    SourceSlice,
    check_affine,
)

logger = logging.getLogger(__name__)

_BYTES_PER_VOXEL = 5  # a float32 and whether it is valid
_KEPT_SLICES = 2  # interpolation uses the slice below and the one above
# Modalities whose pictures often show the patient's name; others must state it in the header.
_NAMED_PICTURES = frozenset({"US", "XA", "ES", "OT", "SC", "XC"})

Floats = npt.NDArray[np.float32]


def read_dicom(path: Path, options: ReadOptions | None = None) -> RawVolume:
    """Read a DICOM series.

    Args:
        path: A folder, searched through all its levels, or one file.
        options: Series, volume, and treatment of gaps and PET; `series` may be a name from
            a message's list (`UID#2`) if one series holds several volumes.

    Returns:
        float32 voxels (columns, rows, slices), slices sorted along their normal.

    Raises:
        InputError: The choice of a stack is ambiguous, or it is incomplete, uneven or damaged.
    """
    with quiet():
        return _read(path, options or ReadOptions())


def _read(path: Path, options: ReadOptions) -> RawVolume:
    headers = find_headers(path)
    stack = choose_stack(headers, options, path)
    where = f"{path}: series {stack.uid}"
    check_concatenation(headers, concatenation(stack.first), where)
    # Logs are kept, and a folder may be named after the patient.
    logged = f"series {stack.uid}"
    for header in stack.headers():
        check_pixels(header)
    check_positions(stack)
    _warn_of_pictures(stack, logged)
    decoded = _Decoded()
    slices = _without_duplicates(stack, decoded, where)
    grid = series_grid(slices, where, options.allow_gaps, logged)
    check_affine(grid.affine, where)
    factor, unit = suv_factor(stack.headers(), options.suv, where, logged)
    array, valid = _assemble(slices, grid, decoded, factor)
    facts = FormatFacts(
        "dicom",
        modality=stack.first.text("Modality") or None,
        slices=_source_slices(slices, grid),
        unit=unit,
        planar=not stack.placed,
        uncalibrated=_uncalibrated(slices, stack),
        series_uid=stack.first.text("SeriesInstanceUID") or None,
    )
    if facts.uncalibrated:
        logger.warning("%s: no millimetres, no millilitres: %s", logged, facts.uncalibrated)
    return RawVolume(array, grid.affine, facts, valid)


def _uncalibrated(slices: list[Slice], stack: Stack) -> str:
    """Return why the grid's spacing is not in mm; empty if it is."""
    if len(slices) == 1 and stack.placed and stated_thickness(slices[0]) is None:
        return "nothing says how thick its only slice is"
    return slices[0].uncalibrated


def _source_slices(slices: list[Slice], grid: Grid) -> tuple[SourceSlice, ...]:
    """Return the source of each slice of the grid; empty if any has none."""
    if any(not plane.valid or plane.weight for plane in grid.planes):
        return ()
    found = [slices[plane.lower] for plane in grid.planes]
    return tuple(SourceSlice(each.header.path, each.frame) for each in found)


class _Decoded:
    """Decoded files, each decoded once while its slices are used one after the other."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stored: npt.NDArray[Any] | None = None
        self._values: OrderedDict[int, Values] = OrderedDict()

    def stored(self, each: Slice) -> npt.NDArray[Any]:
        if self._stored is None or self._path != each.header.path:
            self._stored = decode(each.header)
            self._path = each.header.path
        several = each.frame is not None and each.header.number("NumberOfFrames", 1) > 1
        return self._stored[each.frame] if several else self._stored

    def values(self, number: int, each: Slice) -> Values:
        """Return the physical values of a slice; the last ones are cached."""
        if number not in self._values:
            stored = self.stored(each)
            shape = each.header.number("Rows"), each.header.number("Columns")
            if stored.shape != shape:
                raise InputError(
                    f"{each.header.path}: pixel data cut short or damaged; copy it again"
                )
            self._values[number] = slice_values(stored, each)
            while len(self._values) > _KEPT_SLICES:
                self._values.popitem(last=False)
        return self._values[number]


def _warn_of_pictures(stack: Stack, logged: str) -> None:
    header = stack.first
    if not stack.placed:
        what = "pictures without a position in the patient"
        logger.warning("%s: %s; taken one by one, from the origin on", logged, what)
    burned = header.text("BurnedInAnnotation").upper()
    if burned == "YES" or (not burned and header.text("Modality") in _NAMED_PICTURES):
        logger.warning("%s: text may be burned into the pixels, a name even", logged)


def _without_duplicates(stack: Stack, decoded: _Decoded, where: str) -> list[Slice]:
    """Drop copies of a slice; refuse different slices at one position."""
    kept, dropped = [], 0
    for group in groups_by_position(stack.slices):
        kept.append(group[0])
        if len(group) == 1:
            continue
        first = decoded.stored(group[0])
        for other in group[1:]:
            rescaled = (other.slope, other.intercept) == (group[0].slope, group[0].intercept)
            if not rescaled or not np.array_equal(first, decoded.stored(other)):
                raise InputError(
                    f"{where}: {len(group)} different slices at {group[0].distance:.2f} mm along "
                    "the slice normal (several time points or echoes?); keep one volume per folder"
                )
            dropped += 1
    if dropped:
        logger.warning("series %s: dropped %d identical copies of slices", stack.uid, dropped)
    return sort_slices(kept)


def _assemble(
    slices: list[Slice], grid: Grid, decoded: _Decoded, factor: float
) -> tuple[Floats, npt.NDArray[np.bool_] | None]:
    header: Header = slices[0].header
    rows, columns = header.number("Rows"), header.number("Columns")
    # Slices first in memory, so that each is written contiguously; then viewed as (I, J, K).
    voxels = len(grid.planes) * rows * columns
    check_memory(voxels * _BYTES_PER_VOXEL, f"{header.path}: the series")
    array = np.empty((len(grid.planes), rows, columns), np.float32)
    valid = np.ones(array.shape, bool)
    for number, plane in enumerate(grid.planes):
        array[number], mask = _plane_values(slices, plane, decoded)
        if mask is not None:
            valid[number] = mask
    if factor != 1:
        array *= np.float32(factor)
    return array.transpose(2, 1, 0), None if valid.all() else valid.transpose(2, 1, 0)


def _plane_values(slices: list[Slice], plane: Plane, decoded: _Decoded) -> Values:
    """Return a grid slice's values, interpolated if it lies between two slices."""
    values, mask = decoded.values(plane.lower, slices[plane.lower])
    if not plane.valid:
        return values, np.zeros(values.shape, bool)
    if plane.upper == plane.lower:
        return values, mask
    above, mask_above = decoded.values(plane.upper, slices[plane.upper])
    weight = np.float32(plane.weight)
    masks = [each for each in (mask, mask_above) if each is not None]
    both = np.logical_and.reduce(masks) if masks else None
    return values * (1 - weight) + above * weight, both
