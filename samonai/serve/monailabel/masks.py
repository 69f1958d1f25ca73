"""Masks from clicks, boxes and scribbles in voxel indices, on the grid of the image.

One decode for each slice that has prompts; a mask may then be carried to the slices beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import mask_box
from samonai.domains.capabilities import capabilities
from samonai.domains.label_map import coordinates
from samonai.domains.medical.intensity import plane
from samonai.domains.medical.volume import Volume, format_shape
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import prompt_values
from samonai.serve.annotation import checked_box, checked_clicks
from samonai.workflows.session import Session

FOREGROUND, BACKGROUND = "foreground_scribbles", "background_scribbles"
"""Segments that 3D Slicer's module paints scribbles into."""

Mask = npt.NDArray[np.uint8]
Masks = dict[int, npt.NDArray[np.bool_]]
Box = tuple[int, int, int, int, int, int]

_MOST_POINTS = 2000
_CLICKS_OF_SCRIBBLE = 6


def prompted_mask(
    session: Session, source: Volume, params: Mapping[str, Any], reach: int = 0
) -> Mask:
    """Segment one object from clicks and a box.

    Args:
        session: Decodes.
        source: The image.
        params: "foreground" and "background", lists of [i, j, k]; "roi", a pair of numbers per
            axis.
        reach: Slices on each side of a clicked one that its mask is carried to. With a box, the
            box says how far the object goes.

    Returns:
        uint8 (I, J, K), 1 inside the object.

    Raises:
        InputError: There is neither a click on the object nor a box, or one lies outside the image.
    """
    inside = points_of(params.get("foreground"), "foreground", source.shape)
    outside = points_of(params.get("background"), "background", source.shape)
    box = box_of(params.get("roi"), source.shape)
    if not inside and not outside and box is None:
        raise InputError("there is neither a point nor a box; place one on the object")
    axis = _axis(session)
    clicks = _clicks_by_slice(source, axis, inside, outside)
    if box is None:
        clicks = {n: rows for n, rows in clicks.items() if any(sign for *_, sign in rows)}
        masks = {n: _decoded(session, source, n, rows, None) for n, rows in clicks.items()}
        return _volume(session, source, {**masks, **carried(session, source, masks, reach)})
    boxed = session.predict(source, prompt_values([[*box[::2], *box[1::2]]])).label
    result = (np.asarray(boxed) > 0).astype(np.uint8)
    on_slices = _box_on_slices(source, axis, box)
    clicks = {n: rows for n, rows in clicks.items() if n in on_slices or any(r[2] for r in rows)}
    masks = {n: _decoded(session, source, n, rows, on_slices.get(n)) for n, rows in clicks.items()}
    return _with_slices(result, _volume(session, source, masks), axis, masks)


def scribbled_mask(
    session: Session,
    source: Volume,
    label: npt.NDArray[np.integer],
    values: Mapping[str, int],
    params: Mapping[str, Any],
    reach: int = 0,
) -> Mask:
    """Correct one segment by scribbles.

    Slices without scribbles keep the segment as it is. Painted voxels are inside the result, or
    outside it, whatever the model says of them.

    Args:
        session: Decodes.
        source: The image.
        label: integer (I, J, K), the client's segments and scribbles.
        values: Label value by name of segment.
        params: "selected_label_name", the segment; "roi", where it may change.
        reach: As in `prompted_mask`; slices that have the segment already stay as they are.

    Raises:
        InputError: There are no scribbles.
    """
    inside = _segment(label, values, FOREGROUND)
    outside = _segment(label, values, BACKGROUND)
    before = _segment(label, values, str(params.get("selected_label_name")))
    if not inside.any() and not outside.any():
        raise InputError("there are no scribbles; paint some on the object or beside it")
    axis = _axis(session)
    masks: Masks = {}
    for index in range(source.shape[axis]):
        on, off, old = (_shown(part, source, axis, index) for part in (inside, outside, before))
        if not (on.any() or (off.any() and old.any())):
            continue
        box = mask_box(on | old) if old.any() else None
        rows = [(x, y, 1) for x, y in _spread(on)] + [(x, y, 0) for x, y in _spread(off)]
        masks[index] = (_decoded(session, source, index, rows, box) | on) & ~off
    beside = {
        index: mask
        for index, mask in carried(session, source, masks, reach).items()
        if not _shown(before, source, axis, index).any()
    }
    changed = {**masks, **beside}
    result = _with_slices(before.astype(np.uint8), _volume(session, source, changed), axis, changed)
    box3 = box_of(params.get("roi"), source.shape)
    if box3 is not None:
        may_change = np.zeros(source.shape, bool)
        may_change[tuple(slice(*box3[n : n + 2]) for n in (0, 2, 4))] = True
        result = np.where(may_change, result, before).astype(np.uint8)
    return result


def carried(session: Session, source: Volume, masks: Masks, reach: int) -> Masks:
    """Carry masks to the slices beside theirs; the nearest one decides.

    Returns:
        By slice, without those that have a mask already.
    """
    found: Masks = {}
    nearest: dict[int, int] = {}
    for index, mask in sorted(masks.items()) if reach else ():
        box = mask_box(mask)
        if box is None:
            continue
        prompts = FramePrompts(np.array([box], np.float32), np.ones(1, np.int64))
        for other, answer in session.carry(source, index, prompts, reach).items():
            distance = abs(other - index)
            if other not in masks and distance < nearest.get(other, distance + 1):
                found[other], nearest[other] = answer.mask, distance
    return found


