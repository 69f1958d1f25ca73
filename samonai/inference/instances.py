"""Automatic masks: instances out of the semantic head, or out of a grid of points.

The semantic head says which class each pixel has, but not where one object ends and the next
begins. The promptable head of the same decoder knows objects, but not which to look for. So each
component of the class map prompts the promptable head, with its box, with points spread over it,
or with both; every answer is scored by the decoder's own IoU estimate times the mean probability of
the class under the mask; and of answers that overlap the best is kept. A grid of points over the
whole frame is SAM's own automatic mask generator (arXiv:2304.02643, appendix B), for a model
without semantic head.

Nothing here knows what the objects are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from samonai.clicks import interior_pixel
from samonai.errors import InputError
from samonai.frame import Frame
from samonai.geometry import FrameGeometry
from samonai.inference.inferer import SourceInferer, class_values
from samonai.inference.masks import Instance, make_instance, suppress
from samonai.prompts import FramePrompts
from samonai.sam.network import SamNetwork
from samonai.sam.outputs import DecodeOutput

PROMPT_KINDS = ("none", "box", "points", "box_and_points")

_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class InstanceFinder:
    """Finds the instances of the semantic head's classes on a frame.

    Attributes:
        inferer: Embeds and decodes.
        network: Has a semantic head, and a promptable one unless `prompts` is "none".
        classes: Label values to find; None: all.
        prompts: What each component of the class map asks for: "box", its box, which refines it;
            "points", points on a grid within it, which split what touches; "box_and_points",
            both; "none" takes the component as it is.
        points_per_side: Points along the frame's longer side. A component between the points gets
            one at its interior centre.
        min_area: Components and masks of fewer pixels are dropped.
        min_score: Instances with a lower score are dropped.
        iou: See `suppress`.
        inside: See `suppress`.
    """

    inferer: SourceInferer
    network: SamNetwork
    classes: tuple[int, ...] | None = None
    prompts: str = "box"
    points_per_side: int = 32
    min_area: int = 10
    min_score: float = 0.0
    iou: float = 0.5
    inside: float = 0.8

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: There is no semantic head, or a setting is out of range.
        """
        known = class_values(self.network)
        if self.prompts not in PROMPT_KINDS:
            raise InputError(
                f"instances from {self.prompts!r} are not known; use one of "
                f"{', '.join(PROMPT_KINDS)}"
            )
        if unknown := sorted(set(self.classes or ()) - set(known[1:])):
            raise InputError(f"the semantic head has no class {unknown[0]}, but {list(known[1:])}")
        _check_numbers(self.points_per_side, self.min_area)

    def __call__(self, source: Any, frame: Frame) -> list[Instance]:
        """Return the instances on a frame of a source, best first."""
        embedding = self.inferer.embed(source, frame, self.network)
        logits = self.inferer.class_logits(self.network, embedding, frame)
        probabilities = logits.softmax(0).numpy()
        values = class_values(self.network)
        best = probabilities.argmax(0)
        if frame.valid is not None:
            best[~frame.valid] = 0
        found: list[Instance] = []
        for channel, value in enumerate(values):
            if channel and (self.classes is None or value in self.classes):
                components = _components(best == channel, self.min_area)
                found += self._instances(
                    components, probabilities[channel], value, embedding, frame
                )
        kept = [one for one in found if one.score >= self.min_score]
        return suppress(kept, self.iou, self.inside)

    def _instances(
        self,
        components: list[npt.NDArray[np.bool_]],
        probability: npt.NDArray[np.float32],
        value: int,
        embedding: torch.Tensor,
        frame: Frame,
    ) -> list[Instance]:
        """Return the candidates of one class."""
        if not components:
            return []
        if self.prompts == "none":
            masks = [(component, 1.0) for component in components]
        else:
            masks = list(self._asked(components, embedding, frame))
        found = []
        for mask, iou in masks:
            if mask.sum() >= self.min_area:
                found.append(make_instance(mask, value, iou, float(probability[mask].mean())))
        return [one for one in found if one is not None]

    def _asked(
        self, components: list[npt.NDArray[np.bool_]], embedding: torch.Tensor, frame: Frame
    ) -> Iterator[tuple[npt.NDArray[np.bool_], float]]:
        """Prompt with the components; yield masks in frame space and IoU estimates."""
        asked = []
        if "box" in self.prompts:
            asked.append((_boxes(components), False))
        if "points" in self.prompts:
            # A point can mean a part or a whole, where the decoder was trained to say all of them.
            points = _points_within(components, self.points_per_side)
            asked.append((points, self.network.multimask))
        for prompts, several in asked:
            for output in self.inferer.decode(
                self.network, embedding, prompts, frame.size, several
            ):
                yield from _masks(output, frame, self.network.long_side)


