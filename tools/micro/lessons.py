"""Lessons of the micro model, one per step: prompted masks, and borders between instances."""

from __future__ import annotations

from dataclasses import dataclass

import crops
import frames
import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor, nn

from samonai.sam.micro import MICRO_DIM

CLICKED = 2
"""Objects per image that are asked for by clicks too."""

WHOLE_FRAME = 1024
"""Side of a whole frame in pixels."""


# ---------------------------------------------------------------- loss


def mask_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Dice plus cross-entropy balanced around the object, per mask.

    Args:
        logits: NxMxTxT.
        targets: NxTxT in {0, 1}.

    Returns:
        Losses NxM and true IoUs NxM.
    """
    target = targets[:, None].expand_as(logits)
    probability = logits.sigmoid()
    overlap = (probability * target).sum((2, 3))
    size = probability.sum((2, 3)) + target.sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (size + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = _near_weights(targets)[:, None]
    with torch.no_grad():
        hard = logits > 0
        both = (hard * target).sum((2, 3))
        iou = both / (hard.sum((2, 3)) + target.sum((2, 3)) - both).clamp(min=1)
    return dice + (entropy * weight).sum((2, 3)), iou


def _near_weights(targets: Tensor) -> Tensor:
    """Weights NxTxT: total 1 within each object's widened box, total 0.5 outside it."""
    rows, columns = targets.amax(2), targets.amax(1)
    near = _widen(rows)[:, :, None] * _widen(columns)[:, None, :]
    inside = near / near.sum((1, 2), keepdim=True).clamp(min=1)
    far = 1 - near
    return inside + 0.5 * far / far.sum((1, 2), keepdim=True).clamp(min=1)


def _widen(extent: Tensor) -> Tensor:
    """Widens the occupied stretch of each NxT row by about a fifth at both ends."""
    side = extent.shape[1]
    index = torch.arange(side, dtype=torch.float32, device=extent.device)
    first = torch.where(extent > 0, index, float(side)).amin(1, keepdim=True)
    last = torch.where(extent > 0, index, -1.0).amax(1, keepdim=True)
    margin = 0.2 * (last - first + 1) + 2
    return ((index >= first - margin) & (index <= last + margin)).float()


def prompt_loss(
    logits: Tensor, iou_predictions: Tensor, targets: Tensor, single: float
) -> tuple[Tensor, Tensor]:
    """Single mask (weight `single`), best of three, IoU head; and the single masks' IoUs."""
    losses, iou = mask_losses(logits, targets)
    best = losses[:, 1:].amin(1)
    head = F.mse_loss(iou_predictions, iou)
    loss = single * losses[:, 0].mean() + (1.2 - single) * best.mean() + 0.3 * head
    return loss, iou[:, 0].mean()


# ---------------------------------------------------------------- targets of the encoder


