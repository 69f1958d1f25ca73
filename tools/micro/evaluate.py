"""Scores micro weights on held-out drawn scenes and on real volumes, without any fine-tuning.

    python tools/micro/evaluate.py --data SHARED/medical [--weights FILE] [--scenes 96]

Every figure is the mean Dice over objects (one object of one frame each, on the frame's native
grid) beside that of the prompt itself, the filled box.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import crops  # noqa: E402
import frames  # noqa: E402
import scenes  # noqa: E402

from samonai.sam.checkpoints import MICRO_WEIGHTS  # noqa: E402
from samonai.sam.micro import build_micro  # noqa: E402

HELD_OUT = 1_000_000
"""First seed of the held-out scenes; training draws its scenes from 0 upwards."""

SIDE = 1024

SOFT_TISSUE = (-160, 240)
"""Window of the CT tasks in HU."""


@dataclass(frozen=True)
class Task:
    """A real task: where its images and labels are, and how to show them.

    Attributes:
        name: What the table calls it.
        images: Where they lie in the medical data folder, as a pattern.
        label: What stands in an image's path, and what stands there in its label's.
        window: Values shown as black and as white; None: by percentiles.
        axis: The axis that slices are cut along.
        slices: How many slices of a volume.
        brief: Whether a brief run has it.
    """

    name: str
    images: str
    label: tuple[str, str]
    window: tuple[float, float] | None = None
    axis: int = 2
    slices: int = 6
    brief: bool = False

    def pairs(self, data: Path, most: int) -> list[tuple[Path, Path]]:
        """The images with their labels: all pictures, or the first so many volumes."""
        found = sorted(data.glob(self.images))
        if not found:
            raise FileNotFoundError(data / self.images)
        if not self.images.endswith(".png"):
            found = found[:most]
        return [(path, data / str(path.relative_to(data)).replace(*self.label)) for path in found]


TASKS = (
    Task(
        "hippocampus MR (MSD)",
        "msd-hippocampus/imagesTr/*.nii.gz",
        ("images", "labels"),
        slices=4,
        brief=True,
    ),
    Task(
        "organs CT 3 mm (TotalSegmentator)",
        "totalsegmentator/example_ct.nii.gz",
        ("_ct", "_seg_fast_force_split"),
        window=SOFT_TISSUE,
        slices=8,
        brief=True,
    ),
    Task(
        "organs MR 3 mm (TotalSegmentator)",
        "totalsegmentator/example_mr_sm.nii.gz",
        ("mr_sm", "seg_mr"),
    ),
    Task(
        "sarcoma MR T1 (IBSI)",
        "ibsi-sts/nifti/*/MR_T1_image.nii.gz",
        ("image", "mask"),
        slices=4,
        brief=True,
    ),
    Task(
        "sarcoma CT (IBSI)",
        "ibsi-sts/nifti/*/CT_image.nii.gz",
        ("image", "mask"),
        window=SOFT_TISSUE,
        slices=4,
    ),
    Task(
        "spleen CT (MSD)",
        "ivadomed-data-testing/ct_scan/sub-spleen2/ct/sub-spleen2_ct.nii.gz",
        (
            "sub-spleen2/ct/sub-spleen2_ct",
            "derivatives/labels/sub-spleen2/ct/sub-spleen2_ct_seg-manual",
        ),
        window=SOFT_TISSUE,
    ),
    Task("spinal cord T2 (SCT)", "sct-testing-data/t2/t2.nii.gz", ("t2.nii", "t2_seg-manual.nii")),
    Task("spinal cord T2* (SCT)", "sct-testing-data/t2s/t2s.nii.gz", ("t2s.nii", "t2s_seg.nii")),
    Task("brain structures MR (ITK-SNAP)", "itksnap/MRIcrop-orig.gipl.gz", ("orig", "seg")),
    Task(
        "fetal head ultrasound (HC18)",
        "hc18-ultrasound/*_HC.png",
        ("_HC", "_HC_Annotation"),
        brief=True,
    ),
)
"""The tasks of the shared medical tree."""


# ---------------------------------------------------------------- prediction


@torch.no_grad()
def predict(sam: Sam, embedding: Tensor, grid: tuple[int, int], **prompt: Any) -> tuple:
    """Decodes P prompts of one frame; returns PxHxW masks on the native grid and the logits."""
    first = next(value for value in prompt.values() if value is not None)
    batch = crops.PromptBatch(torch.zeros(len(first), dtype=torch.int64), **prompt)
    logits, _ = crops.decode(sam, embedding, batch)
    full = F.interpolate(logits[:, :1], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    scale = SIDE / max(grid)
    height, width = (int(n * scale + 0.5) for n in grid)
    native = F.interpolate(
        full[..., :height, :width], size=grid, mode="bilinear", align_corners=False
    )
    return native[:, 0] > 0, logits[:, :1]


def dice(found: Tensor, wanted: Tensor) -> Tensor:
    """Dice of PxHxW masks."""
    both = (found & wanted).sum((1, 2))
    return 2 * both / (found.sum((1, 2)) + wanted.sum((1, 2))).clamp(min=1)


def fill_boxes(boxes: Tensor, grid: tuple[int, int], scale: float) -> Tensor:
    """The masks that are just the boxes, on the native grid."""
    y = (torch.arange(grid[0]) + 0.5) * scale
    x = (torch.arange(grid[1]) + 0.5) * scale
    rows = (y > boxes[:, 1:2]) & (y < boxes[:, 3:4])
    columns = (x > boxes[:, 0:1]) & (x < boxes[:, 2:3])
    return rows[:, :, None] & columns[:, None, :]


# ---------------------------------------------------------------- held-out scenes


def held_out_frames(count: int, kind: str | None = None, objects: int = 3) -> Iterator[tuple]:
    """Frames of held-out scenes: kind and 1024-pixel sample."""
    made, seed = 0, HELD_OUT
    while made < count:
        scene = scenes.draw_scene(seed, kind)
        rng = np.random.default_rng([seed, 99])
        sample = frames.make_frame(scenes.pack(scene), rng, SIDE, objects)
        seed += 1
        if sample is not None:
            made += 1
            yield scene.kind, sample


@torch.no_grad()
def score_scenes(sam: Sam, count: int, more: bool = False) -> dict[str, dict[str, float]]:
    """Mean Dice by kind and over all objects, for each way of prompting."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, (kind, sample) in enumerate(held_out_frames(count)):
        for prompt, values in _score_sample(sam, sample, number, more).items():
            for name in (kind, "all"):
                found[name][prompt] += values.tolist()
    return {k: {p: float(np.mean(v)) for p, v in row.items()} for k, row in found.items()}


