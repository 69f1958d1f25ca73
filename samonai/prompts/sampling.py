"""Prompt sampling from labels: simulated user prompts with a user's errors."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.geometry import LOW_RES_STRIDE
from samonai.core.settings import renamed_parameters, validate_fields
from samonai.prompts.coarse_masks import coarse_logits
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts
from samonai.settings.prompts import SamplerSettings

KINDS = ("box", "points", "box_and_points", "mask")

_MIN_BOX_SIDE = 4.0
"""Shortest side in model pixels that a box may get: one pixel of the low-res frame."""


@renamed_parameters(
    kinds="box_probability, points_probability, box_and_points_probability and mask_probability",
    shifted="shifted_probability",
    loose="loose_probability",
    positive="positive_points",
    negative="negative_points",
    with_mask="with_mask_probability",
    carried="carried_probability",
)
@dataclass(frozen=True)
class PromptSampler(SamplerSettings):
    """Sampler of one prompt per object from its box and its low-res mask.

    A box has one of three errors: jitter of each side (the usual one), a shift of the whole box,
    or looseness.

    The settings are those of `SamplerSettings`; masks are coarsened by
    `samonai.prompts.coarse_masks.coarse_logits`, and carried prompts are those of
    `samonai.training.data.propagated`.

    Raises:
        InputError: A probability or share is out of range, or all four kinds are at 0.
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        validate_fields(self)
        if sum(self.kinds.values()) <= 0:
            names = ", ".join(f"{kind}_probability" for kind in KINDS)
            raise InputError(f"{names}: one of these must be positive, got 0 for each")
        if self.shifted_probability + self.loose_probability > 1:
            raise InputError(
                f"shifted_probability={self.shifted_probability:g} and "
                f"loose_probability={self.loose_probability:g}: expected at most 1 together"
            )

    @property
    def kinds(self) -> dict[str, float]:
        """Return the probability of each of `KINDS`, before they are divided by their sum."""
        return {kind: getattr(self, f"{kind}_probability") for kind in KINDS}

    def settings(self) -> dict[str, Any]:
        """Return the regime as JSON values, for checkpoints and reports."""
        return asdict(self)

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
            generator: The only source of randomness.

        Returns:
            N prompts on image 0.
        """
        names = list(self.kinds)
        weights = np.array([self.kinds[name] for name in names], float)
        kinds = generator.choice(len(names), size=len(boxes), p=weights / weights.sum())
        drawn = [names[kind] for kind in kinds]
        out_boxes = self._boxes(boxes, limits, generator)
        out_boxes[[kind in ("points", "mask") for kind in drawn]] = np.nan
        coords, labels = self._points(drawn, boxes, masks, limits, generator)
        mask_inputs, has_mask = self._masks(drawn, masks, generator)
        return Prompts(
            torch.zeros(len(boxes), dtype=torch.int64),
            boxes=torch.from_numpy(out_boxes),
            point_coords=None if coords is None else torch.from_numpy(coords),
            point_labels=None if labels is None else torch.from_numpy(labels),
            mask_inputs=None if mask_inputs is None else torch.from_numpy(mask_inputs),
            has_mask=None if has_mask is None else torch.from_numpy(has_mask),
        )

    def _boxes(
        self,
        boxes: npt.NDArray[np.float32],
        limits: tuple[float, float],
        generator: np.random.Generator,
    ) -> npt.NDArray[np.float32]:
        """Draw a box for each object, with one of the three errors."""
        drawn = jitter_boxes(boxes, self.box_jitter, limits, generator)
        if self.shifted_probability or self.loose_probability:
            chance = generator.random(len(boxes))[:, None]
            shifted = shift_boxes(boxes, self.box_shift, limits, generator)
            loose = loosen_boxes(boxes, self.box_looseness, limits, generator)
            drawn = np.where(
                chance < self.shifted_probability + self.loose_probability, loose, drawn
            )
            drawn = np.where(chance < self.shifted_probability, shifted, drawn)
        return drawn

    def _points(
        self,
        kinds: list[str],
        boxes: npt.NDArray[np.float32],
        masks: npt.NDArray[np.bool_],
        limits: tuple[float, float],
        generator: np.random.Generator,
    ) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int64] | None]:
        """Draw points for the objects whose kind has some; None if none has."""
        rows = [row for row, kind in enumerate(kinds) if kind in ("points", "box_and_points")]
        if not rows:
            return None, None
        coords = np.zeros((len(kinds), self.positive_points + self.negative_points, 2), np.float32)
        labels = np.full(coords.shape[:2], NO_POINT, np.int64)
        for row in rows:
            points, signs = self._points_of(boxes[row], masks[row], limits, generator)
            coords[row, : len(points)], labels[row, : len(points)] = points, signs
        return coords, labels

    def _points_of(
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
        wanted = (
            generator.integers(1, self.positive_points + 1),
            generator.integers(self.negative_points + 1),
        )
        for pixels, count, sign in zip((inside, outside), wanted, (1, 0), strict=True):
            if len(pixels):
                rows = generator.choice(
                    len(pixels), size=min(int(count), len(pixels)), replace=False
                )
                points.append((pixels[rows][:, ::-1] + 0.5) * LOW_RES_STRIDE)
                signs.append(np.full(len(rows), sign, np.int64))
        return np.concatenate(points).astype(np.float32), np.concatenate(signs)

    def _masks(
        self, kinds: list[str], masks: npt.NDArray[np.bool_], generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.bool_] | None]:
        """Draw coarse masks: float32 (N, 1, h, w) and which of them count; None if none does."""
        has_mask = np.array([kind == "mask" for kind in kinds], bool)
        if self.with_mask_probability:
            has_mask |= generator.random(len(kinds)) < self.with_mask_probability
        if not has_mask.any():
            return None, None
        logits = np.zeros((len(kinds), 1, *masks.shape[1:]), np.float32)
        for row in np.flatnonzero(has_mask):
            logits[row, 0] = coarse_logits(masks[row], self.mask_noise, generator)
        return logits, has_mask


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
        generator: The only source of randomness.

    Returns:
        float32 (N, 4), a new array.
    """
    return _moved(boxes, generator.uniform(-jitter, jitter, boxes.shape), limits)


