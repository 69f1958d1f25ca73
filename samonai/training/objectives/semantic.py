"""Training without a prompt: what a frame's classes should be, the loss, and the Dice."""

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
"""Channel number of pixels that count for nothing: padding, invalid, dropped as too small."""


class ClassTargets(NamedTuple):
    """What the semantic head should say about B frames.

    Attributes:
        channels: uint8 (B, 256, 256), channel of each pixel, 0 is background, `IGNORED` counts
            for nothing; low-res frame.
        values: Label value of each channel, background's 0 first.
        cases: Case id of each frame.
        borders: bool (B, 256, 256), True near the border of an object; None where that is not
            learned. Ignored pixels are those of the channels.
    """

    channels: torch.Tensor
    values: tuple[int, ...]
    cases: tuple[str, ...]
    borders: torch.Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ClassTargets":
        """Return the same on a device."""
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
    """Soft Dice of the classes plus cross-entropy, one to one; and the same of borders.

    The Dice is taken over the whole batch, so that a class counts on the frames that lack it too,
    and leaves background out, which the cross-entropy has. Borders are a map of their own beside
    the classes, which are learned as without it.
    """

    def __init__(self) -> None:
        """Take MONAI's Dice; the probabilities are masked first, so the softmax is outside."""
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
            border_logits: float (B, 256, 256); None where borders are not learned.
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
        """Return the same of borders, (B, 1, 256, 256) and (B, 256, 256)."""
        logits, truth = logits.float(), borders[:, None].float()
        per_pixel = binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy = (per_pixel * valid).sum() / valid.sum().clamp(min=1)
        dice: torch.Tensor = self.of_borders(logits.sigmoid() * valid, truth * valid)
        return dice + entropy


class ClassCounts:
    """Pixels by true and predicted channel, summed over the frames of each case.

    The Dice of a case and class is taken in 3D, over all its frames, with those without objects:
    what is found there is false and counts. A class that a case neither has nor is said to have
    is left out.
    """

    def __init__(self) -> None:
        """Start with no case seen."""
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
        """Add what another process saw."""
        for case, matrix in other.by_case.items():
            self.by_case[case] = self.by_case.get(case, 0) + matrix
