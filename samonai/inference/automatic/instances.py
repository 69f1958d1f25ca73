"""Automatic mask generation: objects from the semantic head, from proposals or a point grid.

The semantic head gives each pixel a class, without separating touching objects, unless it was
trained with borders (`inference.automatic.borders`). So each connected component of the class map
prompts the promptable head with its box, with points spread over it, or with both. Each mask is
scored by the decoder's IoU estimate times the mean probability of the class under it; of masks that
overlap, the one with the best score is kept (non-maximum suppression). Region proposals of the
domain (`RegionProposals`) prompt the promptable head too. If the run has a linear classifier
of objects, it classifies every mask, or drops it as background (`inference.automatic.classify`). A
model without semantic head is prompted at a grid of points (`inference.automatic.point_grid`).

`ObjectFinding` holds the settings; the domain's merger joins an object's parts in several frames.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import LOW_RES_STRIDE
from samonai.core.settings import check_given
from samonai.domains.base import SourceT
from samonai.domains.capabilities import CLASSES, capabilities
from samonai.inference.automatic.borders import components
from samonai.inference.automatic.classify import classifiers_of, classify
from samonai.inference.automatic.masks import Instance, as_instances, suppress
from samonai.inference.automatic.point_grid import (
    AT_ONCE,
    GridMasks,
    check_numbers,
    decoded_masks,
    grid_points,
    point_prompts,
)
from samonai.inference.frame_outputs import FindObjects, tells_borders
from samonai.inference.inferer import SourceInferer, class_values
from samonai.inference.tta import refuse_augmentation
from samonai.prompts.clicks import interior_pixel
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import SamNetwork
from samonai.settings.inference import FindingSettings

PROMPT_KINDS = ("none", "box", "points", "box_and_points", "proposed", "box_and_proposed")

GRID = "grid"
"""The value of `automatic` for a grid of points as prompts."""


@dataclass(frozen=True)
class ObjectFinding:
    """Settings of segmentation without prompts.

    Attributes:
        automatic: "classes" separates objects by learned borders; "box", "points" and
            "box_and_points" prompt the promptable head with the semantic head's components,
            "proposed" and "box_and_proposed" with the domain's proposals, see `InstanceFinder`;
            "grid" with a grid of points over a frame, see `GridMasks`.
        points_per_side: Points along a frame's longer side.
        min_score: Objects with a lower score are dropped; None: 0, and 0.88 for a grid.
        grid_class: Label value of objects found by a grid, which gives no classes.
    """

    automatic: str = CLASSES
    points_per_side: int = 32
    min_score: float | None = None
    grid_class: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: A setting is unknown or out of range.
        """
        check_given(FindingSettings, vars(self))

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {
            "automatic": self.automatic,
            "points_per_side": self.points_per_side,
            "min_score": self.min_score,
        }

    def __call__(
        self,
        inferer: SourceInferer[SourceT],
        networks: Sequence[SamNetwork],
        classes: tuple[int, ...] | None = None,
    ) -> FindObjects[SourceT] | None:
        """Return the function that finds the objects of a frame, by the average of the networks.

        None if only the class of each pixel is predicted.

        Raises:
            InputError: The objects depend on prompts made of predictions, which test-time
                augmentation cannot average.
        """
        if self.automatic != CLASSES:
            refuse_augmentation(inferer.orientations, f"the prompts of automatic={self.automatic}")
        given: dict[str, Any] = {"points_per_side": self.points_per_side}
        if self.automatic == GRID:
            if self.min_score is not None:
                given["min_iou"] = self.min_score
            # A pixel of a label map belongs to one object: parts of a better whole are left out.
            return GridMasks(inferer, networks, value=self.grid_class, inside=0.8, **given)
        given["min_score"] = self.min_score or 0.0
        prompts = self.automatic
        if prompts == CLASSES:
            if not any(tells_borders(network) for network in networks):
                return None
            prompts = "none"
        return InstanceFinder(inferer, networks, classes, prompts, **given)