@dataclass(frozen=True)
class GridMasks:
    """SAM's automatic masks: a grid of points over the frame, three masks for each.

    Attributes:
        inferer: Embeds and decodes.
        network: The model; a semantic head has no part in it.
        points_per_side: Points along the frame's longer side.
        min_iou: Masks whose estimated IoU is lower are dropped.
        min_stability: So are those that change more than this, in IoU, between thresholds
            `stability_offset` above and below 0.
        stability_offset: In logits.
        min_area: Masks of fewer pixels are dropped.
        iou: Of masks with a higher IoU the better one is kept; parts of others are kept.
    """

    inferer: SourceInferer
    network: SamNetwork
    points_per_side: int = 32
    min_iou: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0
    min_area: int = 10
    iou: float = 0.7

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: A setting is out of range.
        """
        _check_numbers(self.points_per_side, self.min_area)

    def __call__(self, source: Any, frame: Frame) -> list[Instance]:
        """Return the masks on a frame of a source as instances of class 0, best first."""
        points = _grid(frame.size, self.points_per_side)
        if frame.valid is not None:
            points = points[frame.valid[points[:, 1].astype(int), points[:, 0].astype(int)]]
        embedding = self.inferer.embed(source, frame, self.network)
        found = []
        outputs = self.inferer.decode(
            self.network, embedding, _points(points), frame.size, multimask_output=True
        )
        for output in outputs:
            for mask, iou in _masks(self._good(output), frame, self.network.long_side):
                if mask.sum() >= self.min_area:
                    found.append(make_instance(mask, iou=iou))
        return suppress([one for one in found if one is not None], self.iou)

    def _good(self, output: DecodeOutput) -> DecodeOutput:
        """Return the masks that pass both thresholds, one per row."""
        logits, iou = output.low_res_logits.flatten(0, 1), output.iou_predictions.flatten()
        inner = (logits > self.stability_offset).flatten(1).sum(1)
        outer = (logits > -self.stability_offset).flatten(1).sum(1)
        good = (iou >= self.min_iou) & (inner >= self.min_stability * outer.clamp(min=1))
        return DecodeOutput(logits[good][:, None], iou[good][:, None])


def _masks(
    output: DecodeOutput, frame: Frame, long_side: int
) -> Iterator[tuple[npt.NDArray[np.bool_], float]]:
    """Bring masks (n, M, ...) to the frame one by one; yield each with its IoU estimate."""
    geometry = FrameGeometry(frame.size, long_side)
    low_res, estimates = output.low_res_logits.flatten(0, 1), output.iou_predictions.flatten()
    for one, iou in zip(low_res, estimates.tolist(), strict=True):
        mask = (geometry.logits_to_frame(one[None, None].float())[0, 0] > 0).cpu().numpy()
        if frame.valid is not None:
            mask &= frame.valid
        yield mask, iou


def _components(mask: npt.NDArray[np.bool_], min_area: int) -> list[npt.NDArray[np.bool_]]:
    """Return the components of a mask (8-connectivity), each as bool (H, W)."""
    parts, count = ndimage.label(mask, _NEIGHBOURS)
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    return [parts == part for part in range(1, count + 1) if areas[part] >= min_area]


def _boxes(components: list[npt.NDArray[np.bool_]]) -> FramePrompts:
    found = [make_instance(component) for component in components]
    boxes = np.array([one.box for one in found if one is not None], np.float32)
    return FramePrompts(boxes.reshape(-1, 4), np.zeros(len(boxes), np.int64))


def _points_within(components: list[npt.NDArray[np.bool_]], points_per_side: int) -> FramePrompts:
    """Return the points of the grid that lie in a component, and one for each without any."""
    grid = _grid(components[0].shape, points_per_side)
    columns, rows = grid.astype(int).T
    chosen = []
    for component in components:
        inside = grid[component[rows, columns]]
        if not len(inside):
            row, column = interior_pixel(component)
            inside = np.array([[column + 0.5, row + 0.5]], np.float32)
        chosen.append(inside)
    return _points(np.concatenate(chosen))


def _grid(size: tuple[int, int], points_per_side: int) -> npt.NDArray[np.float32]:
    """Return float32 (N, 2), (x, y): the centres of equal cells that cover a frame."""
    height, width = size
    step = max(size) / points_per_side
    counts = [max(round(side / step), 1) for side in (width, height)]
    axes = [
        (np.arange(count) + 0.5) * (side / count)
        for side, count in zip((width, height), counts, strict=True)
    ]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2).astype(np.float32)


def _points(points: npt.NDArray[np.float32]) -> FramePrompts:
    """Return a prompt for each point (N, 2)."""
    count = len(points)
    return FramePrompts(
        np.full((count, 4), np.nan, np.float32),
        np.zeros(count, np.int64),
        point_coords=np.ascontiguousarray(points[:, None]),
        point_labels=np.ones((count, 1), np.int64),
    )


def _check_numbers(points_per_side: int, min_area: int) -> None:
    if points_per_side < 1 or min_area < 1:
        raise InputError(
            f"points_per_side and min_area are at least 1, got {points_per_side} and {min_area}"
        )
