"""Propagation from a prompted frame to its neighbours: the mask of a frame prompts the next."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from samonai.core.errors import InputError
from samonai.core.frame import Frame, mask_box
from samonai.core.geometry import FrameGeometry
from samonai.core.settings import describe, validate
from samonai.prompts.frame_prompts import FramePrompts, joined_frame_prompts
from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput
from samonai.settings.inference import PropagationSettings

Decode = Callable[[torch.Tensor, Prompts], DecodeOutput]


@dataclass(frozen=True)
class Propagation:
    """Rule of propagation: the prompt made of a mask, and the conditions that end a track.

    A track ends before the first frame that fails one of these, or whose mask is empty. The
    prompted frame is not checked, since the user has placed the prompt on an object.

    Attributes:
        prompt: One of `PROPAGATE_PROMPTS`.
        margin: The box grows by this share of its width and height on each side, or shrinks if
            it is negative. A decoder that was trained with tight boxes fills any box it is given,
            and structures taper off: a growing box diverges.
        area: The area may grow or shrink by up to this factor from one frame to the next.
        growth: The area may be up to this many times that on the prompted frame. A decoder that
            fills its box makes a mask grow a little on every frame, which no other
            condition detects.
        iou: Least value of the decoder's own estimate of its mask's IoU.
        similarity: Least cosine between the mean embeddings of the object on two neighbouring
            frames.
        frames: Largest number of frames on each side; None: all.
    """

    prompt: str = "box"
    margin: float = -0.05
    area: float = 3.0
    growth: float = 1.5
    iou: float = 0.5
    similarity: float = 0.8
    frames: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: A value is out of range.
        """
        described = describe(PropagationSettings)
        for name in ("prompt", "margin", "iou"):  # the settings' null and auto need a decoder
            if getattr(self, name) in (None, "auto"):
                raise InputError(f"{name}={getattr(self, name)!r}: give a value without a decoder")
        for name, about in described.items():
            object.__setattr__(self, name, validate(about, getattr(self, name)))


@dataclass(frozen=True)
class TrackedMask:
    """The mask of an object on a frame.

    Attributes:
        low_res: float16 (K, 1, h, w), logits in the low-res frame: of each network, or of their
            average alone.
        iou: float32 (K,), each network's own estimate of its mask's IoU.
        box: float32 (4,), xyxy in frame space, around the mask.
        value: Label value of the object.
        area: Pixels of the frame.
        look: float32 (C,), mean embedding over the mask.
        size: (H, W) of the frame.
        passed: Distance from the prompted frame.
        first_area: Pixels of the mask on that frame.
    """

    low_res: torch.Tensor
    iou: torch.Tensor
    box: npt.NDArray[np.float32]
    value: int
    area: int
    look: torch.Tensor
    size: tuple[int, int]
    passed: int = 0
    first_area: int = 0


@dataclass(frozen=True)
class FrameTracks:
    """The objects found on a frame, in the form that a merger needs.

    Attributes:
        low_res: float16 (K, N, 1, h, w), logits in the low-res frame: of each network, or of
            their average alone.
        iou: float32 (K, N), each network's own estimate of its masks' IoU.
        prompts: The box around each mask, and its class.
        size: (H, W) of the frame.
    """

    low_res: torch.Tensor
    iou: torch.Tensor
    prompts: FramePrompts
    size: tuple[int, int]


