"""1,000 boxes on one 256 x 256 slice, as `samonai.predict` answers them, beside another checkout.

`SAMONAI_BEFORE=DIR python -m benchmarks --only crowd_trees`. CPU seconds are those of the whole
prediction on a stored embedding: reading, decoding, merging and writing. Each checkout works in a
process of its own, on the same weights, and they take turns. Without another checkout, this one's
memory is measured.
"""

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam

from benchmarks.apart import earlier_checkout, run_in_tree
from benchmarks.crowd import NOISE, drawn_cells
from benchmarks.rows import Row
from benchmarks.setting import Setting, random_sam
from benchmarks.timing import Progress
from benchmarks.widened import widen
from samonai.sam.loading import load_sam

_JOB = "crowd_job.py"
_RATIO_BAR, _DICE_BAR, _MEMORY_BAR = 3.0, 0.999, 1.1
_TURNS = 2
_FEW = 100  # up to so many, a run only shows that the measurement works


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure CPU time, agreement and memory of the embedded model and of the setting's."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, setting.crowded_slice)
        for model in dict.fromkeys(("micro", setting.model)):
            title = model
            if model != "micro":
                torch.save(_widened(model).state_dict(), folder / f"{model}.pth")
                title = f"{model}, random encoder, the embedded decoder widened"
            rows += _rows(title, folder, model, setting.crowded_slice, progress)
    return rows


@torch.no_grad()
def _widened(model: str) -> Sam:
    """Return a model with a random encoder and masks that end within their boxes."""
    sam = random_sam(model)
    widen(load_sam("micro", device="cpu"), sam)
    norm = sam.image_encoder.neck[-1]
    norm.weight.mul_(NOISE)
    norm.bias.mul_(NOISE)
    return sam


def write_inputs(folder: Path, count: int) -> None:
    """Write a slice, and boxes of one class each: one, a quarter of them, and all."""
    image, boxes = drawn_cells(count)
    voxels = image[..., 0].T[..., None].astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "slice.nii.gz")
    for name, asked in (("one", 1), ("few", max(count // 4, 6)), ("all", count)):
        corners = [[float(v) for v in (x0, y0, 0, x1, y1, 1)] for x0, y0, x1, y1 in boxes[:asked]]
        content = {"boxes": corners, "classes": list(range(1, len(corners) + 1))}
        (folder / f"{name}.json").write_text(json.dumps(content))


def _rows(title: str, folder: Path, model: str, count: int, progress: Progress) -> list[Row]:
    old, full = earlier_checkout(), count > _FEW
    trees = {"this": None} if old is None else {"this": None, "old": old}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for turn in range(_TURNS if full and old else 1):
        for name, tree in trees.items():
            progress(f"{title}: {name} checkout, round {turn + 1}")
            found[name].append(run_in_tree(_JOB, folder, model, tree=tree))
    peaks = [[one[name]["peak_bytes"] for one in found["this"]] for name in ("all", "few")]
    rows = [
        Row(
            "crowd_trees",
            f"{title}: peak memory of {count} boxes over that of a quarter of them",
            median(peaks[0]) / median(peaks[1]),
            "x",
            at_most=_MEMORY_BAR if full else None,
        )
    ]
    if old is None:
        return rows
    seconds = {n: [one["all"]["cpu_seconds"] for one in runs] for n, runs in found.items()}
    ratios = [theirs / ours for theirs, ours in zip(seconds["old"], seconds["this"], strict=True)]
    ours, theirs = (label_of(found[name][-1]["all"]["label"]) for name in ("this", "old"))
    dice = dice_of_classes(ours, theirs)
    return [
        Row(
            "crowd_trees",
            f"{title}: {count} boxes on one slice, fewer CPU seconds than the other checkout",
            median(ratios),
            "x",
            spread=(min(ratios), max(ratios)),
            at_least=_RATIO_BAR if full else None,
            details={f"{name}_cpu_seconds": taken for name, taken in seconds.items()},
        ),
        Row(
            "crowd_trees",
            f"{title}: Dice of the objects in both label maps, mean of {len(dice)}",
            float(np.mean(dice)),
            "Dice",
            spread=(min(dice), max(dice)),
            at_least=_DICE_BAR if full else None,
        ),
        *rows,
    ]


def label_of(path: str) -> npt.NDArray[np.int64]:
    """Return the label map of a volume on disk."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj).astype(np.int64)


def dice_of_classes(ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]) -> list[float]:
    """Return the Dice of each class that either label map holds."""
    length = int(max(ours.max(), theirs.max())) + 1
    common = np.bincount(ours[ours == theirs], minlength=length)
    total = np.bincount(ours.ravel(), minlength=length)
    total = total + np.bincount(theirs.ravel(), minlength=length)
    return [float(2 * common[value] / total[value]) for value in range(1, length) if total[value]]
