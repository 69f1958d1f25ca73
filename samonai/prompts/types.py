"""Prompts of a batch of images: ragged, with an explicit image index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.geometry import FrameGeometry
from samonai.prompts.frame_prompts import NO_POINT, FramePrompts

BLANK_POINT = -2
"""The point label of a blank token: upstream's label -1."""

# Larger logits carry no information, and would exceed the usual range of mask prompts.
_LARGEST_FED_BACK = 32.0


@dataclass(frozen=True)
class Prompts:
    """N prompts over the B images of a batch; every prompt is for one object.

    Any of box, points and mask may be missing in a row, also in some rows only.

    Attributes:
        image_index: int64 (N,), the image of each prompt.
        boxes: float32 (N, 4), xyxy in model space; NaN where a row has no box. None: no boxes.
        point_coords: float32 (N, P, 2), (x, y) in model space. None: no points.
        point_labels: int64 (N, P): 1 inside, 0 outside, -1 padding (no point there), -2 blank (see
            `BLANK_POINT`).
        mask_inputs: float32 (N, 1, 256, 256), logits in the low-res frame. None: no masks.
        has_mask: bool (N,), which rows of `mask_inputs` count. None: all.

    Example:
        >>> prompts = Prompts.from_boxes([[0, 0, 64, 64], [32, 32, 96, 96]], image_index=[0, 1])
        >>> len(prompts), prompts.image_index.tolist()
        (2, [0, 1])
        >>> clicked = prompts.add_points(torch.full((2, 2), 48.0), torch.tensor([1, 0]))
        >>> clicked.point_labels.tolist()
        [[1], [0]]
    """

    image_index: torch.Tensor
    boxes: torch.Tensor | None = None
    point_coords: torch.Tensor | None = None
    point_labels: torch.Tensor | None = None
    mask_inputs: torch.Tensor | None = None
    has_mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            ValueError: A part has another number of rows or another shape, or coordinates have
                no labels.
        """
        rows = len(self.image_index)
        shapes = {
            "boxes": (self.boxes, (rows, 4)),
            "point_coords": (self.point_coords, (rows, None, 2)),
            "point_labels": (self.point_labels, (rows, None)),
            "mask_inputs": (self.mask_inputs, (rows, 1, None, None)),
            "has_mask": (self.has_mask, (rows,)),
        }
        for name, (value, expected) in shapes.items():
            if value is not None and not _matches(tuple(value.shape), expected):
                raise ValueError(
                    f"{name} of {rows} prompts: expected shape {expected}, got {tuple(value.shape)}"
                )
        if (self.point_coords is None) != (self.point_labels is None):
            raise ValueError("point_coords and point_labels go together; only one was given")

    def __len__(self) -> int:
        """Return the number of prompts N."""
        return len(self.image_index)

    @classmethod
    def from_boxes(cls, boxes: npt.ArrayLike, image_index: npt.ArrayLike | None = None) -> Self:
        """Make box prompts.

        Args:
            boxes: (N, 4), xyxy in model space.
            image_index: (N,), the image of each box; all on image 0 when not given.
        """
        coordinates = torch.as_tensor(np.asarray(boxes, np.float32)).reshape(-1, 4)
        if image_index is None:
            index = torch.zeros(len(coordinates), dtype=torch.int64)
        else:
            index = torch.as_tensor(np.asarray(image_index, np.int64))
        return cls(index, boxes=coordinates)

    @classmethod
    def of_frame(cls, prompts: FramePrompts, geometry: FrameGeometry) -> Self:
        """Return a frame's prompts in model space, on image 0."""
        boxes = cls.from_boxes(geometry.boxes_to_model(prompts.boxes))
        if prompts.point_coords is None or prompts.point_labels is None:
            return boxes
        return replace(
            boxes,
            point_coords=torch.from_numpy(geometry.points_to_model(prompts.point_coords)),
            point_labels=torch.from_numpy(prompts.point_labels),
        )

    def to(self, device: torch.device | str) -> "Prompts":
        """Return the prompts on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **moved)

    def __getitem__(self, rows: torch.Tensor) -> "Prompts":
        """Return the prompts at the given rows (int64 indices or bool mask)."""
        return replace(self, **{k: v[rows] for k, v in vars(self).items() if v is not None})

    def add_points(self, points: torch.Tensor, labels: torch.Tensor) -> "Prompts":
        """Return the prompts with one point more in each row.

        Args:
            points: float32 (N, 2), (x, y) in model space.
            labels: int64 (N,): 1 inside, 0 outside, -1 for no point in that row.
        """
        coords, signs = points[:, None], labels[:, None]
        if self.point_coords is not None and self.point_labels is not None:
            coords = torch.cat([self.point_coords, coords], dim=1)
            signs = torch.cat([self.point_labels, signs], dim=1)
        return replace(self, point_coords=coords, point_labels=signs)

    def feed_back(self, low_res_logits: torch.Tensor) -> "Prompts":
        """Return the prompts with decoded logits as mask prompts, replacing any others.

        Args:
            low_res_logits: float (N, 1, 256, 256), low-res frame.
        """
        masks = low_res_logits.detach().float().clamp(-_LARGEST_FED_BACK, _LARGEST_FED_BACK)
        return replace(self, mask_inputs=masks, has_mask=None)

    def row_is_ambiguous(self) -> torch.Tensor:
        """Return bool (N,): which rows are a single point, which may mean a part or the whole."""
        if self.point_labels is None:
            return torch.zeros_like(self.image_index, dtype=torch.bool)
        one = (self.point_labels != NO_POINT).sum(1) == 1
        return one & ~self.row_has_box() & ~self.row_has_mask()

    def kinds(self) -> list[torch.Tensor]:
        """Split into rows that the prompt encoder can take at once.

        Upstream appends a "not a point" token to points without a box, and none to points with
        one; padding a row with such tokens would change its result. So rows go together that
        have the same number of points, and agree in having a box and in having a mask.

        Returns:
            int64 row indices of each group, in order.
        """
        rows = len(self)
        has_box = self.row_has_box().long()
        points = (
            torch.zeros(rows, dtype=torch.int64, device=self.image_index.device)
            if self.point_labels is None
            else (self.point_labels != NO_POINT).sum(1)
        )
        kind = points * 4 + has_box * 2 + self.row_has_mask().long()
        return [torch.nonzero(kind == value).flatten() for value in torch.unique(kind)]

    def row_has_box(self) -> torch.Tensor:
        """Return bool (N,): which rows have a box."""
        if self.boxes is None:
            return torch.zeros_like(self.image_index, dtype=torch.bool)
        return ~self.boxes.isnan().any(1)

    def row_has_mask(self) -> torch.Tensor:
        """Return bool (N,): which rows have a mask prompt."""
        if self.mask_inputs is None:
            return torch.zeros_like(self.image_index, dtype=torch.bool)
        if self.has_mask is None:
            return torch.ones_like(self.image_index, dtype=torch.bool)
        return self.has_mask


def concatenate_prompts(parts: Sequence[Prompts]) -> Prompts:
    """Join the prompts of several images into one batch: part b becomes image b.

    Args:
        parts: Prompts of one image each. Missing parts are filled in: boxes with NaN, points
            with padding, masks with rows that do not count.
    """
    index = torch.cat(
        [torch.full((len(part),), b, dtype=torch.int64) for b, part in enumerate(parts)]
    )
    boxes = point_coords = point_labels = mask_inputs = has_mask = None
    if any(part.boxes is not None for part in parts):
        boxes = torch.cat(
            [p.boxes if p.boxes is not None else torch.full((len(p), 4), torch.nan) for p in parts]
        )
    if any(part.point_coords is not None for part in parts):
        width = max(p.point_labels.shape[1] for p in parts if p.point_labels is not None)
        point_coords = torch.zeros(len(index), width, 2)
        point_labels = torch.full((len(index), width), NO_POINT, dtype=torch.int64)
        start = 0
        for part in parts:
            if part.point_coords is not None and part.point_labels is not None:
                rows = slice(start, start + len(part))
                point_coords[rows, : part.point_coords.shape[1]] = part.point_coords
                point_labels[rows, : part.point_labels.shape[1]] = part.point_labels
            start += len(part)
    with_masks = [part.mask_inputs for part in parts if part.mask_inputs is not None]
    if with_masks:
        shape = with_masks[0].shape[1:]
        mask_inputs = torch.cat(
            [
                p.mask_inputs if p.mask_inputs is not None else torch.zeros(len(p), *shape)
                for p in parts
            ]
        )
        has_mask = torch.cat([part.row_has_mask() for part in parts])
    return Prompts(index, boxes, point_coords, point_labels, mask_inputs, has_mask)


def _matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want is None or size == want for size, want in zip(shape, expected, strict=True)
    )
