"""Grid of a series: even slice spacing checked, or interpolated with missing slices masked."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.slices import Slice
from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.volume import Affine

logger = logging.getLogger(__name__)

_SAME_POSITION_MM = 1e-3
_SPACING_TOLERANCE = 0.01  # of the spacing, as highdicom
_LEAN_TOLERANCE = 1e-3  # of the distance along the normal
_WHOLE_STEP_TOLERANCE = 0.1  # of a step, when gaps are counted in slices
# Between slices further apart than this many steps no slice is interpolated.
_WIDEST_BRIDGED = 1.8
_LISTED = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Source of one slice of the grid.

    Attributes:
        lower: Index of the sorted slice at or below it.
        upper: Index of the one at or above it; `lower` where it lies on a slice.
        weight: Share of `upper`, 0 to 1.
        valid: Whether it has values; False if no slice lies near enough.
    """

    lower: int
    upper: int
    weight: float
    valid: bool = True


@dataclass(frozen=True)
class Grid:
    """The grid of a series.

    Attributes:
        affine: float64 (4, 4), index (column, row, slice) to mm in RAS+; sheared if the slices
            lean.
        planes: One per slice of the grid.
    """

    affine: Affine
    planes: list[Plane]


def series_grid(
    slices: Sequence[Slice], where: str, allow_gaps: bool = False, logged: str = "series"
) -> Grid:
    """Return the grid of sorted slices without duplicates.

    Args:
        slices: One per position, sorted along the normal.
        where: Name of the series in messages.
        allow_gaps: Fill missing slices as invalid and interpolate uneven ones, instead of
            refusing both.
        logged: Name of the series in the log, without folder names.

    Raises:
        InputError: Slices are missing or unevenly spaced without `allow_gaps`,
            more than half are missing, or one is shifted sideways.
    """
    first = slices[0]
    if len(slices) == 1:
        return Grid(_affine(first, _slice_step(first), np.zeros(3)), [Plane(0, 0, 0.0)])
    places = np.array([each.distance for each in slices])
    lean = _lean(slices, places, where, logged)
    gaps = np.diff(places)
    step = float(places[-1] - places[0]) / len(gaps)
    if np.abs(gaps - step).max() <= _SPACING_TOLERANCE * step:
        planes = [Plane(n, n, 0.0) for n in range(len(slices))]
        return Grid(_affine(first, step, lean), planes)
    step, whole = _uneven_step(gaps)
    if not allow_gaps:
        _refuse_uneven(places, step, whole, where)
    planes = _planes(places, step)
    absent = sum(not plane.valid for plane in planes)
    made = sum(plane.valid and plane.weight > 0 for plane in planes)
    if absent > len(planes) / 2:
        raise InputError(f"{where}: {absent} of {len(planes)} slices missing, more than are there")
    logger.warning(
        "%s: gaps allowed: %d of %d slices are missing and masked, %d interpolated at %.4g mm",
        *(logged, absent, len(planes), made, step),
    )
    return Grid(_affine(first, step, lean), planes)


def _affine(first: Slice, step: float, lean: Floats) -> Affine:
    affine = hd.spatial.create_affine_matrix_from_attributes(
        image_position=first.position.tolist(),
        image_orientation=first.orientation.tolist(),
        pixel_spacing=first.spacing,
        spacing_between_slices=step,
        index_convention=("R", "D"),
    )
    lps = np.array(affine, np.float64)
    lps[:3, 2] += lean * step
    return LPS_TO_RAS @ lps


def _lean(slices: Sequence[Slice], places: Floats, where: str, logged: str) -> Floats:
    """Return the sideways shift (3,) per mm along the normal; usually zero."""
    first = slices[0]
    positions = np.stack([each.position for each in slices])
    depth = float(places[-1] - places[0])
    along = (positions[-1] - positions[0]) / depth
    straight = positions[0] + (places - places[0])[:, None] * along
    tolerance = max(_SPACING_TOLERANCE * depth / (len(slices) - 1), 2 * _SAME_POSITION_MM)
    if np.abs(positions - straight).max() > tolerance:
        raise InputError(f"{where}: slices are shifted sideways; expected one straight stack")
    sideways = along - first.normal
    tangent = float(np.linalg.norm(sideways))
    if tangent * depth <= max(_LEAN_TOLERANCE * depth, 2 * _SAME_POSITION_MM):
        return np.zeros(3)
    logger.warning(
        "%s: the slices lean by %.1f degrees (tilted gantry); read slice by slice, with the shear "
        "in the affine",
        *(logged, math.degrees(math.atan(tangent))),
    )
    return np.asarray(sideways, np.float64)


def _uneven_step(gaps: Floats) -> tuple[float, bool]:
    """Return the step of the grid, and whether all gaps are whole numbers of it."""
    step = float(gaps.min())
    counts = np.rint(gaps / step)
    if np.abs(gaps / step - counts).max() <= _WHOLE_STEP_TOLERANCE and counts.max() > 1:
        return float(gaps.sum() / counts.sum()), True
    return float(np.median(gaps)), False


def _planes(places: Floats, step: float) -> list[Plane]:
    """Return for each slice of an even grid the slices it lies between."""
    count = round(float(places[-1] - places[0]) / step) + 1
    planes = []
    for wanted in places[0] + step * np.arange(count):
        lower = int(np.clip(np.searchsorted(places, wanted, "right") - 1, 0, len(places) - 1))
        upper = min(lower + 1, len(places) - 1)
        near = min((lower, upper), key=lambda n: abs(places[n] - wanted))
        off = abs(float(places[near]) - float(wanted))
        gap = float(places[upper] - places[lower])
        if off <= _WHOLE_STEP_TOLERANCE * step or not gap:
            planes.append(Plane(near, near, 0.0))
        elif gap <= _WIDEST_BRIDGED * step:
            planes.append(Plane(lower, upper, (float(wanted) - float(places[lower])) / gap))
        else:
            planes.append(Plane(near, near, 0.0, valid=off <= step / 2))
    return planes


def _refuse_uneven(places: Floats, step: float, whole: bool, where: str) -> None:
    """Refuse missing slices or varying spacing."""
    gaps = np.diff(places)
    if whole:
        missing = [
            place + step * number
            for place, gap in zip(places, gaps, strict=False)
            for number in range(1, round(float(gap / step)))
        ]
        named = ", ".join(f"{place:.2f}" for place in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise InputError(
            f"{where}: {len(missing)} of {len(places) + len(missing)} slices missing, at "
            f"{named}{more} mm along the slice normal; export the whole series, or mask them: "
            "--allow-gaps"
        )
    raise InputError(
        f"{where}: uneven slice spacing, {gaps.min():.3g} to {gaps.max():.3g} mm; resample the "
        "series onto an even grid, or have it done: --allow-gaps"
    )


def _slice_step(only: Slice) -> float:
    """Return the thickness that a single slice claims, 1 mm when it claims none."""
    return stated_thickness(only) or 1.0


def stated_thickness(only: Slice) -> float | None:
    """Return the thickness in mm that a slice or frame claims; None when it claims none."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            value = abs(float(only.fact(keyword) or "nan"))
        except ValueError:
            continue
        if math.isfinite(value) and value > 0:
            return value
    return None
