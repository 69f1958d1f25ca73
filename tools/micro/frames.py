"""From drawn scenes to training and test frames: geometry, low resolution, contrast, prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Rng = np.random.Generator

VISIBLE = 0.5
"""Objects whose edge has less contrast are in the scene, but nobody is asked to find them."""


@dataclass
class FrameSample:
    """One frame of `side` pixels with P objects.

    Attributes:
        image: 3xSxS float32, 0-255; 0 where not valid.
        valid: 1xSxS float32; 0 in the padding at the right and bottom.
        masks: PxHxW bool on the frame's native grid (without padding).
        targets: PxTxT float32 in {0, 1}, T = S / 4, on the padded frame.
        boxes: Px4 float32 xyxy, exact, in frame pixels.
        scale: Frame pixels per native pixel.
        ids: TxT int64: the instance under each low-resolution pixel; -1 in the padding.
    """

    image: Tensor
    valid: Tensor
    masks: Tensor
    targets: Tensor
    boxes: Tensor
    scale: float
    ids: Tensor


def make_frame(
    scene: dict, rng: Rng, side: int, objects: int, plain: bool = False
) -> FrameSample | None:
    """Makes a frame of a packed scene, or None when no object of it is usable.

    Args:
        scene: As `scenes.pack` returns it.
        rng: Source of every choice.
        side: Frame side S in pixels.
        objects: How many objects P; drawn with replacement when the scene has fewer.
        plain: Without zooming into the scene (for tests).
    """
    image, instances = _as_float(scene["image"]), scene["instances"]
    image, instances = _turn(rng, image, instances)
    image, instances = _window(rng, image, instances, plain)
    longest = max(instances.shape)
    native = min(longest, side, int(np.exp(rng.uniform(np.log(28), np.log(256)))))
    image, instances = _to_native(image, instances, native / longest)
    image = _contrast(rng, image)
    order = [scene["objects"][i] for i in rng.permutation(len(scene["objects"]))]
    usable = _usable_masks(image, instances, order, native, objects)
    if not usable:
        return None
    scale = side / max(instances.shape)
    height, width = (min(side, round(n * scale)) for n in instances.shape)
    frame = torch.zeros(3, side, side)
    resized = F.interpolate(image[None], size=(height, width), mode="bilinear")[0]
    frame[:, :height, :width] = resized.expand(3, -1, -1)
    valid = torch.zeros(1, side, side)
    valid[:, :height, :width] = 1
    masks = torch.stack([usable[i % len(usable)] for i in range(objects)])
    ids = torch.full((side // 4, side // 4), -1)
    height, width = (min(side // 4, round(n * scale / 4)) for n in instances.shape)
    small = F.interpolate(instances[None, None].float(), size=(height, width), mode="nearest-exact")
    ids[:height, :width] = small[0, 0].long()
    return FrameSample(
        image=frame,
        valid=valid,
        masks=masks,
        targets=_targets(masks, side // 4, scale / 4),
        boxes=boxes_of(masks, scale),
        scale=scale,
        ids=ids,
    )


def boxes_of(masks: Tensor, scale: float) -> Tensor:
    """Exact boxes (outer pixel edges) of PxHxW masks, xyxy, times `scale`."""
    boxes = []
    for mask in masks:
        rows = mask.any(1).nonzero()[:, 0]
        columns = mask.any(0).nonzero()[:, 0]
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(boxes, dtype=torch.float32) * scale


def edge_contrast(image: Tensor, mask: Tensor) -> float:
    """Return the distance between the sides of an object's edge, in standard deviations of a pixel.

    Args:
        image: CxHxW float32, native grid; the channel that shows it best counts.
        mask: HxW bool.
    """
    width = max(1, int(0.08 * float(mask.sum()) ** 0.5))
    kernel, inner = 2 * width + 1, mask.float()[None, None]
    grown = F.max_pool2d(inner, kernel, 1, width)[0, 0] > 0
    shrunk = -F.max_pool2d(-inner, kernel, 1, width)[0, 0] > 0
    inside, outside = image[:, mask & ~shrunk], image[:, grown & ~mask]
    if inside.shape[1] < 2 or outside.shape[1] < 2:
        return 0.0
    step = (inside.mean(1) - outside.mean(1)).abs()
    spread = ((inside.var(1) + outside.var(1)) / 2 + 1).sqrt()
    return float((step / spread).max())


def jitter_boxes(rng: Rng, boxes: Tensor, low: Tensor, high: Tensor, exact: float) -> Tensor:
    """Moves box edges: a share stays exact, most others move by some 5 %, a few are loose."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    shares = [exact, 0.6 * (1 - exact), 0.4 * (1 - exact)]
    amount = rng.choice([0.0, 0.04, 0.08], size=(len(boxes), 1), p=shares)
    shift = rng.standard_normal((len(boxes), 4)) * amount
    loose = rng.random((len(boxes), 1)) < 0.1
    shift = np.where(loose, rng.uniform(0, 0.25, (len(boxes), 4)) * [-1, -1, 1, 1], shift)
    moved = boxes + torch.from_numpy(shift.astype(np.float32)) * sides
    return torch.minimum(torch.maximum(moved, low), high)


