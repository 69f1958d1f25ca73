"""Validation of an epoch on one crowded slice: 5,000 components against 50."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.engines import SupervisedEvaluator

from benchmarks.rows import Row, ratio_row
from benchmarks.setting import SEED, Setting
from benchmarks.timing import Contestant, Progress, interleave
from samonai.domains import get_domain
from samonai.prompts.sampling import PromptSampler
from samonai.sam.loading import load_sam
from samonai.sam.network import SamNetwork
from samonai.training import (
    CaseDice,
    DecoderInferer,
    TrainingData,
    frame_loader,
    prepare_batch,
    prepare_training,
)

_SIDE = 512
_MANY, _FEW = 5000, 50
_BAR = 3.0


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Time the validation that the bundles configure, of the embedded model."""
    full = setting.rounds > 1
    network = load_sam("micro", device="cpu")
    counts = (_FEW, _MANY if full else 2 * _FEW)
    with tempfile.TemporaryDirectory() as folder:
        data = {count: _data(network, Path(folder) / str(count), count) for count in counts}
        times = interleave(
            {str(count): Contestant(_validation(network, one)) for count, one in data.items()},
            rounds=setting.rounds,
            warm_up=True,
            progress=progress,
        )
    few, many = (times[str(count)] for count in counts)
    sample = data[counts[1]].validation_sample()
    return [
        ratio_row(
            "validation",
            f"a held-out slice of {counts[1]:,} components: time of one with {counts[0]}",
            many.rounds,
            few.rounds,
            at_most=_BAR if full else None,
            details={**{name: list(one.rounds) for name, one in times.items()}, **sample},
        )
    ]


def _data(network: SamNetwork, folder: Path, count: int) -> TrainingData:
    """Write two slices with so many components of 2 x 2 pixels, and encode them."""
    side = int(np.ceil(np.sqrt(count)))
    pitch = _SIDE // side
    assert pitch > 2
    rows, columns = np.divmod(np.arange(count), side)
    label = np.zeros((_SIDE, _SIDE, 1), np.uint8)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        label[columns * pitch + right, rows * pitch + down] = 1
    rng = np.random.default_rng(SEED)
    for case in ("train", "val"):
        image = 100 * label + rng.normal(0, 10, label.shape)
        for name, values in (("images", image.astype(np.int16)), ("labels", label)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name / f"{case}.nii.gz")
    split = folder / "split.json"
    split.write_text('{"train": ["train"], "val": ["val"]}')
    return prepare_training(
        network,
        get_domain("medical"),
        folder / "images",
        folder / "labels",
        folder / "store",
        sampler=PromptSampler(),
        split=split,
        min_area=1,
        seed=SEED,
    )


def _validation(network: SamNetwork, data: TrainingData) -> Callable[[], object]:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=frame_loader(data.val, 8, shuffle=False),
        network=network,
        prepare_batch=prepare_batch,
        inferer=DecoderInferer(),
        key_val_metric={"val_dice": CaseDice()},
        decollate=False,
    )
    return partial(evaluator.run)