def _score_sample(
    sam: Sam, sample: frames.FrameSample, number: int, more: bool
) -> dict[str, Tensor]:
    rng = np.random.default_rng([number, 5])
    grid = (sample.masks.shape[1], sample.masks.shape[2])
    embedding = crops.encode(sam, crops.normalise(sam, sample.image[None], sample.valid[None]))
    result = {}
    exact, logits = predict(sam, embedding, grid, boxes=sample.boxes)
    result["box"] = dice(exact, sample.masks)
    result["filled box"] = dice(fill_boxes(sample.boxes, grid, sample.scale), sample.masks)
    if not more:
        return result
    moved = shake(sample.boxes, rng)
    result["box, 5 % jitter"] = dice(predict(sam, embedding, grid, boxes=moved)[0], sample.masks)
    again, _ = predict(sam, embedding, grid, boxes=sample.boxes, masks=logits)
    result["box, then mask"] = dice(again, sample.masks)
    for clicks in (1, 3):
        drawn = [frames.draw_points(rng, m, sample.scale, clicks, 0) for m in sample.masks]
        points, labels = (torch.stack(list(t)) for t in zip(*drawn, strict=True))
        masks, _ = predict(sam, embedding, grid, points=points, point_labels=labels)
        result[f"{clicks} point{'s' if clicks > 1 else ''}"] = dice(masks, sample.masks)
    return result


