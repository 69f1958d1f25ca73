"""Objects drawn in other tools: boxes, outlines and clicks in mm, put on a volume's voxels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.class_naming import is_class_number
from samonai.domains.medical.prompts.boxes import VoxelBoxes
from samonai.domains.medical.prompts.points import VoxelPoints
from samonai.domains.medical.volume import Volume, format_shape
from samonai.prompts.values import PromptFile

Array = npt.NDArray[np.float64]

_ALIGNED = 0.05
"""Largest distance, in voxels, of a box's corners from an axis-parallel box."""

_ROUNDING = 1e-3
"""Distance in voxels that rounding in a file may move an edge."""

_LPS = np.array([-1.0, -1.0, 1.0])
_SIGNS = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], float)
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if np.sum(_SIGNS[a] != _SIGNS[b]) == 1]

SYSTEMS = ("LPS", "RAS")
"""Coordinate systems of positions in mm: DICOM's and ITK's, and NIfTI's."""


@dataclass(frozen=True)
class DrawnObject:
    """One object, in voxel indices.

    Attributes:
        name: Its class; None: not named.
        boxes: float64 (6,) each, i0 j0 k0 i1 j1 k1 with edges between voxels, upper ends exclusive.
        points: float64 (P, 3), clicks inside, whole numbers at voxels' centres.
        outside: float64 (P, 3), clicks outside.
        flat: Array axis across which an outline lies on one slice; None: not an outline.
    """

    name: str | None
    boxes: tuple[Array, ...] = ()
    points: Array = field(default_factory=lambda: np.zeros((0, 3)))
    outside: Array = field(default_factory=lambda: np.zeros((0, 3)))
    flat: int | None = None


def to_voxels(positions: Array, system: str, volume: Volume) -> Array:
    """Return positions in mm as voxel indices, whole numbers at voxels' centres.

    Args:
        positions: float64 (N, 3), x y z.
        system: Of `SYSTEMS`.
        volume: The volume.

    Raises:
        InputError: The volume's grid is not in mm.
    """
    if volume.facts.uncalibrated or volume.facts.planar:
        raise InputError(
            f"{volume.source_id}: positions in mm, but its grid has none "
            f"({volume.facts.unmeasurable}); give them in voxels"
        )
    ras = positions * _LPS if system == "LPS" else positions
    inverse = np.linalg.inv(volume.affine)
    voxels: Array = ras @ inverse[:3, :3].T + inverse[:3, 3]
    return voxels


def box_corners(centre: Array, axes: Array, size: Array) -> Array:
    """Return the corners of a box, float64 (8, 3).

    Args:
        centre: float64 (3,).
        axes: float64 (3, 3), the directions of its sides as columns.
        size: float64 (3,), the lengths of its sides.
    """
    corners: Array = centre + (_SIGNS * size / 2) @ axes.T
    return corners


def boxes_of_corners(corners: Array, volume: Volume, axis: int, where: str) -> tuple[Array, ...]:
    """Return a box in a volume, or its section with each slice where it is turned to the voxels.

    What lies beyond the volume is cut off.

    Args:
        corners: float64 (8, 3), voxel indices, in the order of `box_corners`.
        volume: The volume.
        axis: The array axis perpendicular to the slices.
        where: The object, for messages.

    Raises:
        InputError: The box is empty, or nothing of it lies in the volume.
    """
    edges = _snapped(corners + 0.5)
    low, high = edges.min(0), edges.max(0)
    shape = np.array(volume.shape, float)
    if (high - low <= 0).any() or (low >= shape).any() or (high <= 0).any():
        raise InputError(
            f"{where}: no part of the box lies in {volume.source_id} of "
            f"{format_shape(volume.shape)} voxels; was it drawn on another scan?"
        )
    away = np.minimum(np.abs(edges - low), np.abs(edges - high))
    if away.max() <= _ALIGNED:
        return (np.concatenate([np.clip(low, 0, shape), np.clip(high, 0, shape)]),)
    sections = []
    for index in range(max(int(low[axis]), 0), min(int(np.ceil(high[axis])), volume.shape[axis])):
        section = _section(edges, axis, index + 0.5)
        if section is None or not low[axis] < index + 0.5 < high[axis]:
            continue
        low2, high2 = np.clip(section.min(0), 0, shape), np.clip(section.max(0), 0, shape)
        low2[axis], high2[axis] = index, index + 1
        if (high2 > low2).all():
            sections.append(np.concatenate([low2, high2]))
    if not sections:
        raise InputError(f"{where}: the box reaches the centre of no slice; make it thicker")
    return tuple(sections)