class EncoderTeacher(nn.Module):
    """Dense lessons for the encoder; thrown away after training.

    From the image embedding alone: where instances meet, at the resolution of the logits, and
    which patches of a window belong to one instance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv2d(MICRO_DIM, 16, 1)
        self.likeness = nn.Conv2d(MICRO_DIM, 32, 1)
        self.scale = nn.Parameter(torch.tensor([4.0, -1.0]))

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """The loss of BxCxhxw embeddings, given the instances Bx(4h)x(4w)."""
        meeting = torch.zeros_like(ids, dtype=torch.bool)
        down, across = ids[:, 1:] != ids[:, :-1], ids[:, :, 1:] != ids[:, :, :-1]
        meeting[:, 1:] |= down
        meeting[:, :-1] |= down
        meeting[:, :, 1:] |= across
        meeting[:, :, :-1] |= across
        found = F.pixel_shuffle(self.edges(embeddings), 4)[:, 0]
        edge = F.binary_cross_entropy_with_logits(
            found, meeting.float(), pos_weight=found.new_tensor(3.0)
        )
        code = _windows(F.normalize(self.likeness(embeddings), dim=1))
        patch = _windows(ids[:, None, 2::4, 2::4])
        alike = self.scale[0] * code @ code.transpose(1, 2) + self.scale[1]
        same = (patch == patch.transpose(1, 2)).float()
        return edge + F.binary_cross_entropy_with_logits(alike, same)


def _windows(field: Tensor) -> Tensor:
    """BxCxhxw to one row of C per patch, in windows of 8 x 8: Nx64xC."""
    side = crops.WINDOW
    return (
        field.unfold(2, side, side)
        .unfold(3, side, side)
        .permute(0, 2, 3, 4, 5, 1)
        .flatten(3, 4)
        .flatten(0, 2)
    )


# ---------------------------------------------------------------- one step


def placing_loss(sam: Sam, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """The decoder's first lesson, without any image: fill the box, a disc around a click.

    The embeddings are noise, so a step costs a small part of a full one, and the decoder learns
    what a coordinate is before the encoder has anything to say.
    """
    tokens = int(rng.choice([8, 16], p=[0.7, 0.3]))
    count = 40 if tokens == 8 else 14
    side = tokens * crops.PATCH
    row, column = (int(i) * crops.WINDOW for i in rng.integers(0, (64 - tokens) // 8 + 1, 2))
    corner = torch.tensor([column, row], dtype=torch.float32) * crops.PATCH
    size = side * np.exp(rng.uniform(np.log(0.1), np.log(0.9), (count, 2)))
    start = rng.uniform(0, 1, (count, 2)) * (side - size)
    boxes = torch.from_numpy(np.concatenate([start, start + size], 1).astype(np.float32))
    grid = 4 * torch.arange(side // 4, dtype=torch.float32) + 2
    noise = rng.standard_normal((count, MICRO_DIM, tokens, tokens)).astype(np.float32)
    device = sam.pixel_mean.device
    embeddings = torch.from_numpy(noise).to(device) * float(rng.uniform(0.1, 1.0))
    batch = crops.PromptBatch(torch.arange(count, device=device))
    if rng.random() < 0.75:
        inside_x = (grid > boxes[:, :1]) & (grid < boxes[:, 2:3])
        inside_y = (grid > boxes[:, 1:2]) & (grid < boxes[:, 3:])
        targets = (inside_y[:, :, None] & inside_x[:, None, :]).float()
        batch.boxes = (boxes + corner.repeat(2)).to(device)
        name = "fill"
    else:
        points = torch.from_numpy(rng.uniform(0, side, (count, 2)).astype(np.float32))
        square_x = (grid - points[:, :1]) ** 2
        square_y = (grid - points[:, 1:]) ** 2
        targets = (square_y[:, :, None] + square_x[:, None, :] < (side / 6) ** 2).float()
        batch.points = (points + corner)[:, None].to(device)
        batch.point_labels = torch.ones(count, 1, device=device)
        name = "disc"
    logits, quality = crops.decode(sam, embeddings, batch, (row, column))
    loss, iou = prompt_loss(logits, quality, targets.to(device), 0.9)
    return loss, {f"{name}_": iou.item()}


@dataclass(frozen=True)
class Round:
    """Prompts of the decoder, and the quality of its masks.

    Attributes:
        index: N, int64: the image of each prompt.
        targets: NxTxT in {0, 1}.
        boxes: Nx4 in frame pixels, or None where clicks asked.
        logits: NxMxTxT.
        loss: Of all prompts together.
        iou: Mean IoU of the single masks.
    """

    index: Tensor
    targets: Tensor
    boxes: Tensor | None
    logits: Tensor
    loss: Tensor
    iou: Tensor


@dataclass(frozen=True)
class Batch:
    """Crops that the encoder has seen.

    Attributes:
        sam: The model.
        samples: The crops, each with the same number of objects.
        offset: (row, column) of all of them in the whole frame, in tokens.
        embeddings: BxCxhxw.
    """

    sam: Sam
    samples: list[frames.FrameSample]
    offset: tuple[int, int]
    embeddings: Tensor

    @property
    def objects(self) -> int:
        """Objects per crop."""
        return len(self.samples[0].targets)

    @property
    def corner(self) -> Tensor:
        """Where the crops begin in the whole frame: (x, y) in pixels."""
        row, column = self.offset
        return torch.tensor([column, row], dtype=torch.float32) * crops.PATCH

    def ask(self, prompts: crops.PromptBatch, targets: Tensor, single: float = 0.9) -> Round:
        """Decode N objects; the single mask has the weight `single`."""
        logits, quality = crops.decode(self.sam, self.embeddings, prompts, self.offset)
        loss, iou = prompt_loss(logits, quality, targets, single)
        return Round(prompts.image_index, targets, prompts.boxes, logits, loss, iou)


def training_loss(
    sam: Sam,
    teacher: EncoderTeacher,
    samples: list[frames.FrameSample],
    offset: tuple[int, int],
    rng: np.random.Generator,
    exact: float,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch: boxes always, clicks and a second round now and then."""
    device = sam.pixel_mean.device
    images = torch.stack([s.image for s in samples]).to(device)
    valid = torch.stack([s.valid for s in samples]).to(device)
    # Whole frames teach the decoder about large objects; every other one spares the encoder.
    decoder_only = images.shape[-1] == WHOLE_FRAME and rng.random() < 0.5
    with torch.set_grad_enabled(not decoder_only):
        embeddings = crops.encode(sam, crops.normalise(sam, images, valid), offset)
    batch = Batch(sam, samples, offset, embeddings)
    asked = _ask_by_boxes(batch, rng, exact)
    loss, figures = asked.loss, {"box": asked.iou.item()}
    if not decoder_only:
        lesson = teacher(embeddings, torch.stack([s.ids for s in samples]).to(device))
        loss = loss + 0.7 * lesson
        figures["lesson"] = lesson.item()
    if rng.random() < 0.45:
        asked = _ask_by_clicks(batch, asked, rng)
        loss = loss + 0.5 * asked.loss
        figures["points"] = asked.iou.item()
    if rng.random() < 0.3:
        asked = _ask_again(batch, asked, rng)
        loss = loss + 0.5 * asked.loss
        figures["again"] = asked.iou.item()
    return loss, figures


