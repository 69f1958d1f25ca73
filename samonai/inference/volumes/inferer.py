"""Volume inference from few prompts: propagation, interpolation, three planes.

Frames are decoded by `SourceInferer` only. This module prepares their prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.core.settings import check_given
from samonai.domains.base import Domain, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.frame_outputs import (
    DecodeFrame,
    FrameObserver,
    FrameOutput,
    Scores,
    observed,
)
from samonai.inference.inferer import Automatic, CasePrompts, SourceInferer
from samonai.inference.prompting.interpolate import interpolate_boxes
from samonai.inference.tta import refuse_augmentation
from samonai.inference.volumes.planes import fuse_planes
from samonai.inference.volumes.propagate import FrameTracks, Propagation, Propagator, seeds_of
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import SamNetwork
from samonai.settings.inference import CleaningSettings, DecodingSettings

if TYPE_CHECKING:
    from samonai.embeddings.embedder import AnyStore

SPREAD_OF_PROMPTS = {"middle": "propagate", "middle_click": "propagate", "keyframes": "interpolate"}
"""Spread of the prompts of a regime of `prompts_from_label` to other frames; else "none"."""

Clean = Callable[[torch.Tensor], torch.Tensor]


class VolumeInferer(SourceInferer[SourceT]):
    """Decodes a volume frame by frame from prompts on some of them.

    Args:
        domain: As for `SourceInferer`, like the next six.
        store: As there.
        precision: As there.
        prompts_at_once: As there.
        members: As there.
        observers: As there. Of propagated prompts they get the outputs of each frame; of
            fused planes the average over the planes, a row per class.
        tta: As there. Not for propagated prompts.
        spread: "none": prompts are for their own frames; "propagate": each is carried to the
            frames on both sides, where a prompt that is the same on neighbouring frames is used
            once, in their middle; "interpolate": boxes of one object on several frames are
            interpolated between them.
        propagation: Rule of propagation and of its end.
        planes: 3 decodes the two other planes too, prompted with sections of the first one's boxes,
            and averages the logits of each class on the voxel grid. 1 does not.
        clean: Applied to the mask of each class, such as MONAI's `KeepLargestConnectedComponent`,
            `RemoveSmallObjects` and `FillHoles`; uint8 (1, I, J, K) in and out.

    Raises:
        InputError: A setting is invalid.
    """

    def __init__(
        self,
        domain: Domain[SourceT],
        store: "AnyStore | Path | str | None" = None,
        precision: str = "auto",
        prompts_at_once: int = 16,
        members: Sequence[SamNetwork] | None = None,
        observers: Sequence[FrameObserver | None] = (),
        tta: int = 1,
        *,
        spread: str = "none",
        propagation: Propagation | None = None,
        planes: int = 1,
        clean: Clean | None = None,
    ) -> None:
        """Keep the settings."""
        super().__init__(domain, store, precision, prompts_at_once, members, observers, tta)
        check_given(DecodingSettings, {"spread": spread, "planes": planes})
        self.spread, self.planes, self.clean = spread, planes, clean
        self.propagation = propagation or Propagation()
        self._others: list[SourceInferer[SourceT]] | None = None

    def __call__(
        self,
        inputs: SourceT,
        network: SamNetwork,
        prompts: CasePrompts | None = None,
        *,
        alone: bool = False,
        observers: Sequence[FrameObserver] | None = None,
    ) -> Any:
        """Predict a source's label map; see `SourceInferer`."""
        network = getattr(network, "module", network)
        networks = [network] if alone else [network, *self.members]
        watching = self._watching(observers, alone=alone)
        each = bool(watching)
        if prompts is None or isinstance(prompts, Automatic):
            self._refuse_without_prompts()
            label = super().__call__(inputs, network, prompts, alone=alone, observers=observers)
        elif self.spread == "propagate":
            refuse_augmentation(self.orientations, "prompts that are carried from frame to frame")
            tracks = self.tracks(inputs, networks, prompts, each=each)
            asked = {index: found.prompts for index, found in tracks.items()}
            label = self._merged(inputs, networks, asked, _track_outputs(tracks, network), watching)
        elif self.planes == 1:
            label = self.merge_outputs(inputs, networks, self._asked(prompts), watching)
        else:
            decode_frame = self.frame_outputs(inputs, networks, each=each)
            label = self._merged(inputs, networks, self._asked(prompts), decode_frame, watching)
        return label if self.clean is None else cleaned(label, self.clean)

    def merge(self, source: SourceT, prompts: Mapping[int, FramePrompts], scores: Scores) -> Any:
        """Score the frames that the prompts reach without a network; see `SourceInferer`."""
        return super().merge(source, self._asked(prompts), scores)

    def _asked(self, prompts: Mapping[int, FramePrompts]) -> Mapping[int, FramePrompts]:
        return interpolate_boxes(prompts) if self.spread == "interpolate" else prompts

    def _refuse_without_prompts(self) -> None:
        """Refuse settings that need boxes and clicks, rather than ignore them."""
        for name, value, usual in (("spread", self.spread, "none"), ("planes", self.planes, 1)):
            if value != usual:
                raise InputError(f"{name}={value} needs boxes or clicks; give them or leave it out")

    def _merged(
        self,
        source: SourceT,
        networks: list[SamNetwork],
        asked: Mapping[int, FramePrompts],
        decode_frame: DecodeFrame,
        observers: Sequence[FrameObserver],
    ) -> Any:
        if self.planes == 1:
            return SourceInferer.merge(self, source, asked, observed(decode_frame, observers))
        planes = self._plane_inferers()
        return fuse_planes(source, self.domain, planes, networks, asked, decode_frame, observers)

    def tracks(
        self,
        source: SourceT,
        networks: list[SamNetwork],
        prompts: Mapping[int, FramePrompts],
        *,
        each: bool = False,
        reach: int | None = None,
    ) -> dict[int, FrameTracks]:
        """Carry prompts from frame to frame; see `Propagator`.

        Args:
            source: The source.
            networks: One, or several on one encoder.
            prompts: By frame index.
            each: Keep what each network says, not their average alone.
            reach: Frames on each side; None: as the rule of propagation says.
        """
        rule = self.propagation if reach is None else replace(self.propagation, frames=reach)
        propagator = Propagator(
            lambda index: self.domain.frame(source, index),
            lambda frame: self.embed(source, frame, networks[0]),
            lambda embedding, asked: self.each_low_res(networks, embedding, asked),
            networks[0].long_side,
            rule,
            each,
        )
        return propagator(seeds_of(prompts), self.domain.frame_count(source))

    def _plane_inferers(self) -> list[SourceInferer[SourceT]]:
        if self._others is None:
            planes = capabilities(self.domain).planes
            if planes is None:
                raise InputError(f"planes=3 is for volumes, and {self.domain.name} has none")
            self._others = [
                SourceInferer(
                    planes.along(axis),
                    self.store,
                    self.precision,
                    self.prompts_at_once,
                    tta=len(self.orientations),
                )
                for axis in range(3)
            ]
            for other in self._others:
                other.lock = self.lock  # one network, one lock
        return self._others