def outline(name: str | None, points: Array, volume: Volume, axis: int, where: str) -> DrawnObject:
    """Return the object inside a closed outline, which lies on one slice.

    Args:
        name: Its class.
        points: float64 (N, 3), voxel indices.
        volume: The volume.
        axis: The array axis perpendicular to the slices.
        where: The object, for messages.

    Raises:
        InputError: The outline lies across several slices, beside the volume, or has no area.
    """
    slices = np.floor(points + 0.5)
    flat = [a for a in range(3) if np.ptp(slices[:, a]) == 0]
    if axis not in flat:
        first, last = slices[:, axis].min(), slices[:, axis].max()
        other = f"; it lies on one across axis {flat[0]}: --set axis={flat[0]}" if flat else ""
        raise InputError(
            f"{where}: an outline across slices {first:g} to {last:g} of {volume.source_id}, which "
            f"is cut across axis {axis}; draw it on one slice{other}"
        )
    shape = np.array(volume.shape, float)
    low, high = _snapped(points.min(0) + 0.5), _snapped(points.max(0) + 0.5)
    low[axis], high[axis] = slices[0, axis], slices[0, axis] + 1
    low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
    if (high <= low).any():
        raise InputError(
            f"{where}: no area in {volume.source_id} of {format_shape(volume.shape)} voxels; was "
            f"it drawn on another scan?"
        )
    return DrawnObject(name, (np.concatenate([low, high]),), flat=axis)


def as_clicks(
    objects: Sequence[DrawnObject],
    volume: Volume,
    axis: int,
    names: Mapping[int, str],
    path: PromptFile,
) -> VoxelPoints:
    """Return drawn objects as the boxes and clicks of a volume.

    Args:
        objects: The objects.
        volume: The volume.
        axis: The array axis perpendicular to the slices.
        names: Label value to name.
        path: The file, for messages.

    Raises:
        InputError: There are none, a class is unknown, or a click lies beside the volume.
    """
    if not objects:
        raise InputError(f"{path}: nothing that prompts an object in {volume.source_id}")
    values = [drawn_class(one.name, names, path) for one in objects]
    boxes = [(box, value) for one, value in zip(objects, values, strict=True) for box in one.boxes]
    classes = [value for _, value in boxes]
    points, labels, numbers, first = [], [], [], 0
    for one, value in zip(objects, values, strict=True):
        own = range(first, first + len(one.boxes))
        first += len(one.boxes)
        alone: int | None = None
        for inside, places in ((1, one.points), (0, one.outside)):
            for place in places:
                _check_inside(place, volume, path)
                index = int(np.floor(place[axis] + 0.5))
                number = next((n for n in own if _touches(boxes[n][0], axis, index)), alone)
                if number is None:
                    number = alone = len(classes)
                    classes.append(value)
                points.append(place)
                labels.append(inside)
                numbers.append(number)
    return VoxelPoints(
        np.array(points, float).reshape(-1, 3),
        np.array(labels, np.int64),
        np.array(numbers, np.int64),
        np.array(classes, np.int64),
        VoxelBoxes(
            np.array([box for box, _ in boxes], float).reshape(-1, 6),
            np.array([value for _, value in boxes], np.int64),
        ),
    )


def drawn_class(name: str | None, names: Mapping[int, str], path: PromptFile) -> int:
    """Return the label value of a drawn object's class.

    Raises:
        InputError: The class is unknown, or not named and there are several.
    """
    known = ", ".join(names.values())
    if name is None:
        if len(names) > 1:
            raise InputError(
                f"{path}: an object without a class, and there are several ({known}); name it "
                f"after its class in the tool"
            )
        return next(iter(names), 1)
    for value, other in names.items():
        if other == name:
            return value
    if is_class_number(name):
        return int(float(name))
    same = [value for value, other in names.items() if other.casefold() == name.casefold()]
    if len(same) != 1:
        raise InputError(
            f"{path}: class {name!r:.60} is not known; known are {known or 'none by name'}"
        )
    return same[0]


def _snapped(edges: Array) -> Array:
    """Return positions with those beside the edge of a voxel on it: files round what they hold."""
    nearest = np.rint(edges)
    return np.where(np.abs(edges - nearest) <= _ROUNDING, nearest, edges)


def _section(edges: Array, axis: int, level: float) -> Array | None:
    """Return where the edges of a box cross a plane, float64 (N, 3); None if they do not."""
    crossed = []
    for a, b in _EDGES:
        start, end = edges[a], edges[b]
        if (start[axis] - level) * (end[axis] - level) <= 0 and start[axis] != end[axis]:
            share = (level - start[axis]) / (end[axis] - start[axis])
            crossed.append(start + (end - start) * share)
    return np.array(crossed) if crossed else None


def _touches(box: Array, axis: int, index: int) -> bool:
    return bool(np.floor(box[axis]) <= index < np.ceil(box[axis + 3]))


def _check_inside(place: Array, volume: Volume, path: PromptFile) -> None:
    if (place < -0.5).any() or (place >= np.array(volume.shape) - 0.5).any():
        raise InputError(
            f"{path}: a point at voxel [{', '.join(f'{v:.1f}' for v in place)}] lies beside "
            f"{volume.source_id} of {format_shape(volume.shape)} voxels; was it drawn on another "
            f"scan?"
        )
