"""Semantic head: its targets (classes of a frame), its loss, and its Dice."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from samonai.embeddings.targets import FrameTargets

IGNORED = 255
"""Channel number of ignored pixels: padding, invalid, dropped as too small."""


class ClassTargets(NamedTuple):
    """Targets of the semantic head for B frames.

    Attributes:
        channels: uint8 (B, 256, 256), channel of each pixel, 0 is background, `IGNORED` is not
            trained on; low-res frame.
        values: Label value of each channel, background's 0 first.
        cases: Case id of each frame.
        borders: bool (B, 256, 256), True near the border of an object; None where that is not
            trained. Ignored pixels are those of the channels.
    """

    channels: torch.Tensor
    values: tuple[int, ...]
    cases: tuple[str, ...]
    borders: torch.Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ClassTargets":
        """Return the targets on a device."""
        channels = self.channels.to(device, non_blocking=non_blocking)
        borders = self.borders
        if borders is not None:
            borders = borders.to(device, non_blocking=non_blocking)
        return self._replace(channels=channels, borders=borders)


def channel_map(targets: FrameTargets, values: Sequence[int]) -> torch.Tensor:
    """Return uint8 (256, 256): the channel of each pixel of a frame, given those' label values."""
    found = targets.class_map()
    channels = np.full(found.shape, IGNORED, np.uint8)
    for channel, value in enumerate(values):
        channels[found == value] = channel
    return torch.from_numpy(channels)


class SemanticLoss(nn.Module):
    """Soft Dice plus cross-entropy of the classes, equally weighted; likewise of borders.

    The Dice is computed over the whole batch, so that a class counts on the frames without it too,
    and leaves out the background, which the cross-entropy covers. Borders are a separate map beside
    the classes, whose loss they do not change.
    """

    def __init__(self) -> None:
        """Use MONAI's Dice without its softmax, since probabilities are masked before."""
        super().__init__()
        self.dice = DiceLoss(include_background=False, batch=True)
        self.of_borders = DiceLoss(batch=True)

    def forward(
        self,
        logits: torch.Tensor,
        targets: ClassTargets,
        border_logits: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of a batch as a scalar.

        Args:
            logits: float (B, K + 1, 256, 256).
            targets: The channels, and the borders, of the same frames.
            border_logits: float (B, 256, 256); None where borders are not trained.
        """
        logits = logits.float()
        channels = targets.channels.long()
        valid = (channels != IGNORED)[:, None]
        per_pixel = cross_entropy(logits, channels, ignore_index=IGNORED, reduction="none")
        entropy = per_pixel.sum() / valid.sum().clamp(min=1)
        truth = one_hot(torch.where(valid, channels[:, None], 0), logits.shape[1])
        dice: torch.Tensor = self.dice(logits.softmax(1) * valid, truth * valid)
        if border_logits is None:
            return dice + entropy
        assert targets.borders is not None
        return dice + entropy + self._of_borders(border_logits[:, None], targets.borders, valid)

    def _of_borders(
        self, logits: torch.Tensor, borders: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Return Dice plus cross-entropy of borders, (B, 1, 256, 256) and (B, 256, 256)."""
        logits, truth = logits.float(), borders[:, None].float()
        per_pixel = binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy = (per_pixel * valid).sum() / valid.sum().clamp(min=1)
        dice: torch.Tensor = self.of_borders(logits.sigmoid() * valid, truth * valid)
        return dice + entropy


class ClassCounts:
    """Confusion matrix of true and predicted channels of each case, summed over its frames.

    The Dice of a case and class is computed in 3D, over all its frames. Pixels predicted on frames
    without objects are false positives. A class that is neither in a case nor predicted there is
    left out.
    """

    def __init__(self) -> None:
        """Start without cases."""
        self.by_case: dict[str, torch.Tensor] = {}

    def add(self, logits: torch.Tensor, targets: ClassTargets) -> None:
        """Add the frames of a batch; logits float (B, K + 1, 256, 256)."""
        count = logits.shape[1]
        for frame, channels, case in zip(
            logits.argmax(1), targets.channels, targets.cases, strict=True
        ):
            valid = channels != IGNORED
            pairs = channels[valid].long() * count + frame[valid]
            matrix = torch.bincount(pairs, minlength=count * count).reshape(count, count).cpu()
            self.by_case[case] = self.by_case.get(case, 0) + matrix

    def dice(self) -> list[float]:
        """Return the Dice of every case and class that is defined."""
        found: list[float] = []
        for matrix in self.by_case.values():
            common = matrix.diagonal()[1:]
            total = matrix.sum(0)[1:] + matrix.sum(1)[1:]
            found += (2 * common / total)[total > 0].tolist()
        return found

    def join(self, other: "ClassCounts") -> None:
        """Add the counts of another process."""
        for case, matrix in other.by_case.items():
            self.by_case[case] = self.by_case.get(case, 0) + matrix
