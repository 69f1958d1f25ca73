"""SAM's automatic mask generator: a grid of points over a frame as prompts.

It is that of arXiv:2304.02643, appendix B.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.domains.base import SourceT
from samonai.inference.automatic.masks import Instance, make_instance, suppress
from samonai.inference.inferer import SourceInferer
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import SamNetwork
from samonai.sam.outputs import DecodeOutput

AT_ONCE = 256
"""Candidates in memory before overlapping ones are suppressed."""


@dataclass(frozen=True)
class GridMasks(Generic[SourceT]):
    """SAM's automatic masks: a grid of points over the frame, three masks for each.

    Attributes:
        inferer: Embeds and decodes.
        networks: The model, or several whose outputs are averaged; a semantic head is not used.
        points_per_side: Points along the frame's longer side.
        min_iou: Masks whose estimated IoU is lower are dropped.
        min_stability: So are those that change more than this, in IoU, between thresholds
            `stability_offset` above and below 0.
        stability_offset: In logits.
        min_area: Masks of fewer pixels are dropped.
        iou: Of masks with a higher IoU the better one is kept.
        inside: See `suppress`; 1 keeps parts of others.
        value: Label value of the masks; 0: unknown.
    """

    inferer: SourceInferer[SourceT]
    networks: Sequence[SamNetwork]
    points_per_side: int = 32
    min_iou: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0
    min_area: int = 10
    iou: float = 0.7
    inside: float = 1.0
    value: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: A setting is out of range.
        """
        check_numbers(self.points_per_side, self.min_area)

    def __call__(self, source: SourceT, frame: Frame) -> list[Instance]:
        """Return the masks on a frame of a source, best first."""
        points = grid_points(frame.size, self.points_per_side)
        if frame.valid is not None:
            points = points[frame.valid[points[:, 1].astype(int), points[:, 0].astype(int)]]
        embedding = self.inferer.embed(source, frame, self.networks[0])
        found: list[Instance] = []
        outputs = self.inferer.decode(
            self.networks, embedding, point_prompts(points), frame.size, multimask_output=True
        )
        long_side, most = self.networks[0].long_side, AT_ONCE
        for output in outputs:
            found += decoded_masks(self._good(output), frame, long_side, self.min_area)
            if len(found) > most:
                found = suppress(found, self.iou, self.inside)
                most = len(found) + AT_ONCE
        kept = suppress(found, self.iou, self.inside)
        return [replace(one, value=self.value) for one in kept]

    def _good(self, output: DecodeOutput) -> DecodeOutput:
        """Return the masks that pass both thresholds, one per row."""
        logits, iou = output.low_res_logits.flatten(0, 1), output.iou_predictions.flatten()
        inner = (logits > self.stability_offset).flatten(1).sum(1)
        outer = (logits > -self.stability_offset).flatten(1).sum(1)
        good = (iou >= self.min_iou) & (inner >= self.min_stability * outer.clamp(min=1))
        return DecodeOutput(logits[good][:, None], iou[good][:, None])


def decoded_masks(
    output: DecodeOutput, frame: Frame, long_side: int, min_area: int
) -> Iterator[Instance]:
    """Map masks (n, M, ...) to the frame one by one; yield those that are large enough."""
    geometry = FrameGeometry(frame.size, long_side)
    low_res, estimates = output.low_res_logits.flatten(0, 1), output.iou_predictions.flatten()
    for one, iou in zip(low_res.float().cpu(), estimates.tolist(), strict=True):
        mask = (geometry.logits_to_frame(one[None, None])[0, 0] > 0).numpy()
        if frame.valid is not None:
            mask &= frame.valid
        if mask.sum() >= min_area:
            found = make_instance(mask, iou=iou, low_res=one.half())
            assert found is not None
            yield found


def grid_points(size: tuple[int, int], points_per_side: int) -> npt.NDArray[np.float32]:
    """Return float32 (N, 2), (x, y): the centres of equal cells that cover a frame."""
    height, width = size
    step = max(size) / points_per_side
    counts = [max(round(side / step), 1) for side in (width, height)]
    axes = [
        (np.arange(count) + 0.5) * (side / count)
        for side, count in zip((width, height), counts, strict=True)
    ]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2).astype(np.float32)


def point_prompts(points: npt.NDArray[np.float32]) -> FramePrompts:
    """Return a prompt for each point (N, 2)."""
    count = len(points)
    return FramePrompts(
        np.full((count, 4), np.nan, np.float32),
        np.zeros(count, np.int64),
        point_coords=np.ascontiguousarray(points[:, None]),
        point_labels=np.ones((count, 1), np.int64),
    )


def check_numbers(points_per_side: int, min_area: int) -> None:
    """Check the density of a grid of points, and the least size of a mask in pixels.

    Raises:
        InputError: A value is below 1.
    """
    if points_per_side < 1 or min_area < 1:
        raise InputError(
            f"points_per_side and min_area are at least 1, got {points_per_side} and {min_area}"
        )
