"""Prompts of one frame, in frame space; without torch, as domains read and place them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

NO_POINT = -1
"""The point label of padding, which is no point."""

UNKNOWN_ID = -1
"""The id of an object that may be the same as one of a neighbouring frame."""


@dataclass(frozen=True)
class FramePrompts:
    """The prompts of one frame, each for one object of a class.

    Attributes:
        boxes: float32 (N, 4), xyxy in frame space (edge coordinates, upper ends exclusive); NaN
            where a prompt has no box.
        classes: int64 (N,), label value of each object.
        object_ids: int64 (N,), 1 and up: prompts of several frames with one id are for one
            object, of which each frame shows a part; `UNKNOWN_ID`: an object that other frames may
            have found too. None: every prompt is for its class.
        point_coords: float32 (N, P, 2), (x, y) in frame space. None: no points.
        point_labels: int64 (N, P): 1 inside, 0 outside, -1 no point there.
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    object_ids: npt.NDArray[np.int64] | None = None
    point_coords: npt.NDArray[np.float32] | None = None
    point_labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of prompts N."""
        return len(self.classes)

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> "FramePrompts":
        """Return the prompts at the given rows (integer indices)."""
        return replace(self, **{k: v[rows] for k, v in vars(self).items() if v is not None})

    def moved(self, right: float, down: float) -> "FramePrompts":
        """Return the prompts shifted by so many pixels to the right and down."""
        shift, points = np.array([right, down], np.float32), self.point_coords
        return replace(
            self,
            boxes=self.boxes + np.tile(shift, 2),
            point_coords=None if points is None else points + shift,
        )


def joined_frame_prompts(parts: Sequence[FramePrompts]) -> FramePrompts:
    """Join prompts of one frame; those with fewer points than others are padded.

    Args:
        parts: One or more. The result has ids if all parts have them.
    """
    most = max(0 if p.point_labels is None else p.point_labels.shape[1] for p in parts)
    coords, labels = [], []
    for part in parts:
        points = np.zeros((len(part), most, 2), np.float32)
        signs = np.full((len(part), most), NO_POINT, np.int64)
        if part.point_coords is not None and part.point_labels is not None:
            own = part.point_labels.shape[1]
            points[:, :own], signs[:, :own] = part.point_coords, part.point_labels
        coords.append(points)
        labels.append(signs)
    ids = [part.object_ids for part in parts if part.object_ids is not None]
    return FramePrompts(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate(ids) if len(ids) == len(parts) else None,
        np.concatenate(coords) if most else None,
        np.concatenate(labels) if most else None,
    )
