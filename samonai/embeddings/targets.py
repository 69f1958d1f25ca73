"""Training targets of a labelled frame, stored so that an epoch opens no source file.

Component policy: per class value, pixels that touch by side or corner (8-connectivity, 2D, native
resolution) form one component; if a frame has instances, per instance instead of per class value,
so that touching objects stay separate. The objects among the components are chosen by one of
`COMPONENT_POLICIES`:

* "each": every component is an object of its own, with a prompt of its own;
* "largest": the largest component of every class or instance; the others are dropped;
* "whole": everything of a class or instance is one object, with one prompt around it all.

Objects of fewer than `min_area` pixels are dropped, and all dropped ones are counted: they get
no prompt, and a map of classes ignores their pixels, which are neither the class (too small to be
distinguished from noise) nor background. Invalid pixels have no label.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry

CONNECTIVITY = 8
DEFAULT_MIN_AREA = 10
COMPONENT_POLICIES = ("each", "largest", "whole")
MAX_COMPONENTS = 0x7FFE

_DROPPED = MAX_COMPONENTS + 1

_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class FrameTargets:
    """The objects of one labelled frame, at the resolution of the decoder's logits.

    Object k (k = 1..N) has row k - 1 in `classes`, `boxes` and `areas`, and at least one pixel in
    `components`.

    Attributes:
        image_size: (H, W) of the frame in pixels.
        components: uint16 (256, 256), object number, 0 is none; low-res frame.
        valid: bool (256, 256), False on padding and on invalid pixels; low-res frame.
        classes: int32 (N,), the label value of each object.
        boxes: float32 (N, 4), xyxy edges in model space, upper ends exclusive.
        areas: int32 (N,), pixels in frame space.
        dropped: Components that the policy or `min_area` dropped.
        ignored: bool (256, 256), True on pixels of dropped components; low-res frame.
        instances: int64 (N,), the source's number of each object; None if a frame has none,
            and for targets that were read from a store.
    """

    image_size: tuple[int, int]
    components: npt.NDArray[np.uint16]
    valid: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int32]
    dropped: int
    ignored: npt.NDArray[np.bool_]
    instances: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.classes)

    def mask(self, number: int) -> npt.NDArray[np.bool_]:
        """Return object `number` (1..N) as bool (256, 256), low-res frame."""
        return self.components == number

    def class_map(self) -> npt.NDArray[np.int32]:
        """Return int32 (256, 256): label values, 0 is background, -1 ignored; low-res frame.

        Padding, invalid pixels and the pixels of dropped components are ignored.
        """
        values = np.concatenate([np.zeros(1, np.int32), self.classes])[self.components]
        return np.where(self.valid & ~self.ignored, values, np.int32(-1))


@dataclass(frozen=True)
class _Component:
    """One component in frame space: class, box (c0, r0, c1, r1), pixels, centroid (x, y).

    `group` is the class, or the number of the instance that it is a part of.
    """

    value: int
    group: int
    box: tuple[int, int, int, int]
    area: int
    centroid: tuple[float, float]


class ObjectMap(NamedTuple):
    """The objects of one frame at its own resolution.

    Attributes:
        numbers: int32 (H, W), object number from 1, 0 is none; frame space.
        classes: int64 (N,), the label value of each object.
        instances: int64 (N,), the source's number of each; None where the frame has none.
    """

    numbers: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]
    instances: npt.NDArray[np.int64] | None


def object_map(
    frame: Frame, min_area: int = DEFAULT_MIN_AREA, components: str = "each"
) -> ObjectMap:
    """Number the objects of a labelled frame as `build_targets` does, at native resolution."""
    numbers, found, _ = _frame_objects(frame, min_area, components)
    classes = np.array([component.value for component in found], np.int64)
    groups = np.array([component.group for component in found], np.int64)
    numbers[numbers == _DROPPED] = 0
    return ObjectMap(numbers, classes, None if frame.instances is None else groups)


def build_targets(
    frame: Frame,
    min_area: int = DEFAULT_MIN_AREA,
    components: str = "each",
    *,
    long_side: int = 1024,
) -> FrameTargets:
    """Find the objects of a labelled frame and map them to the low-res frame.

    Args:
        frame: A frame with a label.
        min_area: Objects of fewer pixels (frame space) are dropped.
        components: One of `COMPONENT_POLICIES`.
        long_side: Side of the model image in pixels.

    Raises:
        InputError: The label has another size than the image, a negative value, or too many
            components; `min_area` is below 1, or the policy is unknown.
        ValueError: The frame has no label.
    """
    geometry = FrameGeometry(frame.size, long_side)
    numbers, found, dropped = _frame_objects(frame, min_area, components)
    if len(found) > MAX_COMPONENTS:
        raise InputError(
            f"frame {frame.location.index} of {frame.location.source_id} has {len(found)} "
            f"objects, at most {MAX_COMPONENTS} can be kept; raise min_area ({min_area})"
        )
    low_res = geometry.label_to_low_res(numbers).astype(np.uint16)
    ignored = low_res == _DROPPED
    low_res[ignored] = 0
    valid = geometry.valid_low_res()
    if frame.valid is not None:
        valid &= geometry.label_to_low_res(frame.valid.astype(np.uint8)).astype(bool)
    _restore_vanished(low_res, valid, found, geometry)
    ignored &= low_res == 0
    boxes = np.array([component.box for component in found], np.float32).reshape(-1, 4)
    return FrameTargets(
        image_size=frame.size,
        components=low_res,
        valid=valid,
        classes=np.array([component.value for component in found], np.int32),
        boxes=geometry.boxes_to_model(boxes),
        areas=np.array([component.area for component in found], np.int32),
        dropped=dropped,
        ignored=ignored,
        instances=None
        if frame.instances is None
        else np.array([component.group for component in found], np.int64),
    )


def _valid_label(frame: Frame) -> npt.NDArray[np.integer]:
    where = f"frame {frame.location.index} of {frame.location.source_id}"
    if frame.label is None:
        raise ValueError(f"{where} has no label")
    if frame.label.shape != frame.size:
        raise InputError(f"{where}: image {frame.size} and label {frame.label.shape} differ")
    if frame.label.size and frame.label.min() < 0:
        raise InputError(f"{where}: label value {frame.label.min()}, expected 0 or above")
    return frame.label if frame.valid is None else np.where(frame.valid, frame.label, 0)


def check_components(policy: str) -> None:
    """Refuse an unknown policy.

    Raises:
        InputError: The policy is not one of `COMPONENT_POLICIES`.
    """
    if policy not in COMPONENT_POLICIES:
        raise InputError(
            f"components {policy!r} is not known; use one of {', '.join(COMPONENT_POLICIES)}"
        )


def _frame_objects(
    frame: Frame, min_area: int, components: str
) -> tuple[npt.NDArray[np.int32], list[_Component], int]:
    """Check a frame's label and the policy, and find the objects; see `_components`."""
    if min_area < 1:
        raise InputError(f"min_area is at least 1 pixel, got {min_area}")
    check_components(components)
    label = _valid_label(frame)
    groups = label if frame.instances is None else np.where(label > 0, frame.instances, 0)
    return _components(label, groups, min_area, components)


