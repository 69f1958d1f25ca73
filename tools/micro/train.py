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
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam
from torch import Tensor, distributed, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import crops  # noqa: E402
import frames  # noqa: E402
from lessons import EncoderTeacher, placing_loss, training_loss  # noqa: E402
from muon import Muon  # noqa: E402

from samonai.sam.micro import build_micro  # noqa: E402

BATCH = {8: 24, 16: 12, 32: 4, 64: 2}
"""Images per step and worker for each crop side in tokens."""


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
    join_workers(options)
    last = options.out / "last.pt"
    state = begin(options, last)
    bank = Bank(options.bank)
    bank.refresh(1000)
    log = Log(options.out / f"train{options.rank or ''}.log")
    log.file.write(f"start {state.step} {state.minutes:.1f} {len(bank.scenes)} {options}\n")
    before = saved_at = time.monotonic()
    while state.minutes < options.minutes:
        progress = state.minutes / options.minutes
        tokens = tokens_at(progress, np.random.default_rng([options.seed, state.step]))
        rate = rate_at(progress, state.step, options.lr)
        loss, figures = step_loss(state, bank, tokens, exact_at(progress), options)
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


def join_workers(options: argparse.Namespace) -> None:
    """Meets the other workers, where there are any."""
    if options.workers > 1:
        meeting = f"file://{options.out.resolve() / 'workers'}"
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=options.rank, world_size=options.workers
        )


def begin(options: argparse.Namespace, last: Path) -> Run:
    """The run as it was left in `last`; or a new one, from given weights or random ones."""
    sam = build_micro().train().to(options.device)
    teacher = EncoderTeacher().to(options.device)
    state = Run(sam, copy.deepcopy(sam).eval(), teacher, build_optimizers(sam, teacher))
    if last.exists():
        state.load(last)
    elif options.init is not None:
        weights = {k: v.float() for k, v in load_file(options.init).items()}
        sam.load_state_dict(weights)
        state.average.load_state_dict(weights)
    return state


def step_loss(
    state: Run, bank: Bank, tokens: int, exact: float, options: argparse.Namespace
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a step on crops of `tokens` x `tokens`; the first steps have no images."""
    rng = np.random.default_rng([options.seed, state.step, options.rank])
    if state.step < options.placing:
        return placing_loss(state.sam, rng)
    images = options.images * BATCH[tokens]
    samples, offset = draw_batch(bank, rng, tokens, objects_at(tokens), images)
    with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.bf16):
        return training_loss(state.sam, state.teacher, samples, offset, rng, exact)


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