def shake(boxes: Tensor, rng: np.random.Generator, amount: float = 0.05) -> Tensor:
    """Moves each box edge by a normal 5 % of the box's side."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    shift = torch.from_numpy(rng.standard_normal(tuple(boxes.shape)).astype(np.float32))
    return (boxes + amount * shift * sides).clamp(0, SIDE)


# ---------------------------------------------------------------- real volumes


def real_slices(
    task: Task, data: Path, cases: int, slices: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields HxW images in 0-255 and HxW labels: slices spread over the labelled range."""
    for image_path, label_path in task.pairs(data, cases):
        if image_path.suffix == ".png":
            yield _read_png(image_path), (_read_png(label_path) > 127).astype(np.int64)
            continue
        image, label = _read_volume(image_path), _read_volume(label_path).round().astype(np.int64)
        low, high = task.window or np.percentile(image, [0.5, 99.5])
        image = 255 * np.clip((image - low) / (high - low), 0, 1)
        image, label = np.moveaxis(image, task.axis, 0), np.moveaxis(label, task.axis, 0)
        filled = np.flatnonzero(label.any(axis=(1, 2)))
        wanted = slices or task.slices
        spread = filled[np.linspace(0, len(filled) - 1, wanted + 2).round().astype(int)[1:-1]]
        for index in np.unique(spread):
            yield image[index], label[index]


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("L")).astype(np.float32)


def _read_volume(path: Path) -> np.ndarray:
    import nibabel
    import SimpleITK

    if path.name.endswith(".nii.gz"):
        volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        return volume.transpose(1, 0, 2)
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return array.astype(np.float32).transpose(1, 2, 0)


@torch.no_grad()
def score_task(
    sam: Sam, task: Task, data: Path, cases: int, slices: int | None = None
) -> dict[str, float]:
    """Mean Dice over every labelled class of every chosen slice of so many volumes."""
    found: dict[str, list[float]] = defaultdict(list)
    rng = np.random.default_rng(11)
    for image, label in real_slices(task, data, cases, slices):
        ids = [i for i in np.unique(label) if i and (label == i).sum() >= 6]
        if not ids:
            continue
        masks = torch.stack([torch.from_numpy(label == i) for i in ids])
        grid = (masks.shape[1], masks.shape[2])
        scale = SIDE / max(grid)
        embedding = crops.encode(sam, _model_image(sam, image, scale))
        boxes = frames.boxes_of(masks, scale)
        moved = shake(boxes, rng)
        for name, given in (("box", boxes), ("box, 5 % jitter", moved)):
            found[name] += dice(predict(sam, embedding, grid, boxes=given)[0], masks).tolist()
            filled = dice(fill_boxes(given, grid, scale), masks)
            found[name.replace("box", "filled box")] += filled.tolist()
    return {name: float(np.mean(v)) for name, v in found.items()} | {
        "objects": float(len(found["box"]))
    }


def _model_image(sam: Sam, image: np.ndarray, scale: float) -> Tensor:
    height, width = (int(n * scale + 0.5) for n in image.shape)
    frame = torch.from_numpy(image)[None, None].float()
    frame = F.interpolate(frame, size=(height, width), mode="bilinear", align_corners=False)
    normal = crops.normalise(sam, frame.expand(1, 3, -1, -1))
    return F.pad(normal, (0, SIDE - width, 0, SIDE - height))


# ---------------------------------------------------------------- command line


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table: one row per name."""
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[c]:.0f}" if c == "objects" else f"{row[c]:.3f}" for c in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score micro weights.")
    parser.add_argument("--weights", type=Path, default=MICRO_WEIGHTS)
    parser.add_argument("--data", type=Path, help="the shared medical data folder")
    parser.add_argument("--scenes", type=int, default=96, help="held-out scenes")
    parser.add_argument("--cases", type=int, default=8, help="volumes per task")
    parser.add_argument("--slices", type=int, help="slices per volume; each task's own by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="box prompts only; fewer tasks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sam = build_micro()
    state = {k: v.float() for k, v in load_file(options.weights).items()}
    sam.load_state_dict(state, strict=True)
    if options.scenes:
        print(table(score_scenes(sam, options.scenes, more=not options.brief)), flush=True)
    if options.data:
        scores = {
            task.name: score_task(sam, task, options.data, options.cases, options.slices)
            for task in TASKS
            if task.brief or not options.brief
        }
        print("\n" + table(scores))


if __name__ == "__main__":
    main()