def _components(
    label: npt.NDArray[np.integer], groups: npt.NDArray[np.integer], min_area: int, policy: str
) -> tuple[npt.NDArray[np.int32], list[_Component], int]:
    """Return the map of components (in frame space), the list of the kept, and how many dropped.

    In the map a kept component has its number, and a dropped one `_DROPPED`.
    """
    numbers = np.zeros(label.shape, np.int32)
    found: list[_Component] = []
    dropped = 0
    foreground = groups > 0
    values = np.unique(groups[foreground])
    dense = np.zeros(label.shape, np.int32)
    dense[foreground] = np.searchsorted(values, groups[foreground]) + 1
    for rank, window in enumerate(ndimage.find_objects(dense), start=1):
        parts, count = (dense[window] == rank).astype(np.int32), 1
        if policy != "whole":
            parts, count = ndimage.label(parts, _NEIGHBOURS)
        areas = np.bincount(parts.ravel(), minlength=count + 1)
        only = int(areas[1:].argmax()) + 1 if policy == "largest" else None
        for part, part_window in enumerate(ndimage.find_objects(parts), start=1):
            if areas[part] < min_area or only not in (None, part):
                dropped += 1
                numbers[window][parts == part] = _DROPPED
                continue
            rows, columns = (
                slice(outer.start + inner.start, outer.start + inner.stop)
                for outer, inner in zip(window, part_window, strict=True)
            )
            inside = parts[part_window] == part
            r, c = np.nonzero(inside)
            found.append(
                _Component(
                    value=int(label[rows, columns][inside][0]),
                    group=int(values[rank - 1]),
                    box=(columns.start, rows.start, columns.stop, rows.stop),
                    area=int(areas[part]),
                    centroid=(columns.start + c.mean() + 0.5, rows.start + r.mean() + 0.5),
                )
            )
            numbers[rows, columns][inside] = len(found)
    return numbers, found, dropped


def _restore_vanished(
    components: npt.NDArray[np.uint16],
    valid: npt.NDArray[np.bool_],
    found: list[_Component],
    geometry: FrameGeometry,
) -> None:
    """Give each component without a low-res pixel the one nearest to its centroid, in place.

    The only pixel of another component is not taken. The pixel becomes valid, since
    the component's own pixels are.
    """
    counts = np.bincount(components.ravel(), minlength=len(found) + 1)
    vanished = np.flatnonzero(counts[1:] == 0) + 1
    if not len(vanished):
        return
    stride = geometry.long_side / geometry.low_res_side
    inside = geometry.valid_low_res()
    rows, columns = np.indices(components.shape) + 0.5
    for number in vanished:
        x, y = geometry.points_to_model(found[number - 1].centroid) / stride
        free = inside & ((components == 0) | (counts[components] > 1))
        if not free.any():
            raise InputError(
                f"a frame of {geometry.original_size} is too thin, or has more objects than the "
                f"low-res frame has pixels; crop it, or raise min_area"
            )
        distance = np.where(free, (columns - x) ** 2 + (rows - y) ** 2, np.inf)
        row, column = np.unravel_index(np.argmin(distance), distance.shape)
        counts[components[row, column]] -= 1
        components[row, column] = number
        valid[row, column] = True
        counts[number] = 1
