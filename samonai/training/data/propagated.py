"""Carried prompts for training: an object's box and mask on a neighbouring frame as its prompt.

A decoder trained only on boxes around the object itself fills any box it is given, so that under
propagation a box grows or shrinks without limit. A decoder trained with the box and the mask of a
neighbouring frame, and the target of this frame, follows the structure; where the structure has
ended, its target is empty.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.geometry import FrameGeometry
from samonai.embeddings.target_store import SourceTargets
from samonai.embeddings.targets import FrameTargets
from samonai.prompts.coarse_masks import coarse_logits
from samonai.prompts.sampling import PromptSampler, jitter_boxes
from samonai.prompts.types import Prompts
from samonai.settings.choices import SEMANTIC

REACH = 3
"""Largest distance in frames that prompts are carried over. One would do if masks were right, but
a carried mask lags behind the structure, and past its end it is still large."""

_NOISE = 0.1  # of the masks: a decoder's are more accurate than hurried annotations
_BOX_ALONE, _MASK_ALONE = 0.25, 0.25  # the others have both


def frames_beside(carried: float, heads: str) -> int:
    """Return up to which distance from objects empty frames are needed.

    Args:
        carried: Share of the frames with carried prompts.
        heads: One of `HEADS`.
    """
    return REACH if carried and heads != SEMANTIC else 0


class CarriedObjects(NamedTuple):
    """M objects of a neighbouring frame, and their masks on this one.

    Attributes:
        boxes: float32 (M, 4), xyxy in model space, on the neighbour.
        before: bool (M, 256, 256), the masks there; low-res frame.
        masks: bool (M, 256, 256), the masks here: all parts of the same class that touch it; empty
            where it has ended.
        classes: int32 (M,), label values.
    """

    boxes: npt.NDArray[np.float32]
    before: npt.NDArray[np.bool_]
    masks: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int32]

    def only(self, rows: npt.NDArray[np.intp]) -> "CarriedObjects":
        """Return a selection of the objects."""
        return CarriedObjects(
            self.boxes[rows], self.before[rows], self.masks[rows], self.classes[rows]
        )


def carried_objects(here: FrameTargets, beside: FrameTargets) -> CarriedObjects:
    """Match a neighbouring frame's objects to those of this frame."""
    before = np.stack([beside.mask(number) for number in range(1, len(beside) + 1)])
    masks = np.zeros_like(before)
    for row, (mask, value) in enumerate(zip(before, beside.classes, strict=True)):
        for number in np.unique(here.components[mask]).tolist():
            if number and here.classes[number - 1] == value:
                masks[row] |= here.mask(number)
    return CarriedObjects(beside.boxes, before, masks, beside.classes)


def neighbours(targets: SourceTargets, index: int) -> list[int]:
    """Return the frames with objects within `REACH` of a frame, ascending, without itself."""
    near = range(index - REACH, index + REACH + 1)
    return [other for other in near if other != index and targets.has_objects(other)]


def carried_prompts(
    found: CarriedObjects,
    size: tuple[int, int],
    sampler: PromptSampler,
    generator: np.random.Generator,
) -> Prompts:
    """Prompt each object with its box on the neighbour, its mask there, or both.

    Args:
        found: M objects.
        size: (H, W) of the frame in pixels.
        sampler: Jitter of the boxes.
        generator: The only source of randomness.
    """
    height, width = FrameGeometry(size).input_size
    limits = (float(width), float(height))
    boxes = jitter_boxes(found.boxes, sampler.box_jitter, limits, generator)
    chance = generator.random(len(boxes))
    has_mask = chance >= _BOX_ALONE
    boxes[chance >= 1 - _MASK_ALONE] = np.nan
    logits = np.zeros((len(boxes), 1, *found.before.shape[1:]), np.float32)
    for row in np.flatnonzero(has_mask):
        logits[row, 0] = coarse_logits(found.before[row], _NOISE, generator)
    return Prompts(
        torch.zeros(len(boxes), dtype=torch.int64),
        boxes=torch.from_numpy(boxes),
        mask_inputs=torch.from_numpy(logits) if has_mask.any() else None,
        has_mask=torch.from_numpy(has_mask) if has_mask.any() else None,
    )
