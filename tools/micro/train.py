"""Trains the micro model from scratch on drawn scenes, on a CPU or a GPU.

    python tools/micro/scenes.py BANK --count 8000 &
    python tools/micro/train.py --bank BANK --out OUT --minutes 70 --workers 2 --rank 0 &
    python tools/micro/train.py --bank BANK --out OUT --minutes 70 --workers 2 --rank 1

One process of one thread per core: on a shared machine threads spend their time waiting for each
other at every operation, processes only once per step.

Starts on crops of 16 x 16 tokens and ends on whole frames of 64 x 64 (see `crops.py`). Which
crop size a step uses, and the learning rate, follow the minutes trained so far. Resumes from
OUT/last.pt; writes OUT/micro.safetensors (the moving average of the weights, fp16).
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam
from torch import Tensor, distributed, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import crops  # noqa: E402
import frames  # noqa: E402
from muon import Muon  # noqa: E402

from samonai.sam.micro import MICRO_DIM, build_micro  # noqa: E402

BATCH = {8: 24, 16: 12, 32: 4, 64: 2}
"""Images per step and worker for each crop side in tokens."""


CLICKED = 2
"""Objects per image that are asked for by clicks too."""

WHOLE_FRAME = 1024
"""Side of a whole frame in pixels."""


class Bank:
    """The drawn scenes that exist so far; looks for new files now and then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenes: list[dict] = []
        self._read: set[Path] = set()

    def refresh(self, most: int = 4) -> None:
        """Reads at most `most` files that were not read before."""
        new = [p for p in sorted(self.folder.glob("*.pt")) if p not in self._read]
        for path in new[:most]:
            self.scenes += torch.load(path, weights_only=True)
            self._read.add(path)


def draw_batch(
    bank: Bank, rng: np.random.Generator, tokens: int, objects: int, images: int
) -> tuple[list[frames.FrameSample], tuple[int, int]]:
    """Draws `images` frames of `tokens` x `tokens`, and where in the 1024 frame they lie."""
    samples: list[frames.FrameSample] = []
    while len(samples) < images:
        scene = bank.scenes[int(rng.integers(len(bank.scenes)))]
        sample = frames.make_frame(scene, rng, tokens * crops.PATCH, objects)
        if sample is not None:
            samples.append(sample)
    places = (64 - tokens) // crops.WINDOW + 1
    row, column = (int(i) * crops.WINDOW for i in rng.integers(0, places, 2))
    return samples, (row, column)


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


# ---------------------------------------------------------------- what the encoder is told


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
    corner = torch.tensor([offset[1], offset[0]], dtype=torch.float32) * crops.PATCH
    count = len(samples[0].targets)
    index = torch.arange(len(samples), device=device).repeat_interleave(count)
    targets = torch.cat([s.targets for s in samples]).to(device)
    boxes = torch.cat([s.boxes for s in samples])
    side = float(images.shape[-1])
    boxes = frames.jitter_boxes(rng, boxes, torch.tensor(0.0), torch.tensor(side), exact)
    boxes = (boxes + corner.repeat(2)).to(device)

    logits, quality = crops.decode(sam, embeddings, crops.PromptBatch(index, boxes=boxes), offset)
    loss, iou = prompt_loss(logits, quality, targets, 0.9)
    figures = {"box": iou.item()}
    if not decoder_only:
        lesson = teacher(embeddings, torch.stack([s.ids for s in samples]).to(device))
        loss = loss + 0.7 * lesson
        figures["lesson"] = lesson.item()

    if rng.random() < 0.45:
        picked = torch.arange(len(index), device=device).view(-1, count)[:, -CLICKED:].flatten()
        points, labels = (part.to(device) for part in _clicks(samples, rng, count, corner))
        batch = crops.PromptBatch(index[picked], points=points, point_labels=labels)
        logits_2, quality_2 = crops.decode(sam, embeddings, batch, offset)
        few = points.shape[1] < 3
        extra, iou = prompt_loss(logits_2, quality_2, targets[picked], 0.5 if few else 0.9)
        loss = loss + 0.5 * extra
        figures["points"] = iou.item()
        logits, boxes, index, targets = logits_2, None, index[picked], targets[picked]
    if rng.random() < 0.3:
        picked = torch.arange(len(index), device=device)[::2]
        previous = logits[picked, :1].detach()
        found, wanted = (previous[:, 0] > 0).cpu(), (targets[picked] > 0.5).cpu()
        click, label = _corrections(rng, found, wanted)
        batch = crops.PromptBatch(
            index[picked],
            (click + corner).to(device),
            label.to(device),
            None if boxes is None else boxes[picked],
            previous,
        )
        logits, quality = crops.decode(sam, embeddings, batch, offset)
        extra, iou = prompt_loss(logits, quality, targets[picked], 0.9)
        loss = loss + 0.5 * extra
        figures["again"] = iou.item()
    return loss, figures


