"""Merging of frames that do not overlap: each pixel gets the class of its highest score."""

from collections.abc import Callable, Mapping
from typing import Generic

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.domains.base import Merges, SourceT
from samonai.prompts.frame_prompts import FramePrompts


class FrameMerger(Generic[SourceT]):
    """Labels each frame by itself; the domain puts the labels on the source's grid.

    Args:
        domain: Merges the labels.
        source: The source that the frames are cut from.
    """

    positive_scores_in_parts = True
    """Scores need be right only where they are above 0, and may come a few prompts at a time."""

    def __init__(self, domain: Merges[SourceT], source: SourceT) -> None:
        """Start without frames."""
        self._domain, self._source = domain, source
        self._labels: dict[int, npt.NDArray[np.integer]] = {}
        self._best: tuple[int, npt.NDArray[np.float32]] | None = None

    def add(
        self,
        frame: Frame,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Label a frame, or add to its label; invalid pixels stay background."""
        index = frame.location.index
        label, best = label_from_scores(scores, prompts.classes), scores.max(0)
        if frame.valid is not None:
            label = np.where(frame.valid, label, 0)
        if self._best is not None and self._best[0] == index:
            earlier = self._best[1] >= best
            label = np.where(earlier, self._labels[index], label)
            best = np.maximum(best, self._best[1])
        # All frames are kept until the last, in the smallest type for their classes.
        smallest = np.min_scalar_type(int(label.max()))
        self._labels[index], self._best = label.astype(smallest), (index, best)

    def finish(self) -> npt.NDArray[np.integer]:
        """Return the label map on the source's grid."""
        return self._domain.merge(self._source, self._labels)


class FrameMaps:
    """Collects values of frames that do not overlap; see `MapMerger`.

    Args:
        merge: Puts values by frame index on the source's grid.
    """

    def __init__(
        self,
        merge: Callable[[Mapping[int, npt.NDArray[np.float32]]], npt.NDArray[np.float32]],
    ) -> None:
        """Start without frames."""
        self._merge = merge
        self._values: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, frame: Frame, values: npt.NDArray[np.float32]) -> None:
        """Keep the values of a frame."""
        self._values[frame.location.index] = values

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the map."""
        return self._merge(self._values)


def label_from_scores(
    scores: npt.ArrayLike, classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Give every pixel the class of its highest score, or 0 where none is positive.

    Args:
        scores: float (N, H, W), logits or other scores with their threshold at 0.
        classes: int64 (N,), class of each score.

    Returns:
        int32 (H, W).
    """
    values = np.asarray(scores)
    label = classes.astype(np.int32)[values.argmax(0)]
    return np.where(values.max(0) > 0, label, np.int32(0))