def points_of(
    given: Any, name: str, shape: tuple[int, int, int]
) -> list[tuple[float, float, float]]:
    """Return points as voxel indices i, j, k.

    Args:
        given: From JSON; None: no points.
        name: What messages call them.
        shape: (I, J, K) of the image.

    Raises:
        InputError: A point has other than three numbers, or lies outside the image.
    """
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > _MOST_POINTS:
        raise InputError(f"{name}: expected a list of at most {_MOST_POINTS} points [i, j, k]")
    points = []
    for row in given:
        point = coordinates(row, 3)
        if point is None:
            raise InputError(f"{name}: expected [i, j, k] in voxel indices, got {str(row)[:60]}")
        numbers = point.tolist()
        if any(not -0.5 <= n < size - 0.5 for n, size in zip(numbers, shape, strict=True)):
            raise InputError(
                f"{name}: point {[round(n, 1) for n in numbers]} lies outside the image of "
                f"{format_shape(shape)} voxels"
            )
        points.append((numbers[0], numbers[1], numbers[2]))
    return points


def box_of(roi: Any, shape: tuple[int, int, int]) -> Box | None:
    """Return a box i0, i1, j0, j1, k0, k1, upper ends exclusive, clipped to the image.

    Args:
        roi: A pair of voxel indices per axis, both inside the box, in either order; None or an
            empty list: no box.
        shape: (I, J, K) of the image.

    Raises:
        InputError: There are no six numbers, or the box lies outside the image.
    """
    if roi is None or roi == []:
        return None
    given = coordinates(roi, 6)
    if given is None:
        raise InputError("roi: expected [i0, i1, j0, j1, k0, k1] in voxel indices")
    numbers, sides = given.tolist(), list[int]()
    for first, second, size in zip(numbers[::2], numbers[1::2], shape, strict=True):
        low, high = sorted((first, second))
        start, stop = max(round(low), 0), min(round(high) + 1, size)
        if start >= stop:
            raise InputError(f"roi: it lies outside the image of {format_shape(shape)} voxels")
        sides += [start, stop]
    i0, i1, j0, j1, k0, k1 = sides
    return i0, i1, j0, j1, k0, k1


def _axis(session: Session) -> int:
    planes = capabilities(session.domain).planes
    assert planes is not None  # else there are no routes
    return planes.axis


def _clicks_by_slice(
    source: Volume,
    axis: int,
    inside: Sequence[tuple[float, float, float]],
    outside: Sequence[tuple[float, float, float]],
) -> dict[int, list[tuple[float, float, int]]]:
    """Return clicks (x, y, sign) in frame space by slice; a pixel's centre is at 0.5."""
    x, y = (side for side in range(3) if side != axis)
    found: dict[int, list[tuple[float, float, int]]] = {}
    for points, sign in ((inside, 1), (outside, 0)):
        for point in points:
            index = int(np.floor(point[axis] + 0.5))
            left, top = source.part[x].start, source.part[y].start
            click = (point[x] + 0.5 - left, point[y] + 0.5 - top, sign)
            found.setdefault(index, []).append(click)
    return found


def _box_on_slices(source: Volume, axis: int, box: Box) -> dict[int, list[float]]:
    """Return a box xyxy in frame space for each slice that it reaches."""
    x, y = (side for side in range(3) if side != axis)
    left, top = source.part[x].start, source.part[y].start
    flat = [box[2 * x] - left, box[2 * y] - top, box[2 * x + 1] - left, box[2 * y + 1] - top]
    return {index: list(map(float, flat)) for index in range(box[2 * axis], box[2 * axis + 1])}


def _decoded(
    session: Session,
    source: Volume,
    index: int,
    clicks: Sequence[tuple[float, float, int]],
    box: Sequence[float] | None,
) -> npt.NDArray[np.bool_]:
    axis = _axis(session)
    width, height = (side.stop - side.start for n, side in enumerate(source.part) if n != axis)
    rows = checked_clicks([list(click) for click in clicks], (height, width))
    around = checked_box(None if box is None else list(box), (height, width))
    return session.refine(source, rows, frame=index, box=around).mask


def _volume(session: Session, source: Volume, masks: Masks) -> Mask:
    """Put masks of slices on the grid of the image."""
    labels = {index: mask.astype(np.uint8) for index, mask in masks.items()}
    return np.asarray(session.domain.merge(source, labels)).astype(np.uint8, copy=False)


def _with_slices(result: Mask, other: Mask, axis: int, slices: Mapping[int, Any]) -> Mask:
    """Return a mask with slices of another one."""
    chosen: list[Any] = [slice(None)] * 3
    chosen[axis] = sorted(slices)
    result = result.copy()
    result[tuple(chosen)] = other[tuple(chosen)]
    return result


def _segment(
    label: npt.NDArray[np.integer], values: Mapping[str, int], name: str
) -> npt.NDArray[np.bool_]:
    value = values.get(name)
    return np.zeros(label.shape, bool) if value is None else np.asarray(label == value)


def _shown(
    mask: npt.NDArray[np.bool_], source: Volume, axis: int, index: int
) -> npt.NDArray[np.bool_]:
    """Return a slice of a mask, as far as the frame shows it."""
    columns, rows = (side for n, side in enumerate(source.part) if n != axis)
    return np.asarray(plane(mask, axis, index)[rows, columns])


def _spread(mask: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return a few pixels of a mask (H, W), far from each other, as x and y of their centres."""
    pixels = np.argwhere(mask)
    if not len(pixels):
        return []
    chosen = [int(((pixels - pixels.mean(0)) ** 2).sum(1).argmin())]
    distance = ((pixels - pixels[chosen[0]]) ** 2).sum(1)
    while len(chosen) < _CLICKS_OF_SCRIBBLE and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((pixels - pixels[chosen[-1]]) ** 2).sum(1))
    return [(float(column) + 0.5, float(row) + 0.5) for row, column in pixels[chosen]]
