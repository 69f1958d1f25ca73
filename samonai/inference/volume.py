"""A whole structure from little: prompts carried along, between, or seen from three sides.

Frames are decoded by `SourceInferer` and nowhere else. This module decides what is asked of them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import (
    Compose,
    FillHoles,
    KeepLargestConnectedComponent,
    RemoveSmallObjects,
)

from samonai.domains.base import Domain
from samonai.embeddings.store import EmbeddingStore
from samonai.errors import InputError
from samonai.frame import Frame
from samonai.geometry import FrameGeometry
from samonai.inference.inferer import (
    Automatic,
    CasePrompts,
    FrameObserver,
    Scores,
    SourceInferer,
)
from samonai.inference.interpolate import interpolate_boxes
from samonai.inference.propagate import FrameTracks, Propagation, Propagator, seeds_of
from samonai.prompts import FramePrompts
from samonai.sam.network import SamNetwork

SPREADS = {"middle": "propagate", "keyframes": "interpolate"}
"""How the prompts of a regime of `prompts_from_label` reach the other frames; else "none"."""

_KNOWN = ("none", "propagate", "interpolate")
# Of a frame that was not asked, or said no more: beyond this no logit changes anything.
_CERTAIN = 10.0

Clean = Callable[[torch.Tensor], torch.Tensor]


class VolumeInferer(SourceInferer):
    """Decodes a volume frame by frame from prompts on some of them.

    Args:
        domain: As for `SourceInferer`, like the next five.
        store: As there.
        precision: As there.
        prompts_at_once: As there.
        members: As there.
        observers: As there; they see prompts that are decoded on their own frames in one plane,
            and neither propagated nor fused ones.
        spread: "none": prompts are for their own frames; "propagate": each is carried to the
            frames on both sides, where a prompt that is the same on neighbouring frames counts
            once, in their middle; "interpolate": boxes of one object on several frames are
            interpolated between them.
        propagation: How a mask prompts the next frame, and when that ends.
        planes: 3 decodes the two other planes too, prompted by what the boxes of the first cut
            out of them, and averages the logits of each class on the voxel grid. 1 does not.
        clean: Applied to the mask of each class, such as MONAI's `KeepLargestConnectedComponent`,
            `RemoveSmallObjects` and `FillHoles`; uint8 (1, I, J, K) in and out.

    Raises:
        InputError: A setting is not known.
    """

    def __init__(
        self,
        domain: Domain,
        store: EmbeddingStore | Path | str | None = None,
        precision: str = "auto",
        prompts_at_once: int = 16,
        members: Sequence[SamNetwork] | None = None,
        observers: Sequence[FrameObserver | None] = (),
        *,
        spread: str = "none",
        propagation: Propagation | None = None,
        planes: int = 1,
        clean: Clean | None = None,
    ) -> None:
        """Keep what is asked for."""
        super().__init__(domain, store, precision, prompts_at_once, members, observers)
        if spread not in _KNOWN:
            raise InputError(f"spread={spread!r}: use one of {', '.join(_KNOWN)}")
        if planes not in (1, 3):
            raise InputError(f"planes={planes!r}: expected 1 or 3")
        self.spread, self.planes, self.clean = spread, planes, clean
        self.propagation = propagation or Propagation()
        self._others: list[SourceInferer] | None = None

    def __call__(
        self,
        inputs: Any,
        network: SamNetwork,
        prompts: CasePrompts | None = None,
        *,
        alone: bool = False,
    ) -> Any:
        """Predict a source's label map; see `SourceInferer`."""
        network = getattr(network, "module", network)
        networks = [network] if alone else [network, *self.members]
        if prompts is None or isinstance(prompts, Automatic):
            label = super().__call__(inputs, network, prompts, alone=alone)
        elif self.spread == "propagate":
            tracks = self._tracks(inputs, networks, prompts)
            asked = {index: found.prompts for index, found in tracks.items()}
            label = self._merged(inputs, networks, asked, _track_scores(tracks, network))
        elif self.planes == 1:
            label = super().__call__(inputs, network, prompts, alone=alone)
        else:
            answer = _decoder(self, inputs, networks)
            label = self._merged(inputs, networks, self._asked(prompts), answer)
        return label if self.clean is None else cleaned(label, self.clean)

    def merge(self, source: Any, prompts: Mapping[int, FramePrompts], scores: Scores) -> Any:
        """Score the frames that the prompts reach without a network; see `SourceInferer`."""
        return super().merge(source, self._asked(prompts), scores)

    def _asked(self, prompts: Mapping[int, FramePrompts]) -> Mapping[int, FramePrompts]:
        return interpolate_boxes(prompts) if self.spread == "interpolate" else prompts

    def _merged(
        self,
        source: Any,
        networks: list[SamNetwork],
        asked: Mapping[int, FramePrompts],
        scores: Scores,
    ) -> Any:
        if self.planes == 1:
            return SourceInferer.merge(self, source, asked, scores)
        return self._fused(source, networks, asked, scores)

    def _tracks(
        self, source: Any, networks: list[SamNetwork], prompts: Mapping[int, FramePrompts]
    ) -> dict[int, FrameTracks]:
        propagator = Propagator(
            lambda index: self.domain.frame(source, index),
            lambda frame: self.embed(source, frame, networks[0]),
            lambda embedding, asked: self.low_res(networks, embedding, asked),
            networks[0].long_side,
            self.propagation,
        )
        return propagator(seeds_of(prompts), self.domain.frame_count(source))

    def _fused(
        self,
        source: Any,
        networks: list[SamNetwork],
        asked: Mapping[int, FramePrompts],
        scores: Scores,
    ) -> npt.NDArray[np.int32]:
        """Average each class's logits over the three planes, and take the highest."""
        inferers = self._plane_inferers()
        own = self.domain.axis  # type: ignore[attr-defined]
        shape = source.data.shape
        best = np.zeros(shape, np.float16)
        label = np.zeros(shape, np.int32)
        for value in sorted({int(v) for found in asked.values() for v in found.classes}):
            of_class = {i: p for i, f in asked.items() if (p := _of_class(f, value)) is not None}
            total = np.zeros(shape, np.float16)
            for inferer in inferers:
                axis = inferer.domain.axis  # type: ignore[attr-defined]
                if axis == own:
                    prompts, answer = of_class, _rows_of_class(scores, asked, value)
                else:
                    prompts = across(of_class, own, axis, shape)
                    answer = _decoder(inferer, source, networks)
                _add_plane(total, inferer.domain, source, prompts, answer)
            mean = total / np.float16(len(inferers))
            higher = mean > best
            if source.valid is not None:
                higher &= source.valid
            best[higher], label[higher] = mean[higher], value
        return label

    def _plane_inferers(self) -> list[SourceInferer]:
        if self._others is None:
            along = getattr(self.domain, "along", None)
            if along is None:
                raise InputError(f"planes=3 is for volumes, and {self.domain.name} has none")
            self._others = [
                SourceInferer(along(axis), self.store, self.precision, self.prompts_at_once)
                for axis in range(3)
            ]
        return self._others


