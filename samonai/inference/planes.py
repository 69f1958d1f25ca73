"""One volume from three planes: the logits of each plane, averaged on the voxel grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.domains.base import Domain
from samonai.frame import Frame
from samonai.inference.answers import Answers, FrameAnswer, FrameObserver
from samonai.inference.inferer import SourceInferer
from samonai.prompts import FramePrompts
from samonai.sam.network import SamNetwork

# Of a frame that was not asked, or said no more: beyond this no logit changes anything.
_CERTAIN = 10.0

Half = npt.NDArray[np.float16]


def fuse_planes(
    source: Any,
    domain: Domain,
    planes: Sequence[SourceInferer],
    networks: Sequence[SamNetwork],
    asked: Mapping[int, FramePrompts],
    answers: Answers,
    observers: Sequence[FrameObserver] = (),
) -> npt.NDArray[np.int32]:
    """Average each class's logits over planes, and take the highest.

    In memory are one float16 volume of logits, and with observers one more per class and network.

    Args:
        source: The volume.
        domain: Cuts the frames that prompts are for.
        planes: An inferer for each plane, that of `domain` among them.
        networks: Who is asked, on one encoder.
        asked: Prompts by frame index.
        answers: Answers them; other planes are asked for what boxes cut out of them.
        observers: See the average over the planes of what each network said, a row per class, on
            the frames that were asked or have something.

    Returns:
        int32 (I, J, K), class per voxel.
    """
    own = _axis(domain)
    best, label = np.zeros(source.data.shape, np.float16), np.zeros(source.data.shape, np.int32)
    kept: dict[int, Half] = {}
    for value in sorted({int(v) for found in asked.values() for v in found.classes}):
        of_class = {i: p for i, f in asked.items() if (p := _of_class(f, value)) is not None}
        total = np.zeros(best.shape, np.float16)
        each = np.zeros((len(networks) if observers else 0, *best.shape), np.float16)
        for plane in planes:
            axis = _axis(plane.domain)
            if axis == own:
                prompts, answer = of_class, _rows_of_class(answers, asked, value)
            else:
                prompts = across(of_class, own, axis, best.shape)
                answer = plane.answers(source, networks, each=bool(observers))
            _add_plane(total, each, plane.domain, source, prompts, answer)
        mean = total / np.float16(len(planes))
        higher = mean > best
        if source.valid is not None:
            higher &= source.valid
        best[higher], label[higher] = mean[higher], value
        if observers:
            kept[value] = (each / len(planes)).astype(np.float16)
    if kept:
        _show(observers, source, domain, asked, label, kept)
    return label


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


def _add_plane(
    total: Half,
    each: Half,
    domain: Domain,
    source: Any,
    prompts: Mapping[int, FramePrompts],
    answer: Answers,
) -> None:
    """Add one plane's logits of a class to (I, J, K) on average, and to (K, I, J, K) of each.

    A frame that is not asked says that the class is not there.
    """
    for index in range(domain.frame_count(source)):
        place = _place(domain, index)
        # Frames are (rows, columns), that is (y, x).
        targets = [total[place].T, *(one[place].T for one in each)]
        if index not in prompts:
            for target in targets:
                target -= np.float16(_CERTAIN)
            continue
        said = answer(domain.frame(source, index), prompts[index]).scores
        for target, scores in zip(targets, [said.mean(0), *said[: len(each)]], strict=True):
            target += scores.amax(0).clamp(-_CERTAIN, _CERTAIN).numpy().astype(np.float16)


def _show(
    observers: Sequence[FrameObserver],
    source: Any,
    domain: Domain,
    asked: Mapping[int, FramePrompts],
    label: npt.NDArray[np.int32],
    kept: Mapping[int, Half],
) -> None:
    """Let observers see the fused logits, (K, I, J, K) by class, frame by frame."""
    values = np.array(sorted(kept), np.int64)
    for index in range(domain.frame_count(source)):
        place = _place(domain, index)
        if index not in asked and not label[place].any():
            continue
        rows = [kept[value][(slice(None), *place)].transpose(0, 2, 1) for value in values.tolist()]
        logits = torch.from_numpy(np.stack(rows, 1)).float()
        boxes = np.stack([_box_around(asked.get(index), value) for value in values.tolist()])
        for observer in observers:
            observer.observe(
                domain.frame(source, index),
                FramePrompts(boxes, values),
                FrameAnswer(logits, logits),
            )


def _axis(domain: Domain) -> int:
    return int(domain.axis)  # type: ignore[attr-defined]


def _place(domain: Domain, index: int) -> tuple[int | slice, ...]:
    """Return what takes a frame's voxels out of a volume."""
    place: list[int | slice] = [slice(None)] * 3
    place[_axis(domain)] = index
    return tuple(place)


def _of_class(prompts: FramePrompts, value: int) -> FramePrompts | None:
    rows = np.flatnonzero(prompts.classes == value)
    return prompts[rows] if len(rows) else None


def _box_around(prompts: FramePrompts | None, value: int) -> npt.NDArray[np.float32]:
    """Return xyxy around a class's boxes; NaN where it has none, or was asked otherwise."""
    of_class = None if prompts is None else _of_class(prompts, value)
    if of_class is None:
        return np.full(4, np.nan, np.float32)
    return np.concatenate([of_class.boxes[:, :2].min(0), of_class.boxes[:, 2:].max(0)])


def _rows_of_class(answers: Answers, asked: Mapping[int, FramePrompts], value: int) -> Answers:
    """Return what is answered to one class's rows, of what is answered to all classes together."""

    def of_class(frame: Frame, _: FramePrompts) -> FrameAnswer:
        whole = asked[frame.location.index]
        rows = torch.from_numpy(np.flatnonzero(whole.classes == value))
        said = answers(frame, whole)
        return FrameAnswer(said.scores[:, rows], said.logits[:, rows])

    return of_class
