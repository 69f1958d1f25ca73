"""Test-time augmentation: rotated and mirrored frames, whose outputs are mapped back and averaged.

A model's output depends slightly on the position of an object on the encoder's patches. The mean
over several orientations of a frame depends on it less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.settings import check_given
from samonai.domains.base import Domain, SourceT
from samonai.embeddings.changed_frames import changed_frames
from samonai.prompts.frame_prompts import FramePrompts
from samonai.settings.inference import DecodingSettings

PredictOriented = Callable[["Orientation", Frame], tuple[torch.Tensor, torch.Tensor | None]]
"""Function to (..., H', W') of an augmented frame, and values without orientation, or None."""


@dataclass(frozen=True)
class Orientation:
    """One orientation of a frame; rows and columns are swapped first.

    Attributes:
        transposed: Rows become columns.
        upside_down: The order of the rows is reversed.
        mirrored: The order of the columns is reversed.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def frame(self, frame: Frame) -> Frame:
        """Return a frame in this orientation, with its label, instances and valid mask."""
        if self == UPRIGHT:
            return frame
        maps: dict[str, Any] = {
            name: self._array(value)
            for name in ("image", "label", "valid", "instances")
            if (value := getattr(frame, name)) is not None
        }
        return replace(frame, **maps)

    def prompts(self, prompts: FramePrompts, size: tuple[int, int]) -> FramePrompts:
        """Return prompts for the frame in this orientation.

        Args:
            prompts: On the original frame.
            size: (H, W) of the original frame.
        """
        x0, y0, x1, y1 = self._points(prompts.boxes.reshape(-1, 2, 2), size).reshape(-1, 4).T
        boxes = [np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1)]
        coords = prompts.point_coords
        return replace(
            prompts,
            boxes=np.stack(boxes, 1),
            point_coords=None if coords is None else self._points(coords, size),
        )

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """Map values (..., H', W') of the augmented frame back to the original one, (..., H, W)."""
        if self.mirrored:
            values = values.flip(-1)
        if self.upside_down:
            values = values.flip(-2)
        return values.transpose(-1, -2) if self.transposed else values

    def domain(self, domain: Domain[SourceT]) -> Domain[SourceT]:
        """Return a domain with augmented frames; the orientation is part of a store's signature."""
        if self == UPRIGHT:
            return domain
        note = {"turn": [self.transposed, self.upside_down, self.mirrored]}
        return changed_frames(domain, note, lambda _, frame: self.frame(frame))

    def _array(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.transposed:
            values = values.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.upside_down else 1)
        columns = slice(None, None, -1 if self.mirrored else 1)
        return np.ascontiguousarray(values[rows, columns])

    def _points(
        self, points: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """Map points (..., 2), (x, y) in edge coordinates; see `geometry`."""
        height, width = size
        if self.transposed:
            points, (height, width) = points[..., ::-1], (width, height)
        x, y = points[..., 0], points[..., 1]
        x = width - x if self.mirrored else x
        y = height - y if self.upside_down else y
        return np.stack([x, y], -1).astype(np.float32)


UPRIGHT = Orientation()

_ORIENTATIONS = tuple(
    Orientation(transposed, upside_down, mirrored)
    for transposed in (False, True)
    for upside_down in (False, True)
    for mirrored in (False, True)
)


def orientations_of(count: int) -> tuple[Orientation, ...]:
    """Return 1 orientation (the original), 2 (and mirrored), 4 (all mirrorings) or all 8.

    Raises:
        InputError: The number is another one.
    """
    check_given(DecodingSettings, {"tta": count})
    return _ORIENTATIONS[:count]


def refuse_augmentation(orientations: Sequence[Orientation], what: str) -> None:
    """Refuse settings that cannot be averaged over orientations, rather than ignore them.

    Raises:
        InputError: There is more than one orientation.
    """
    if len(orientations) > 1:
        raise InputError(
            f"tta={len(orientations)} averages masks of boxes and points and maps of classes, "
            f"not {what}; leave it out"
        )


def mean_over(
    orientations: Sequence[Orientation], frame: Frame, predict: PredictOriented
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the average of a frame's outputs over orientations, on the original frame.

    Args:
        orientations: The orientations.
        frame: The frame.
        predict: Predicts on an augmented frame.
    """
    count = len(orientations)
    values, beside = _oriented(orientations[0], frame, predict)
    if count == 1:
        return values, beside
    for orientation in orientations[1:]:
        more, others = _oriented(orientation, frame, predict)
        values = values + more
        beside = None if beside is None or others is None else beside + others
    return values / count, None if beside is None else beside / count


def _oriented(
    orientation: Orientation, frame: Frame, predict: PredictOriented
) -> tuple[torch.Tensor, torch.Tensor | None]:
    values, beside = predict(orientation, orientation.frame(frame))
    return orientation.back(values), beside
