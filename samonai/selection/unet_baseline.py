"""U-Net baseline: MONAI's U-Net from scratch, on the same cases and wall time as the decoder.

It is trained on every frame, with and without objects, as cut by the domain, at the data's own
resolution, padded to a multiple of 16, with MONAI's affine and intensity augmentation. Dice +
cross-entropy, AdamW, cosine over the budget. Ten times within the budget it is validated on the
held-out cases, and the best state is kept, like the decoder's best epoch. It takes no prompts.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.utils import set_determinism
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.base import Case, Domain, SourceT

_CHANNELS = (32, 64, 128, 256, 320)
_STRIDE = 16
_CHECKS = 10
_IGNORED = -1
"""Label of invalid pixels, which are neither trained on nor measured."""
_CERTAIN = 20.0


@dataclass(frozen=True)
class UNetSettings:
    """Settings of the baseline's training.

    Attributes:
        seconds: Wall time for everything, including its own validation on held-out cases.
        batch_size: Frames per step.
        learning_rate: Initial value of the cosine.
        weight_decay: AdamW's.
        seed: Seed of weights, order and augmentation.
    """

    seconds: float
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0


@dataclass
class UNetBaseline:
    """A trained U-Net.

    Attributes:
        network: Maps float32 (B, 3, H, W) to (B, K + 1, H, W) logits, background first.
        values: Label value of each channel, background's 0 first.
        seconds: Wall time of training.
        steps: Number of steps.
        history: Seconds, steps and mean held-out Dice of each check.
    """

    network: torch.nn.Module
    values: tuple[int, ...]
    seconds: float = 0.0
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @torch.no_grad()
    def label(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Return the label of one frame: int32 (H, W) of a uint8 (H, W, 3) image."""
        self.network.eval()
        height, width = image.shape[:2]
        batch = torch.from_numpy(_padded(_normalised(image), _room([(height, width)])))[None]
        device = next(self.network.parameters()).device
        logits = self.network(batch.to(device))[0, :, :height, :width]
        return np.asarray(self.values, np.int32)[logits.argmax(0).cpu().numpy()]

    def predict(self, domain: Domain[SourceT], source: SourceT) -> npt.NDArray[np.integer]:
        """Return the label map of a source on its own grid."""
        labels = {}
        for index in range(domain.frame_count(source)):
            frame = domain.frame(source, index)
            label = self.label(frame.image)
            labels[index] = label if frame.valid is None else np.where(frame.valid, label, 0)
        return domain.merge(source, labels)

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        state = {
            name: value.cpu().contiguous() for name, value in self.network.state_dict().items()
        }
        with write_atomically(path) as temporary:
            save_file(state, temporary)