def shift_boxes(
    boxes: npt.NDArray[np.float32],
    shift: float,
    limits: tuple[float, float],
    generator: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Move every box as a whole by up to `shift` of its width and of its height.

    Args:
        boxes: As for `jitter_boxes`, like the rest.
        shift: Share of the box's size, drawn uniformly from [-shift, shift] per axis.
        limits: (width, height) that boxes are clipped to.
        generator: The only source of randomness.
    """
    offset = generator.uniform(-shift, shift, (len(boxes), 2))
    return _moved(boxes, np.tile(offset, 2), limits)


def loosen_boxes(
    boxes: npt.NDArray[np.float32],
    looseness: float,
    limits: tuple[float, float],
    generator: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Move every side of every box outwards by up to `looseness` of the box's width or height.

    Args:
        boxes: As for `jitter_boxes`, like the rest.
        looseness: Share of the side's length, drawn uniformly from [0, looseness] per side.
        limits: (width, height) that boxes are clipped to.
        generator: The only source of randomness.
    """
    outwards = generator.uniform(0, looseness, boxes.shape) * np.array([-1.0, -1.0, 1.0, 1.0])
    return _moved(boxes, outwards, limits)


def _moved(
    boxes: npt.NDArray[np.float32], shares: npt.NDArray[np.float64], limits: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Move sides by shares (N, 4) of the boxes' widths and heights, as far as the limits go."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    upper = np.tile(np.asarray(limits, np.float32), 2)
    return np.clip(boxes + shares * sides, 0, upper).astype(np.float32)