def across(
    prompts: Mapping[int, FramePrompts], own: int, axis: int, shape: tuple[int, ...]
) -> dict[int, FramePrompts]:
    """Cut the boxes of one class on frames across one axis by the frames across another.

    The boxes stand for slabs one voxel thick; a frame of the other plane gets the box around what
    it cuts of them.

    Args:
        prompts: Boxes by frame index, xyxy on frames across `own`.
        own: Array axis that these frames lie across.
        axis: Array axis of the plane that is wanted.
        shape: (I, J, K) of the volume.

    Returns:
        One box on each frame across `axis` that cuts a slab.
    """
    slabs = []
    x, y = (a for a in range(3) if a != own)
    for index, found in prompts.items():
        for box in found.boxes[~np.isnan(found.boxes).any(1)]:
            slab = np.zeros(6)
            slab[[own, own + 3]] = index, index + 1
            slab[[x, y, x + 3, y + 3]] = box
            slabs.append(slab)
    if not slabs:
        return {}
    value = next(iter(prompts.values())).classes[:1]
    boxes = np.array(slabs)
    wanted_x, wanted_y = (a for a in range(3) if a != axis)
    cut: dict[int, FramePrompts] = {}
    for index in range(shape[axis]):
        here = boxes[(boxes[:, axis] < index + 1) & (boxes[:, axis + 3] > index)]
        if len(here):
            low = here[:, [wanted_x, wanted_y]].min(0)
            high = here[:, [wanted_x + 3, wanted_y + 3]].max(0)
            cut[index] = FramePrompts(np.concatenate([low, high])[None].astype(np.float32), value)
    return cut