def train_unet(
    domain: Domain[Any],
    train: Sequence[Case],
    val: Sequence[Case],
    settings: UNetSettings,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.monotonic,
) -> UNetBaseline:
    """Train a U-Net from scratch for a given time.

    Args:
        domain: Reads and cuts the cases.
        train: Training cases.
        val: Cases that choose the best state; all labelled.
        settings: See there.
        device: Device of computation.
        clock: Function that returns the time in seconds.

    Raises:
        InputError: The training cases have no object.
    """
    start = clock()
    set_determinism(seed=settings.seed)
    frames = [frame for case in train for frame in _frames(domain, case)]
    seen = {int(value) for _, label in frames for value in np.unique(label)}
    values = sorted((seen | {0}) - {_IGNORED})
    if len(values) < 2:
        raise InputError("no training case has an object to train the U-Net on")
    held_out = [frame for case in val for frame in _frames(domain, case)]
    network = UNet(2, 3, len(values), _CHANNELS, (2, 2, 2, 2), num_res_units=2).to(device)
    model = UNetBaseline(network, tuple(values))
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    best: dict[str, Any] = {"dice": -1.0, "state": None}
    checks = 0
    for images, targets in _batches(frames, values, settings):
        share = (clock() - start) / settings.seconds
        if share >= (checks + 1) / _CHECKS:
            checks = int(share * _CHECKS)
            _check(model, held_out, best, clock() - start)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
        network.train()
        loss = loss_function(*_without_ignored(network(images.to(device)), targets.to(device)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        model.steps += 1
    if best["state"] is not None:
        network.load_state_dict(best["state"])
    model.seconds = clock() - start
    return model


def _without_ignored(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (B, C, H, W) and targets (B, 1, H, W) that agree on unlabelled pixels.

    Targets there have one more channel after the last, and logits predict it whatever the network's
    output is: these pixels add nothing to the loss, and no gradient.
    """
    ignored = targets == logits.shape[1]
    right = torch.full_like(logits, -_CERTAIN)
    right[:, 0] = _CERTAIN
    return torch.where(ignored, right, logits), torch.where(ignored, 0, targets)


def _frames(
    domain: Domain[Any], case: Case
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]]:
    """Return image and label of every frame of a labelled case; both stay in memory.

    The label is `_IGNORED` on invalid pixels.
    """
    source = domain.read(case)
    cut = (domain.frame(source, index) for index in range(domain.frame_count(source)))
    return [
        (
            frame.image,
            frame.label
            if frame.valid is None
            else np.where(frame.valid, frame.label.astype(np.int64), _IGNORED),
        )
        for frame in cut
        if frame.label is not None
    ]


def _batches(
    frames: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]],
    values: Sequence[int],
    settings: UNetSettings,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield augmented batches without end: float32 (B, 3, H, W) and int64 (B, 1, H, W)."""
    rng = np.random.default_rng(settings.seed)
    augment = Compose(
        [
            RandAffined(
                keys=["image", "label"],
                prob=0.7,
                rotate_range=0.2,
                scale_range=0.1,
                translate_range=4,
                mode=["bilinear", "nearest"],
                padding_mode="zeros",
            ),
            RandScaleIntensityd(keys="image", factors=0.2, prob=0.5),
            RandShiftIntensityd(keys="image", offsets=0.1, prob=0.5),
            RandGaussianNoised(keys="image", std=0.05, prob=0.3),
        ]
    ).set_random_state(settings.seed)
    channel = {value: number for number, value in enumerate([*values, _IGNORED])}
    lookup = np.vectorize(channel.__getitem__, otypes=[np.int64])
    size = min(settings.batch_size, len(frames))
    while True:
        order = rng.permutation(len(frames))
        for start in range(0, len(order) - size + 1, size):
            rows = [frames[number] for number in order[start : start + size]]
            room = _room([image.shape[:2] for image, _ in rows])
            items = [
                augment(
                    {
                        "image": torch.from_numpy(_padded(_normalised(image), room)),
                        "label": torch.from_numpy(_padded(lookup(label)[None], room)).float(),
                    }
                )
                for image, label in rows
            ]
            yield (
                torch.stack([torch.as_tensor(item["image"]) for item in items]),
                torch.stack([torch.as_tensor(item["label"]).long() for item in items]),
            )


def _check(
    model: UNetBaseline,
    held_out: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]],
    best: dict[str, Any],
    seconds: float,
) -> None:
    """Measure the mean Dice over classes, all held-out frames together; keep the best state."""
    sums = {value: [0, 0] for value in model.values[1:]}
    for image, label in held_out:
        predicted = model.label(image)
        for value, seen in sums.items():
            inside, truth = (predicted == value) & (label != _IGNORED), label == value
            seen[0] += int((inside & truth).sum())
            seen[1] += int(inside.sum() + truth.sum())
    scores = [2 * common / total for common, total in sums.values() if total]
    dice = sum(scores) / max(len(scores), 1)
    model.history.append({"seconds": seconds, "steps": model.steps, "dice": dice})
    if dice > best["dice"]:
        state: Mapping[str, torch.Tensor] = model.network.state_dict()
        best |= {"dice": dice, "state": {name: value.clone() for name, value in state.items()}}


def _normalised(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return float32 (3, H, W) of zero mean and unit deviation, from uint8 (H, W, 3)."""
    values = image.transpose(2, 0, 1).astype(np.float32)
    return (values - values.mean()) / (values.std() + 1e-3)


def _padded(array: npt.NDArray[Any], room: tuple[int, int]) -> npt.NDArray[Any]:
    """Pad (C, H, W) with zeros, right and bottom."""
    height, width = array.shape[1:]
    return np.pad(array, ((0, 0), (0, room[0] - height), (0, room[1] - width)))


def _room(sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return the smallest (H, W) of multiples of 16, at least 32, that contains all sizes."""
    tallest, widest = (max(size[axis] for size in sizes) for axis in (0, 1))
    height, width = (max(-(-side // _STRIDE) * _STRIDE, 2 * _STRIDE) for side in (tallest, widest))
    return height, width
