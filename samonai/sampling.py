"""Prompts sampled from labels: what a user would have drawn, with a user's errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.errors import InputError
from samonai.geometry import LOW_RES_STRIDE
from samonai.prompts import NO_POINT, Prompts

KINDS = ("box", "points", "box_and_points")

_MIN_BOX_SIDE = 4.0
"""Shortest side in model pixels that jitter may leave: one pixel of the low-res frame."""


@dataclass(frozen=True)
class PromptSampler:
    """Draws one prompt per object from its box and its low-res mask.

    Attributes:
        kinds: Probability of each of `KINDS`; they are normalised to sum to one.
        box_jitter: Each side of a box moves by up to this share of the box's width or height,
            drawn uniformly, inwards or outwards. 0 gives exact boxes.
        positive: Points inside the object, from 1 to this many.
        negative: Points outside, but in the box and its surroundings, from 0 to this many.

    Raises:
        InputError: A kind is not known, a probability or jitter is out of range.
    """

    kinds: Mapping[str, float] = field(default_factory=lambda: {"box": 1.0})
    box_jitter: float = 0.05
    positive: int = 3
    negative: int = 2

    def __post_init__(self) -> None:
        """Check the settings."""
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown:
            raise InputError(f"prompt kind {unknown[0]!r} is not known; use {', '.join(KINDS)}")
        if not self.kinds or min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise InputError(f"prompt probabilities must be positive, got {dict(self.kinds)}")
        if not 0 <= self.box_jitter < 0.5:
            raise InputError(f"box_jitter is a share from 0 to below 0.5, got {self.box_jitter}")
        if self.positive < 1 or self.negative < 0:
            raise InputError(
                f"points: at least 1 positive and 0 negative, got {self.positive}, {self.negative}"
            )

    def settings(self) -> dict[str, Any]:
        """Return the regime as JSON values, for checkpoints and reports."""
        return {
            "kinds": dict(self.kinds),
            "box_jitter": self.box_jitter,
            "positive": self.positive,
            "negative": self.negative,
        }

    def sample(
        self,
        boxes: npt.NDArray[np.float32],
        masks: npt.NDArray[np.bool_],
        limits: tuple[float, float],
        generator: np.random.Generator,
    ) -> Prompts:
        """Draw one prompt for each of N objects of one frame.

        Args:
            boxes: float32 (N, 4), xyxy in model space, exact.
            masks: bool (N, h, w), the objects in the low-res frame.
            limits: (width, height) of the frame in model space; boxes stay inside.
            generator: The only source of chance.

        Returns:
            N prompts on image 0.
        """
        names = list(self.kinds)
        weights = np.array([self.kinds[name] for name in names], float)
        kinds = generator.choice(len(names), size=len(boxes), p=weights / weights.sum())
        drawn = [names[kind] for kind in kinds]
        out_boxes = jitter_boxes(boxes, self.box_jitter, limits, generator)
        out_boxes[[kind == "points" for kind in drawn]] = np.nan
        index = torch.zeros(len(boxes), dtype=torch.int64)
        if all(kind == "box" for kind in drawn):
            return Prompts(index, boxes=torch.from_numpy(out_boxes))
        coords = np.zeros((len(boxes), self.positive + self.negative, 2), np.float32)
        labels = np.full(coords.shape[:2], NO_POINT, np.int64)
        for row, (kind, box, mask) in enumerate(zip(drawn, boxes, masks, strict=True)):
            if kind != "box":
                points, signs = self._points(box, mask, limits, generator)
                coords[row, : len(points)], labels[row, : len(points)] = points, signs
        return Prompts(
            index,
            boxes=torch.from_numpy(out_boxes),
            point_coords=torch.from_numpy(coords),
            point_labels=torch.from_numpy(labels),
        )

    def _points(
        self,
        box: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_],
        limits: tuple[float, float],
        generator: np.random.Generator,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draw points inside one object, and outside it near its box."""
        inside = np.argwhere(mask)
        near = np.zeros_like(mask)
        margin = 0.5 * max(box[2] - box[0], box[3] - box[1], _MIN_BOX_SIDE)
        x0, y0 = np.floor((box[:2] - margin).clip(0) / LOW_RES_STRIDE).astype(int)
        x1, y1 = np.ceil(np.minimum(box[2:] + margin, limits) / LOW_RES_STRIDE).astype(int)
        near[y0:y1, x0:x1] = True
        outside = np.argwhere(near & ~mask)
        points, signs = [], []
        wanted = (generator.integers(1, self.positive + 1), generator.integers(self.negative + 1))
        for pixels, count, sign in zip((inside, outside), wanted, (1, 0), strict=True):
            if len(pixels):
                rows = generator.choice(
                    len(pixels), size=min(int(count), len(pixels)), replace=False
                )
                points.append((pixels[rows][:, ::-1] + 0.5) * LOW_RES_STRIDE)
                signs.append(np.full(len(rows), sign, np.int64))
        return np.concatenate(points).astype(np.float32), np.concatenate(signs)


def jitter_boxes(
    boxes: npt.NDArray[np.float32],
    jitter: float,
    limits: tuple[float, float],
    generator: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Move every side of every box by up to `jitter` of the box's width or height.

    Args:
        boxes: float32 (N, 4), xyxy.
        jitter: Share of the side's length, drawn uniformly from [-jitter, jitter] per side.
        limits: (width, height) that boxes are clipped to.
        generator: The only source of chance.

    Returns:
        float32 (N, 4), a new array.
    """
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + generator.uniform(-jitter, jitter, boxes.shape) * sides
    upper = np.tile(np.asarray(limits, np.float32), 2)
    return np.clip(moved, 0, upper).astype(np.float32)