class Propagator:
    """Propagates prompts from frame to frame of one source, towards both ends.

    All objects of a frame are decoded together, so that a source is passed twice at most: up and
    down. Memory holds one frame's embedding and, of each object and frame, the low-res logits as
    float16 (131 kB, times the number of networks if each is kept).

    Args:
        frame: Cuts a frame of the source.
        embed: Returns a frame's embedding, float (C, h, w).
        decode: Decodes N prompts on an embedding, in model space, by each of K networks: logits
            (K, N, 1, h, w), IoU (K, N, 1). Their average is propagated.
        long_side: Side of the model image.
        rule: Rule of propagation.
        each: Keep the outputs of each network, not their average alone.
    """

    def __init__(
        self,
        frame: Callable[[int], Frame],
        embed: Callable[[Frame], torch.Tensor],
        decode: Decode,
        long_side: int,
        rule: Propagation,
        each: bool = False,
    ) -> None:
        """Keep the functions and the rule."""
        self._frame, self._embed, self._decode = frame, embed, decode
        self._long_side, self._rule, self._each = long_side, rule, each

    def __call__(self, seeds: Mapping[int, FramePrompts], count: int) -> dict[int, FrameTracks]:
        """Return the objects found on each frame.

        Args:
            seeds: Prompts by frame index; every one is an object of its own.
            count: Number of frames of the source.
        """
        found: dict[int, list[TrackedMask]] = defaultdict(list)
        started: dict[int, list[TrackedMask]] = {}
        for index, prompts in sorted(seeds.items()):
            frame = self._frame(index)
            model = Prompts.of_frame(prompts, FrameGeometry(frame.size, self._long_side))
            masks = self._masks(frame, model, prompts.classes, lowest_iou=-np.inf)
            started[index] = [mask for mask in masks if mask is not None]
            found[index] += started[index]
        if started:
            first, last = min(started), max(started)
            self._pass(range(first, count), started, found)
            self._pass(range(last, -1, -1), started, found)
        return {index: _together(masks) for index, masks in sorted(found.items()) if masks}

    def _pass(
        self,
        indices: Iterable[int],
        started: Mapping[int, list[TrackedMask]],
        found: dict[int, list[TrackedMask]],
    ) -> None:
        """Go through frames in one direction; objects join at their prompted frames."""
        active: list[TrackedMask] = []
        waiting = set(started)
        for index in indices:
            if active:
                active = self._next(self._frame(index), active)
                found[index] += active
            active += started.get(index, [])
            waiting.discard(index)
            if not active and not waiting:
                return

    def _next(self, frame: Frame, before: list[TrackedMask]) -> list[TrackedMask]:
        """Return the objects that continue on a frame."""
        limit = self._rule.frames
        before = [each for each in before if limit is None or each.passed < limit]
        if not before:
            return []
        values = np.array([each.value for each in before], np.int64)
        prompts = self._prompts(frame, before)
        masks = self._masks(frame, prompts, values, lowest_iou=self._rule.iou)
        return [
            replace(mask, passed=old.passed + 1, first_area=old.first_area)
            for old, mask in zip(before, masks, strict=True)
            if mask is not None and self._goes_on(old, mask)
        ]

    def _prompts(self, frame: Frame, before: list[TrackedMask]) -> Prompts:
        """Return prompts made of the masks of the frame before."""
        geometry = FrameGeometry(frame.size, self._long_side)
        boxes = np.stack([each.box for each in before])
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * self._rule.margin
        grown = boxes + sides * np.array([-1, -1, 1, 1], np.float32)
        limits = np.array([frame.size[1], frame.size[0]] * 2, np.float32)
        prompts = Prompts.from_boxes(geometry.boxes_to_model(np.clip(grown, 0, limits)))
        if self._rule.prompt == "box":
            return prompts
        masks = torch.stack([each.low_res.float().mean(0) for each in before])
        boxes_too = prompts.boxes if self._rule.prompt == "box+mask" else None
        return replace(prompts, boxes=boxes_too, mask_inputs=masks)

    @torch.no_grad()
    def _masks(
        self,
        frame: Frame,
        prompts: Prompts,
        values: npt.NDArray[np.int64],
        *,
        lowest_iou: float,
    ) -> list[TrackedMask | None]:
        """Decode prompts on a frame; None if the mask is empty or fails the rule."""
        geometry = FrameGeometry(frame.size, self._long_side)
        embedding = self._embed(frame)
        output = self._decode(embedding, prompts)
        masks: list[TrackedMask | None] = []
        for row, value in enumerate(values.tolist()):
            said, iou = output.low_res_logits[:, row], output.iou_predictions[:, row, 0]
            low_res = said.mean(0)
            mask = (geometry.logits_to_frame(low_res[None])[0, 0] > 0).cpu().numpy()
            if frame.valid is not None:
                mask &= frame.valid
            around = mask_box(mask)
            if around is None or float(iou.mean()) < lowest_iou:
                masks.append(None)
                continue
            box = np.array(around, np.float32)
            look = _look(embedding, low_res).cpu()
            area = int(np.count_nonzero(mask))
            if not self._each:
                said, iou = low_res[None], iou.mean(0, keepdim=True)
            masks.append(
                TrackedMask(
                    said.half().cpu(),
                    iou.cpu(),
                    box,
                    int(value),
                    area,
                    look,
                    frame.size,
                    first_area=area,
                )
            )
        return masks

    def _goes_on(self, old: TrackedMask, new: TrackedMask) -> bool:
        ratio = new.area / old.area
        similar = float(cosine_similarity(old.look, new.look, dim=0))
        within = 1 / self._rule.area <= ratio <= self._rule.area
        within &= new.area <= self._rule.growth * old.first_area
        return within and similar >= self._rule.similarity


def _look(embedding: torch.Tensor, low_res: torch.Tensor) -> torch.Tensor:
    """Return the mean (C,) of an embedding (C, h, w) over a mask of low-res logits (1, H, W)."""
    height, width = embedding.shape[-2:]
    weights = adaptive_avg_pool2d((low_res > 0).to(embedding), (height, width))[0]
    if not bool(weights.any()):  # smaller than a cell
        weights = torch.zeros_like(weights)
        place = int(adaptive_avg_pool2d(low_res.to(embedding), (height, width)).argmax())
        weights.view(-1)[place] = 1
    return (embedding * weights).sum((1, 2)) / weights.sum()


def _together(masks: list[TrackedMask]) -> FrameTracks:
    boxes = np.stack([each.box for each in masks]).astype(np.float32)
    values = np.array([each.value for each in masks], np.int64)
    low_res = torch.stack([each.low_res for each in masks], 1)
    iou = torch.stack([each.iou for each in masks], 1)
    return FrameTracks(low_res, iou, FramePrompts(boxes, values), masks[0].size)


def seeds_of(prompts: Mapping[int, FramePrompts]) -> dict[int, FramePrompts]:
    """Keep one frame of prompts that stay the same over neighbouring frames: the middle one.

    A 3D box is one object, not one on each of its frames.
    """
    runs: list[tuple[int, int, FramePrompts]] = []  # first frame, last frame, one prompt
    for index, found in sorted(prompts.items()):
        for row in range(len(found)):
            one = found[np.array([row])]
            for number, (first, last, other) in enumerate(runs):
                if last == index - 1 and _same(one, other):
                    runs[number] = first, index, other
                    break
            else:
                runs.append((index, index, one))
    middles: dict[int, list[FramePrompts]] = defaultdict(list)
    for first, last, one in runs:
        middles[(first + last) // 2].append(one)
    return {
        index: replace(joined_frame_prompts(parts), object_ids=None)
        for index, parts in sorted(middles.items())
    }


def _same(first: FramePrompts, second: FramePrompts) -> bool:
    same = first.classes[0] == second.classes[0]
    points = first.point_coords is None and second.point_coords is None
    return bool(same and points and np.array_equal(first.boxes, second.boxes))