def _clicks(
    samples: list[frames.FrameSample], rng: np.random.Generator, count: int, corner: Tensor
) -> tuple[Tensor, Tensor]:
    """One to five clicks on the last objects of each sample."""
    positive = int(rng.choice([1, 2, 3], p=[0.55, 0.2, 0.25]))
    negative = int(rng.choice([0, 1, 2], p=[0.6, 0.2, 0.2]))
    points, labels = [], []
    for sample in samples:
        for mask in sample.masks[count - CLICKED :]:
            spots, kinds = frames.draw_points(rng, mask, sample.scale, positive, negative)
            points.append(spots + corner)
            labels.append(kinds)
    return torch.stack(points), torch.stack(labels)


def _corrections(rng: np.random.Generator, found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """One click per object in the larger of what was missed and what was wrongly taken."""
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


# ---------------------------------------------------------------- the run


def tokens_at(progress: float, rng: np.random.Generator) -> int:
    """The crop side of a step: small crops first, whole frames last."""
    if progress < 0.05:
        return int(rng.choice([8, 16], p=[0.35, 0.65]))
    return int(rng.choice([8, 16, 32, 64], p=[0.05, 0.15, 0.25, 0.55]))


def objects_at(tokens: int) -> int:
    """Objects per image: more where the encoder costs more."""
    return {8: 4, 16: 4, 32: 6, 64: 6}[tokens]


def exact_at(progress: float) -> float:
    """The share of exact boxes: moved ones teach what a box means, exact ones to trust it."""
    return 0.35 if progress < 0.6 else 0.6


def rate_at(progress: float, step: int, peak: float) -> float:
    """Learning rate: 150 steps of warm-up, then a cosine over the minutes."""
    return peak * min(1.0, (step + 1) / 150) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def update_average(average: Sam, sam: Sam, step: int) -> None:
    """Moves the averaged weights towards the current ones."""
    decay = min(0.998, (step + 1) / (step + 20))
    for a, p in zip(average.parameters(), sam.parameters(), strict=True):
        a.lerp_(p, 1 - decay)


def write_weights(sam: Sam, path: Path) -> None:
    """Writes the state dict as fp16 safetensors, whole or not at all."""
    state = {k: v.detach().half().contiguous() for k, v in sam.state_dict().items()}
    partial = path.with_suffix(".tmp")
    save_file(state, partial, metadata={"format": "pt", "model": "samonai micro"})
    partial.rename(path)


@dataclass
class Run:
    """All that a run must remember to go on: written to and read from one file."""

    sam: Sam
    average: Sam
    teacher: EncoderTeacher
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    minutes: float = 0.0

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all."""
        partial = path.with_suffix(".tmp")
        state = {
            "model": self.sam.state_dict(),
            "average": self.average.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "minutes": self.minutes,
        }
        torch.save(state, partial)
        partial.rename(path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote."""
        saved = torch.load(path, weights_only=True, map_location="cpu")
        self.sam.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.teacher.load_state_dict(saved["teacher"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.minutes = saved["step"], saved["minutes"]

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.sam.parameters(), *self.teacher.parameters()]

    def update(self, loss: Tensor, rate: float) -> None:
        """One clipped update of the weights and of their average."""
        for optimizer, share in zip(self.optimizers, (3.0, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * rate
        for p in self.parameters():
            p.grad = None
        loss.backward()
        self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        if norm.isfinite():
            for optimizer in self.optimizers:
                optimizer.step()
        update_average(self.average, self.sam, self.step)
        self.step += 1

    def _share_gradients(self) -> None:
        """Averages the gradients over the workers; all follow the first worker's clock."""
        if not distributed.is_initialized():
            return
        parameters = self.parameters()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        clock = self.minutes if distributed.get_rank() == 0 else 0.0
        flat = torch.cat([g.flatten() for g in grads] + [grads[0].new_tensor([clock])])
        distributed.all_reduce(flat)
        self.minutes = flat[-1].item()
        mean = flat / distributed.get_world_size()
        for p, part in zip(
            parameters, mean[:-1].split([p.numel() for p in parameters]), strict=True
        ):
            p.grad = part.view_as(p)


class Log:
    """Means of named figures, a line every half minute."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", buffering=1)
        self.values: dict[str, list[float]] = defaultdict(list)
        self.written = time.monotonic()

    def add(self, figures: dict[str, float], tokens: int) -> None:
        """Takes one step's figures."""
        for name, value in figures.items():
            plain = name == "loss" or name.endswith("_")
            self.values[name if plain else f"{name}{tokens}"].append(value)

    def write(self, head: str) -> bool:
        """Writes the means, when half a minute has passed."""
        if time.monotonic() - self.written < 30:
            return False
        means = " ".join(f"{k} {np.mean(v):.3f}" for k, v in sorted(self.values.items()))
        self.file.write(f"{time.strftime('%H:%M:%S')} {head} {means}\n")
        self.values.clear()
        self.written = time.monotonic()
        return True


def run(options: argparse.Namespace) -> None:
    """Trains until the minutes are used up."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.workers > 1:
        meeting = f"file://{options.out.resolve() / 'workers'}"
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=options.rank, world_size=options.workers
        )
    sam = build_micro().train().to(options.device)
    teacher = EncoderTeacher().to(options.device)
    state = Run(sam, copy.deepcopy(sam).eval(), teacher, build_optimizers(sam, teacher))
    last = options.out / "last.pt"
    if last.exists():
        state.load(last)
    elif options.init is not None:
        weights = {k: v.float() for k, v in load_file(options.init).items()}
        sam.load_state_dict(weights)
        state.average.load_state_dict(weights)
    bank = Bank(options.bank)
    bank.refresh(1000)
    log = Log(options.out / f"train{options.rank or ''}.log")
    log.file.write(f"start {state.step} {state.minutes:.1f} {len(bank.scenes)} {options}\n")
    before = saved_at = time.monotonic()
    while state.minutes < options.minutes:
        progress = state.minutes / options.minutes
        tokens = tokens_at(progress, np.random.default_rng([options.seed, state.step]))
        rng = np.random.default_rng([options.seed, state.step, options.rank])
        rate = rate_at(progress, state.step, options.lr)
        if state.step < options.placing:
            loss, figures = placing_loss(sam, rng)
        else:
            images = options.images * BATCH[tokens]
            samples, offset = draw_batch(bank, rng, tokens, objects_at(tokens), images)
            with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.bf16):
                exact = exact_at(progress)
                loss, figures = training_loss(sam, teacher, samples, offset, rng, exact)
        now = time.monotonic()
        state.minutes += (now - before) / 60
        before = now
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.bf16):
            state.update(loss, rate)
        log.add({"loss": loss.item(), **figures}, tokens)
        if log.write(f"step {state.step} min {state.minutes:.1f} lr {rate:.1e}"):
            bank.refresh()
        if options.rank == 0 and (now - saved_at > 90 or state.minutes >= options.minutes):
            state.save(last)
            write_weights(state.average, options.out / "micro.safetensors")
            saved_at = now


def build_optimizers(sam: Sam, teacher: EncoderTeacher) -> list[torch.optim.Optimizer]:
    """Muon for weight matrices; AdamW for all else, where only the patch embedding decays."""
    matrices, rest = [], list(teacher.parameters())
    for name, p in sam.named_parameters():
        leaf = name.split(".")[-2]
        table = "embed" in name or leaf in ("iou_token", "mask_tokens")
        small = p.ndim < 2 or min(len(p), p[0].numel()) < 32 or p.shape[2:] == (2, 2)
        (rest if table or small else matrices).append(p)
    return [
        Muon(matrices, lr=1e-3, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the micro model on drawn scenes.")
    parser.add_argument("--bank", type=Path, required=True, help="folder of drawn scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and log")
    parser.add_argument("--minutes", type=float, default=85.0, help="training time in all")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--placing", type=int, default=600, help="first steps without images")
    parser.add_argument("--init", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--bf16", action="store_true", help="autocast; where it is native")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--images", type=int, default=1, help="multiplies the images of a step")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--rank", type=int, default=0, help="which of the workers this one is")
    parser.add_argument("--seed", type=int, default=7)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