def cleaning(
    keep_largest: bool = False, min_size: int = 0, fill_holes: bool = False
) -> Clean | None:
    """Return MONAI's transforms that clean one structure's mask in 3D, in this order; or None.

    Args:
        keep_largest: Keep the largest connected component.
        min_size: Remove components of fewer voxels.
        fill_holes: Fill what a structure encloses.

    Raises:
        InputError: The size is negative.
    """
    check_given(CleaningSettings, locals())
    if not (keep_largest or fill_holes or min_size > 1):
        return None
    from monai.transforms import (  # slow to import, and most predictions need none
        Compose,
        FillHoles,
        KeepLargestConnectedComponent,
        RemoveSmallObjects,
    )

    transforms: list[Any] = []
    if min_size > 1:
        transforms.append(RemoveSmallObjects(min_size=min_size))
    if keep_largest:
        transforms.append(KeepLargestConnectedComponent(is_onehot=False))
    if fill_holes:
        transforms.append(FillHoles())
    cleaned_up: Clean = Compose(transforms)
    return cleaned_up


def cleaned(label: npt.NDArray[np.integer], clean: Clean) -> npt.NDArray[np.integer]:
    """Apply a transform to the mask of each class; added voxels replace background only.

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


def _track_outputs(tracks: Mapping[int, FrameTracks], network: SamNetwork) -> DecodeFrame:
    """Return the propagated outputs, for the requested classes."""

    def decode(frame: Frame, prompts: FramePrompts) -> FrameOutput:
        geometry = FrameGeometry(frame.size, network.long_side)
        found = tracks[frame.location.index]
        rows = torch.from_numpy(np.isin(found.prompts.classes, prompts.classes))
        low_res = found.low_res[:, rows].float()
        logits = torch.stack([geometry.logits_to_frame(one)[:, 0] for one in low_res])
        return FrameOutput(logits, logits, found.iou[:, rows])

    return decode