def cleaning(
    keep_largest: bool = False, min_size: int = 0, fill_holes: bool = False
) -> Clean | None:
    """Return MONAI's transforms that clean one structure's mask in 3D, in this order; or None.

    Args:
        keep_largest: Keep the largest connected component.
        min_size: Remove components of fewer voxels.
        fill_holes: Fill what a structure encloses.
    """
    transforms: list[Any] = []
    if min_size > 1:
        transforms.append(RemoveSmallObjects(min_size=min_size))
    if keep_largest:
        transforms.append(KeepLargestConnectedComponent(is_onehot=False))
    if fill_holes:
        transforms.append(FillHoles())
    return Compose(transforms) if transforms else None


def cleaned(label: npt.NDArray[np.integer], clean: Clean) -> npt.NDArray[np.integer]:
    """Apply a transform to the mask of each class; what it adds fills background only.

    Args:
        label: integer (I, J, K), class per voxel.
        clean: Takes and returns uint8 (1, I, J, K), 0 or 1.
    """
    result = label.copy()
    for value in np.unique(label[label > 0]).tolist():
        mask = label == value
        after = np.asarray(clean(torch.from_numpy(mask[None].astype(np.uint8))))[0] > 0
        result[mask & ~after & (result == value)] = 0
        result[after & (result == 0)] = value
    return result


def _add_plane(
    total: npt.NDArray[np.float16],
    domain: Domain,
    source: Any,
    prompts: Mapping[int, FramePrompts],
    answer: Scores,
) -> None:
    """Add one plane's logits of a class; a frame that is not asked says that it is not there."""
    axis = domain.axis  # type: ignore[attr-defined]
    for index in range(domain.frame_count(source)):
        place: list[Any] = [slice(None)] * 3
        place[axis] = index
        target = total[tuple(place)].T  # frames are (rows, columns), that is (y, x)
        if index not in prompts:
            target -= np.float16(_CERTAIN)
            continue
        scores = answer(domain.frame(source, index), prompts[index])
        target += scores.amax(0).clamp(-_CERTAIN, _CERTAIN).numpy().astype(np.float16)


def _decoder(inferer: SourceInferer, source: Any, networks: list[SamNetwork]) -> Scores:
    def scores(frame: Frame, prompts: FramePrompts) -> torch.Tensor:
        embedding = inferer.embed(source, frame, networks[0])
        return inferer.logits(networks, embedding, prompts, frame.size)

    return scores


def _track_scores(tracks: Mapping[int, FrameTracks], network: SamNetwork) -> Scores:
    def scores(frame: Frame, _: FramePrompts) -> torch.Tensor:
        geometry = FrameGeometry(frame.size, network.long_side)
        return geometry.logits_to_frame(tracks[frame.location.index].low_res.float())[:, 0]

    return scores


def _of_class(prompts: FramePrompts, value: int) -> FramePrompts | None:
    rows = np.flatnonzero(prompts.classes == value)
    return prompts[rows] if len(rows) else None


def _rows_of_class(scores: Scores, asked: Mapping[int, FramePrompts], value: int) -> Scores:
    """Return scores of one class's rows, of what is scored for all classes together."""

    def of_class(frame: Frame, _: FramePrompts) -> torch.Tensor:
        whole = asked[frame.location.index]
        rows = torch.from_numpy(np.flatnonzero(whole.classes == value))
        return scores(frame, whole)[rows]

    return of_class