@dataclass(frozen=True)
class InstanceFinder(Generic[SourceT]):
    """Finder of the instances of the semantic head's classes on a frame.

    Attributes:
        inferer: Embeds and decodes.
        networks: Their outputs are averaged. Each has a semantic head, and a promptable one
            unless `prompts` is "none".
        classes: Label values to find; None: all.
        prompts: Prompts made of each component of the class map: "box", its box, which refines it;
            "points", points on a grid within it, which split touching objects; "box_and_points",
            both; "none" keeps the component itself. Components are divided at learned borders.
            "proposed" uses the boxes proposed by the
            domain instead, "box_and_proposed" both.
        points_per_side: Points along the frame's longer side. A component between the points gets
            one at its interior centre.
        min_area: Components and masks of fewer pixels are dropped.
        min_score: Instances with a lower score are dropped.
        iou: See `suppress`.
        inside: See `suppress`.
    """

    inferer: SourceInferer[SourceT]
    networks: Sequence[SamNetwork]
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
        known = class_values(self.networks[0])
        if self.prompts not in PROMPT_KINDS:
            raise InputError(
                f"instances from {self.prompts!r} are not known; use one of "
                f"{', '.join(PROMPT_KINDS)}"
            )
        if "proposed" in self.prompts and capabilities(self.inferer.domain).proposals is None:
            raise InputError(
                f"automatic={self.prompts}: {self.inferer.domain.name} data propose no boxes; "
                f"use box, points or box_and_points"
            )
        if unknown := sorted(set(self.classes or ()) - set(known[1:])):
            raise InputError(f"the semantic head has no class {unknown[0]}, but {list(known[1:])}")
        check_numbers(self.points_per_side, self.min_area)

    def __call__(self, source: SourceT, frame: Frame) -> list[Instance]:
        """Return the instances on a frame of a source, best first."""
        embedding = self.inferer.embed(source, frame, self.networks[0])
        classes, borders = self.inferer.class_maps(source, self.networks, frame, embedding)
        probabilities = classes.softmax(0).numpy()
        best = probabilities.argmax(0)
        if frame.valid is not None:
            best[~frame.valid] = 0
        near = None if borders is None else borders.sigmoid().numpy()
        found: list[Instance] = []
        most = AT_ONCE
        for one in self._candidates(embedding, frame, probabilities, best, near):
            found.append(one)
            if len(found) > most:
                found = self._kept(found)
                most = len(found) + AT_ONCE
        return self._kept(found)

    def _candidates(
        self,
        embedding: torch.Tensor,
        frame: Frame,
        probabilities: npt.NDArray[np.float32],
        best: npt.NDArray[np.int64],
        borders: npt.NDArray[np.float32] | None,
    ) -> Iterator[Instance]:
        """Yield candidate instances, given probabilities (K + 1, H, W).

        Args:
            embedding: The frame's.
            frame: The frame.
            probabilities: Probabilities of the classes.
            best: (H, W), the likeliest channel.
            borders: (H, W), probability of being near a border; None without learned borders.
        """
        values = class_values(self.networks[0])
        wanted = {v for v in values[1:] if self.classes is None or v in self.classes}
        for one, asked in self._prompted_candidates(embedding, frame, best, borders, wanted):
            channel, probability = classify(self.networks, one, asked, embedding, probabilities)
            if values[channel] in wanted:
                yield one.called(values[channel], probability)

    def _prompted_candidates(
        self,
        embedding: torch.Tensor,
        frame: Frame,
        best: npt.NDArray[np.int64],
        borders: npt.NDArray[np.float32] | None,
        wanted: Set[int],
    ) -> Iterator[tuple[Instance, int | None]]:
        """Yield candidates with the channel of the component that prompted them, if any."""
        unit = LOW_RES_STRIDE * max(frame.size) / self.networks[0].long_side
        # The object classifier decides; without one, the pixels of the component's class do.
        several = classifiers_of(self.networks) is not None
        for channel, value in enumerate(class_values(self.networks[0])):
            if self.prompts != "proposed" and channel and (several or value in wanted):
                parts = as_instances(components(best == channel, borders, unit), self.min_area)
                for one in self._asked(parts, embedding, frame):
                    yield one, channel
        if "proposed" in self.prompts:
            for one in self._proposed(embedding, frame):
                yield one, None

    def _proposed(self, embedding: torch.Tensor, frame: Frame) -> Iterator[Instance]:
        """Yield the masks of the domain's proposed boxes."""
        proposing = capabilities(self.inferer.domain).proposals
        assert proposing is not None
        boxes = proposing.proposals(frame)
        if not len(boxes):
            return
        prompts = FramePrompts(boxes, np.zeros(len(boxes), np.int64))
        for output in self.inferer.decode(self.networks, embedding, prompts, frame.size):
            yield from decoded_masks(output, frame, self.networks[0].long_side, self.min_area)

    def _kept(self, found: list[Instance]) -> list[Instance]:
        kept = [one for one in found if one.score >= self.min_score]
        return suppress(kept, self.iou, self.inside)

    def _asked(
        self, components: list[Instance], embedding: torch.Tensor, frame: Frame
    ) -> Iterator[Instance]:
        """Yield the components themselves, or the masks that they prompt."""
        if self.prompts == "none":
            yield from components
        if self.prompts == "none" or not components:
            return
        asked = []
        if "box" in self.prompts:
            asked.append((_boxes(components), False))
        if "points" in self.prompts:
            # A point can mean a part or a whole, if the decoder was trained to return all of them.
            points = _points_within(components, frame.size, self.points_per_side)
            asked.append((points, self.networks[0].multimask))
        for prompts, several in asked:
            for output in self.inferer.decode(
                self.networks, embedding, prompts, frame.size, several
            ):
                yield from decoded_masks(output, frame, self.networks[0].long_side, self.min_area)


def _boxes(components: list[Instance]) -> FramePrompts:
    boxes = np.array([one.box for one in components], np.float32)
    return FramePrompts(boxes, np.zeros(len(boxes), np.int64))


def _points_within(
    components: list[Instance], size: tuple[int, int], points_per_side: int
) -> FramePrompts:
    """Return the grid points in a component; a component without any gets its interior centre."""
    grid = grid_points(size, points_per_side)
    columns, rows = grid.astype(int).T
    chosen = []
    for one in components:
        x0, y0, x1, y1 = one.box
        boxed = np.flatnonzero((columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1))
        inside = grid[boxed[one.mask[rows[boxed] - y0, columns[boxed] - x0]]]
        if not len(inside):
            row, column = interior_pixel(one.mask)
            inside = np.array([[x0 + column + 0.5, y0 + row + 0.5]], np.float32)
        chosen.append(inside)
    return point_prompts(np.concatenate(chosen))