def draw_points(
    rng: Rng, mask: Tensor, scale: float, positive: int, negative: int
) -> tuple[Tensor, Tensor]:
    """Draws clicks: positives away from the edge where possible, negatives around the object."""
    inner = mask.float()[None, None]
    inner = (F.avg_pool2d(inner, 3, 1, 1, count_include_pad=False) > 0.99)[0, 0]
    inside = (inner if inner.sum() >= 3 and rng.random() < 0.8 else mask).nonzero()
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    grow = max(2, int(0.2 * max(len(rows), len(columns))))
    around = torch.zeros_like(mask)
    around[
        max(0, int(rows[0]) - grow) : int(rows[-1]) + grow + 1,
        max(0, int(columns[0]) - grow) : int(columns[-1]) + grow + 1,
    ] = True
    outside = (around & ~mask).nonzero()
    if len(outside) == 0:
        positive, negative = positive + negative, 0
    picks = [inside[rng.integers(len(inside))] for _ in range(positive)]
    picks += [outside[rng.integers(len(outside))] for _ in range(negative)]
    spots = torch.stack(picks).flip(1).float() + torch.from_numpy(
        rng.random((len(picks), 2)).astype(np.float32)
    )
    labels = torch.tensor([1.0] * positive + [0.0] * negative)
    return spots * scale - 0.5, labels


# ---------------------------------------------------------------- steps of make_frame


def _as_float(image: Tensor) -> Tensor:
    return (image[None] if image.ndim == 2 else image.permute(2, 0, 1)).float()


def _turn(rng: Rng, image: Tensor, instances: Tensor) -> tuple[Tensor, Tensor]:
    turns = int(rng.integers(0, 4))
    image, instances = torch.rot90(image, turns, (1, 2)), torch.rot90(instances, turns, (0, 1))
    if rng.random() < 0.5:
        image, instances = image.flip(2), instances.flip(1)
    return image, instances


def _window(rng: Rng, image: Tensor, instances: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """Zooms into the scene, and cuts one side shorter so that the frame must be padded."""
    side = instances.shape[0]
    longest = side if plain or rng.random() < 0.5 else int(side * rng.uniform(0.5, 1))
    height = width = longest
    if rng.random() < 0.4:
        shorter = int(longest * rng.uniform(0.6, 1))
        height, width = (shorter, longest) if rng.random() < 0.5 else (longest, shorter)
    top = int(rng.integers(0, side - height + 1))
    left = int(rng.integers(0, side - width + 1))
    rows, columns = slice(top, top + height), slice(left, left + width)
    return image[:, rows, columns], instances[rows, columns]


def _to_native(image: Tensor, instances: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    height, width = (max(8, math.floor(n * factor + 0.5)) for n in instances.shape)
    if (height, width) == tuple(instances.shape):
        return image, instances
    image = F.interpolate(image[None], size=(height, width), mode="area")[0]
    small = F.interpolate(instances[None, None].float(), size=(height, width), mode="nearest-exact")
    return image, small[0, 0].to(torch.uint8)


def _usable_masks(
    image: Tensor, instances: Tensor, objects: list[list[int]], native: int, most: int
) -> list[Tensor]:
    """The first `most` objects that can be seen, and are neither specks nor nearly all there is."""
    usable: list[Tensor] = []
    index = instances.long()
    counts = torch.bincount(index.flatten(), minlength=256).tolist()
    for ids in objects:
        area = sum(counts[i] for i in ids)
        if area < max(6, 2e-4 * native * native) or area > 0.55 * instances.numel():
            continue
        member = torch.zeros(256, dtype=torch.bool)
        member[ids] = True
        mask = member[index]
        height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
        large = max(height, width) >= max(3, 0.02 * native)
        if large and edge_contrast(image, mask) >= VISIBLE:
            usable.append(mask)
        if len(usable) == most:
            break
    return usable


def _contrast(rng: Rng, image: Tensor) -> Tensor:
    """Noise on the native grid, then the stretch, gamma and sign of a display."""
    if rng.random() < 0.5:
        noise = rng.standard_normal(tuple(image.shape)).astype(np.float32)
        image = image + float(np.exp(rng.uniform(0, np.log(10)))) * torch.from_numpy(noise)
    if rng.random() < 0.6:
        some = image[:, ::2, ::2].numpy()
        low, high = np.quantile(some, [0.005 * rng.random(), 1 - 0.01 * rng.random()])
    else:
        low, high = rng.uniform(-40, 30), rng.uniform(225, 300)
    image = ((image - float(low)) / max(float(high - low), 20.0)).clamp(0, 1)
    image = image ** float(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.2:
        image = 1 - image
    return 255 * image


def _targets(masks: Tensor, side: int, scale: float) -> Tensor:
    """Masks on the padded low-resolution grid."""
    height, width = (min(side, round(n * scale)) for n in masks.shape[1:])
    mode = "nearest-exact" if scale >= 1 else "area"
    small = F.interpolate(masks[None].float(), size=(height, width), mode=mode)[0]
    targets = torch.zeros(len(masks), side, side)
    threshold = small.amax((1, 2), keepdim=True).clamp(max=1) / 2  # a speck still leaves a trace
    targets[:, :height, :width] = (small >= threshold).float()
    return targets
