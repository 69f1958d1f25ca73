"""Instance masks of one frame, with class and score, and non-maximum suppression."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from samonai.core.frame import mask_box
from samonai.core.geometry import LOW_RES_STRIDE, FrameGeometry
from samonai.prompts.frame_prompts import UNKNOWN_ID, FramePrompts

_SURE = 4.0
"""Logit inside a mask without logits; outside it is the negative of it."""


@dataclass(frozen=True)
class Instance:
    """One object on one frame.

    Attributes:
        mask: bool (h, w), the object within its box; frame space.
        box: (x0, y0, x1, y1), tight around the mask, upper ends exclusive; frame space, pixels.
        value: Label value of its class; 0 if unknown.
        score: 0..1, the ranking of instances: `iou` times `probability`.
        iou: The decoder's own estimate of the mask's IoU.
        probability: Mean probability of the class over the mask; 1 if the class is unknown.
        low_res: float16 (h, w), the mask's logits in the low-res frame of a
            model whose long side is 4 times theirs; None if it was not decoded.
    """

    mask: npt.NDArray[np.bool_] = field(repr=False)
    box: tuple[int, int, int, int]
    value: int
    score: float
    iou: float
    probability: float
    low_res: torch.Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return int(self.mask.sum())

    def called(self, value: int, probability: float) -> "Instance":
        """Return it with a class and its probability."""
        score = self.iou * probability
        return replace(self, value=value, probability=probability, score=score)

    def on_frame(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return the mask as bool (H, W) on a frame of that size."""
        out = np.zeros(size, bool)
        x0, y0, x1, y1 = self.box
        out[y0:y1, x0:x1] = self.mask
        return out

    def scores(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Return its logits as float32 (H, W) on a frame of that size."""
        if self.low_res is None:
            return np.where(self.on_frame(size), _SURE, -_SURE).astype(np.float32)
        geometry = FrameGeometry(size, LOW_RES_STRIDE * max(self.low_res.shape))
        return geometry.logits_to_frame(self.low_res[None, None].float())[0, 0].numpy()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values.

        The mask is a COCO run-length encoding of its box: `counts` of alternating zeros and ones,
        column by column, and `size` (h, w).
        """
        flat = self.mask.T.ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
        return {
            "box": list(self.box),
            "class": self.value,
            "score": self.score,
            "iou": self.iou,
            "probability": self.probability,
            "area": self.area,
            "mask": {
                "size": list(self.mask.shape),
                "counts": np.diff(edges, prepend=0).tolist(),
            },
        }


def asked_of(instances: Sequence[Instance]) -> tuple[FramePrompts, npt.NDArray[np.float32]]:
    """Return prompts that represent the instances, and their confidences, for a merger."""
    boxes = np.array([one.box for one in instances], np.float32)
    values = np.array([one.value for one in instances], np.int64)
    ids = np.full(len(instances), UNKNOWN_ID, np.int64)
    return FramePrompts(boxes, values, ids), np.array([one.score for one in instances], np.float32)


def make_instance(
    mask: npt.NDArray[np.bool_],
    value: int = 0,
    iou: float = 1.0,
    probability: float = 1.0,
    low_res: torch.Tensor | None = None,
) -> Instance | None:
    """Return the instance of a mask (H, W) in frame space; None if it is empty."""
    box = mask_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    iou = min(max(iou, 0.0), 1.0)
    crop = mask[y0:y1, x0:x1].copy()
    return Instance(crop, box, value, iou * probability, iou, probability, low_res)


def as_instances(numbers: npt.NDArray[np.integer], min_area: int) -> list[Instance]:
    """Return the objects of a map (H, W) of numbers from 1 that have so many pixels or more."""
    found = []
    for number, window in enumerate(ndimage.find_objects(numbers), 1):
        if window is None:
            continue
        crop = numbers[window] == number
        if np.count_nonzero(crop) >= min_area:
            rows, columns = window
            box = columns.start, rows.start, columns.stop, rows.stop
            found.append(Instance(crop, box, 0, 1.0, 1.0, 1.0))
    return found


def intersection(first: Instance, second: Instance) -> int:
    """Return the number of pixels that two instances of a frame have in common."""
    x0, y0 = (max(first.box[n], second.box[n]) for n in (0, 1))
    x1, y1 = (min(first.box[n], second.box[n]) for n in (2, 3))
    if x0 >= x1 or y0 >= y1:
        return 0
    parts = [
        one.mask[y0 - one.box[1] : y1 - one.box[1], x0 - one.box[0] : x1 - one.box[0]]
        for one in (first, second)
    ]
    return int(np.logical_and(*parts).sum())


def suppress(
    instances: Iterable[Instance],
    iou: float = 0.5,
    inside: float = 1.0,
    across_classes: bool = True,
) -> list[Instance]:
    """Non-maximum suppression on masks: drop those that overlap a better instance.

    Args:
        instances: Instances of one frame.
        iou: Instances with a larger intersection over union are the same object.
        inside: So are instances that share more than this of the smaller one's area, which finds a
            part within a whole. 1 keeps parts.
        across_classes: Whether instances of different classes suppress each other.

    Returns:
        The remaining instances, best first; of equal ones the larger, then the first.
    """
    left: list[Instance] = []
    for one in sorted(instances, key=lambda found: (-found.score, -found.area)):
        rivals = (other for other in left if across_classes or other.value == one.value)
        if not any(_same(one, other, iou, inside) for other in rivals):
            left.append(one)
    return left


def paint(
    instances: Sequence[Instance], size: tuple[int, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Paint instances on a frame, the best on top.

    Args:
        instances: Instances of one frame.
        size: (H, W) of the frame.

    Returns:
        int32 (H, W) numbers, 1 for the first instance given, 0 is none; and int32 (H, W) label
        values.
    """
    numbers, values = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for number in sorted(range(len(instances)), key=lambda n: instances[n].score):
        one = instances[number]
        x0, y0, x1, y1 = one.box
        numbers[y0:y1, x0:x1][one.mask] = number + 1
        values[y0:y1, x0:x1][one.mask] = one.value
    return numbers, values


def _same(one: Instance, other: Instance, iou: float, inside: float) -> bool:
    common = intersection(one, other)
    if not common:
        return False
    areas = one.area, other.area
    return common / (sum(areas) - common) > iou or common / min(areas) > inside
