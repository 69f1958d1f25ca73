"""Three-plane inference: the logits of each plane, averaged on the voxel grid."""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from samonai.domains.base import Domain, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.frame_outputs import DecodeFrame, FrameObserver, FrameOutput
from samonai.inference.inferer import SourceInferer
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import SamNetwork

# Limit of the logits, and value of frames without prompts.
_CERTAIN = 10.0

# Bytes of logits that are summed at a time. Further classes need another pass, which encodes
# frames that are not in the store anew.
_ROOM = 2**30

Half = npt.NDArray[np.float16]
Corner = tuple[int, int]
"""The (x, y) of a frame's first pixel in the volume's plane."""


class Voxels(Protocol):
    """A source on a voxel grid, as domains with `Planes` read it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (I, J, K)."""
        ...

    @property
    def valid(self) -> npt.NDArray[np.bool_] | None:
        """Return bool (I, J, K), False on voxels without data; None: all have data."""
        ...


def fuse_planes(
    source: SourceT,
    domain: Domain[SourceT],
    planes: Sequence[SourceInferer[SourceT]],
    networks: Sequence[SamNetwork],
    asked: Mapping[int, FramePrompts],
    decode: DecodeFrame,
    observers: Sequence[FrameObserver] = (),
) -> npt.NDArray[np.int32]:
    """Average each class's logits over planes, and take the highest.

    Each frame is encoded and decoded once for all classes whose logits fit into 1 GiB together: a
    float16 volume per class, and with observers one more per class and network, which is kept.

    Args:
        source: The volume.
        domain: Cuts the frames of the prompts.
        planes: An inferer for each plane, that of `domain` among them.
        networks: Networks on one encoder.
        asked: Prompts by frame index.
        decode: Decodes them, or those of some classes; the other planes are prompted with the
            sections of their boxes.
        observers: Get each network's average over the planes, a row per class, on
            the frames with prompts or predicted voxels.

    Returns:
        int32 (I, J, K), class per voxel.
    """
    voxels = cast(Voxels, source)
    shape = voxels.shape
    best, label = np.zeros(shape, np.float16), np.zeros(shape, np.int32)
    kept: dict[int, Half] = {}
    seen = len(networks) if observers else 0
    values = sorted({int(value) for found in asked.values() for value in found.classes})
    at_once = max(1, _ROOM // (best.nbytes * (1 + seen)))
    for start in range(0, len(values), at_once):
        few = values[start : start + at_once]
        total = np.zeros((len(few), 1 + seen, *shape), np.float16)
        of_few = _of_classes(asked, few)
        for plane in planes:
            prompts, decode_plane = of_few, decode
            if _axis(plane.domain) != _axis(domain):
                corners = _corner(domain, source), _corner(plane.domain, source)
                prompts = across(of_few, _axis(domain), _axis(plane.domain), shape, corners)
                decode_plane = plane.frame_outputs(source, networks, each=bool(observers))
            _add_plane(total, few, plane.domain, source, prompts, decode_plane)
        total /= np.float16(len(planes))
        for value, mean in zip(few, total, strict=True):
            higher = mean[0] > best
            if voxels.valid is not None:
                higher &= voxels.valid
            best[higher], label[higher] = mean[0][higher], value
            if observers:
                kept[value] = mean[1:]
    if kept:
        _show(observers, source, domain, asked, label, kept)
    return label


def across(
    prompts: Mapping[int, FramePrompts],
    own: int,
    axis: int,
    shape: tuple[int, ...],
    corners: tuple[Corner, Corner] = ((0, 0), (0, 0)),
) -> dict[int, FramePrompts]:
    """Convert the boxes of each class on frames across one axis to frames across another.

    A box is a slab one voxel thick; a frame of the other plane gets the box around its section
    of a class's slabs.

    Args:
        prompts: Boxes by frame index, xyxy on frames across `own`.
        own: Array axis that these frames lie across.
        axis: Array axis of the other plane.
        shape: (I, J, K) of the volume.
        corners: Offsets of frames across `own` and across `axis` in the volume's plane.

    Returns:
        On each frame across `axis` that intersects slabs, one box of each of their classes.
    """
    slabs: dict[int, list[npt.NDArray[np.float64]]] = {}
    x, y = (a for a in range(3) if a != own)
    for index, found in prompts.items():
        for box, value in zip(found.boxes, found.classes.tolist(), strict=True):
            if np.isnan(box).any():
                continue
            slab = np.zeros(6)
            slab[[own, own + 3]] = index, index + 1
            slab[[x, y, x + 3, y + 3]] = box + np.tile(corners[0], 2)
            slabs.setdefault(value, []).append(slab)
    wanted_x, wanted_y = (a for a in range(3) if a != axis)
    cut: dict[int, dict[int, npt.NDArray[np.float64]]] = {}
    for value, of_class in sorted(slabs.items()):
        boxes = np.array(of_class)
        for index in range(shape[axis]):
            here = boxes[(boxes[:, axis] < index + 1) & (boxes[:, axis + 3] > index)]
            if len(here):
                low = here[:, [wanted_x, wanted_y]].min(0)
                high = here[:, [wanted_x + 3, wanted_y + 3]].max(0)
                box = np.concatenate([low, high]) - np.tile(corners[1], 2)
                cut.setdefault(index, {})[value] = box
    return {
        index: FramePrompts(np.array(list(found.values()), np.float32), np.array(list(found)))
        for index, found in sorted(cut.items())
    }


def _add_plane(
    total: Half,
    values: Sequence[int],
    domain: Domain[SourceT],
    source: SourceT,
    prompts: Mapping[int, FramePrompts],
    decode_plane: DecodeFrame,
) -> None:
    """Add one plane's logits to (V, 1 + K, I, J, K): of V classes, the average and each network's.

    A frame without prompts of a class has the lowest logit for it.
    """
    for index in range(domain.frame_count(source)):
        # Frames are (rows, columns), that is (y, x).
        targets = total[(slice(None), slice(None), *_place(domain, index))].swapaxes(2, 3)
        asked = prompts.get(index)
        if asked is None:
            targets -= np.float16(_CERTAIN)
            continue
        frame = domain.frame(source, index)
        targets = targets[(..., *frame.part)]  # voxels outside of all frames stay at 0
        said = decode_plane(frame, asked).scores
        each = torch.cat([said.mean(0, keepdim=True), said[: targets.shape[1] - 1]])
        each = each.clamp(-_CERTAIN, _CERTAIN)
        for target, value in zip(targets, values, strict=True):
            rows = torch.from_numpy(np.flatnonzero(asked.classes == value))
            if len(rows):
                target += each[:, rows].amax(1).numpy().astype(np.float16)
            else:
                target -= np.float16(_CERTAIN)


def _show(
    observers: Sequence[FrameObserver],
    source: SourceT,
    domain: Domain[SourceT],
    asked: Mapping[int, FramePrompts],
    label: npt.NDArray[np.int32],
    kept: Mapping[int, Half],
) -> None:
    """Pass the fused logits, (K, I, J, K) by class, to the observers frame by frame."""
    values = np.array(sorted(kept), np.int64)
    for index in range(domain.frame_count(source)):
        place = _place(domain, index)
        if index not in asked and not label[place].any():
            continue
        frame = domain.frame(source, index)
        planes = [kept[value][(slice(None), *place)] for value in values.tolist()]
        rows = [plane.transpose(0, 2, 1)[(..., *frame.part)] for plane in planes]
        logits = torch.from_numpy(np.stack(rows, 1)).float()
        boxes = np.stack([_box_around(asked.get(index), value) for value in values.tolist()])
        for observer in observers:
            observer.observe(frame, FramePrompts(boxes, values), FrameOutput(logits, logits))


def _axis(domain: Domain[SourceT]) -> int:
    planes = capabilities(domain).planes
    assert planes is not None, "an inferer of planes has a domain of volumes"
    return planes.axis


def _corner(domain: Domain[SourceT], source: SourceT) -> Corner:
    row, column = domain.frame(source, 0).location.origin
    return column, row


def _place(domain: Domain[SourceT], index: int) -> tuple[int | slice, ...]:
    """Return the index of a frame's voxels in a volume."""
    place: list[int | slice] = [slice(None)] * 3
    place[_axis(domain)] = index
    return tuple(place)


def _of_classes(
    prompts: Mapping[int, FramePrompts], values: Sequence[int]
) -> dict[int, FramePrompts]:
    """Return the rows of some classes, without frames that have none."""
    chosen = {
        index: found[np.flatnonzero(np.isin(found.classes, values))]
        for index, found in prompts.items()
    }
    return {index: found for index, found in chosen.items() if len(found)}


def _box_around(prompts: FramePrompts | None, value: int) -> npt.NDArray[np.float32]:
    """Return xyxy around a class's boxes; NaN if it has none, or other prompts."""
    if prompts is None or value not in prompts.classes:
        return np.full(4, np.nan, np.float32)
    boxes = prompts.boxes[prompts.classes == value]
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