def _ask_by_boxes(batch: Batch, rng: np.random.Generator, exact: float) -> Round:
    """Prompt all objects by their boxes, of which a share `exact` is not moved."""
    device, samples = batch.embeddings.device, batch.samples
    index = torch.arange(len(samples), device=device).repeat_interleave(batch.objects)
    targets = torch.cat([s.targets for s in samples]).to(device)
    boxes = torch.cat([s.boxes for s in samples])
    side = torch.tensor(float(samples[0].image.shape[-1]))
    boxes = frames.jitter_boxes(rng, boxes, torch.tensor(0.0), side, exact)
    boxes = (boxes + batch.corner.repeat(2)).to(device)
    return batch.ask(crops.PromptBatch(index, boxes=boxes), targets)


def _ask_by_clicks(batch: Batch, before: Round, rng: np.random.Generator) -> Round:
    """Prompt the last objects of each crop by clicks, few of them ambiguous."""
    device = batch.embeddings.device
    rows = torch.arange(len(before.index), device=device).view(-1, batch.objects)
    picked = rows[:, -CLICKED:].flatten()
    points, labels = (part.to(device) for part in _clicks(batch, rng))
    prompts = crops.PromptBatch(before.index[picked], points=points, point_labels=labels)
    return batch.ask(prompts, before.targets[picked], 0.5 if points.shape[1] < 3 else 0.9)


def _ask_again(batch: Batch, before: Round, rng: np.random.Generator) -> Round:
    """Prompt every other object again, with the last mask and a corrective click."""
    device = batch.embeddings.device
    picked = torch.arange(len(before.index), device=device)[::2]
    previous, targets = before.logits[picked, :1].detach(), before.targets[picked]
    click, label = _corrections(rng, (previous[:, 0] > 0).cpu(), (targets > 0.5).cpu())
    prompts = crops.PromptBatch(
        before.index[picked],
        points=(click + batch.corner).to(device),
        point_labels=label.to(device),
        boxes=None if before.boxes is None else before.boxes[picked],
        masks=previous,
    )
    return batch.ask(prompts, targets)


def _clicks(batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One to five clicks on the last objects of each crop."""
    positive = int(rng.choice([1, 2, 3], p=[0.55, 0.2, 0.25]))
    negative = int(rng.choice([0, 1, 2], p=[0.6, 0.2, 0.2]))
    points, labels = [], []
    for sample in batch.samples:
        for mask in sample.masks[batch.objects - CLICKED :]:
            spots, kinds = frames.draw_points(rng, mask, sample.scale, positive, negative)
            points.append(spots + batch.corner)
            labels.append(kinds)
    return torch.stack(points), torch.stack(labels)


def _corrections(rng: np.random.Generator, found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return one click per object, in the larger of the missed and the wrongly included part."""
    points, labels = [], []
    for f, w in zip(found, wanted, strict=True):
        missed, wrong = w & ~f, f & ~w
        area, label = (missed, 1.0) if missed.sum() >= wrong.sum() else (wrong, 0.0)
        if not area.any():
            area, label = (w, 1.0) if w.any() else (~w, 0.0)
        spots = area.nonzero()
        spot = spots[int(rng.integers(len(spots)))]
        points.append([4 * float(spot[1]) + 1.5, 4 * float(spot[0]) + 1.5])
        labels.append(label)
    return torch.tensor(points)[:, None], torch.tensor(labels)[:, None]
