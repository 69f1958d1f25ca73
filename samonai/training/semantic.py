"""Training without a prompt: what a frame's classes should be, the loss, and the Dice."""

from typing import NamedTuple

import torch
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import nn
from torch.nn.functional import cross_entropy

IGNORED = 255
"""Channel number of pixels that count for nothing: padding, invalid, dropped as too small."""


class ClassTargets(NamedTuple):
    """What the semantic head should say about B frames.

    Attributes:
        channels: uint8 (B, 256, 256), channel of each pixel, 0 is background, `IGNORED` counts
            for nothing; low-res frame.
        values: Label value of each channel, background's 0 first.
        cases: Case id of each frame.
    """

    channels: torch.Tensor
    values: tuple[int, ...]
    cases: tuple[str, ...]


class SemanticLoss(nn.Module):
    """Soft Dice of the classes plus cross-entropy, one to one.

    The Dice is taken over the whole batch, so that a class counts on the frames that lack it too,
    and leaves background out, which the cross-entropy has.
    """

    def __init__(self) -> None:
        """Take MONAI's Dice; the probabilities are masked first, so the softmax is outside."""
        super().__init__()
        self.dice = DiceLoss(include_background=False, batch=True)

    def forward(self, logits: torch.Tensor, targets: ClassTargets) -> torch.Tensor:
        """Return the loss of a batch as a scalar.

        Args:
            logits: float (B, K + 1, 256, 256).
            targets: The channels of the same frames.
        """
        logits = logits.float()
        channels = targets.channels.long()
        valid = (channels != IGNORED)[:, None]
        per_pixel = cross_entropy(logits, channels, ignore_index=IGNORED, reduction="none")
        entropy = per_pixel.sum() / valid.sum().clamp(min=1)
        truth = one_hot(torch.where(valid, channels[:, None], 0), logits.shape[1])
        dice: torch.Tensor = self.dice(logits.softmax(1) * valid, truth * valid)
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
