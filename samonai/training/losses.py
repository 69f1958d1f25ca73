"""Losses on low-res logits, padding masked out; the IoU head learns with them."""

from typing import NamedTuple

import torch
from monai.losses import DiceLoss, FocalLoss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from samonai.errors import InputError
from samonai.sam.network import DecodeOutput

RECIPES = {
    "dice_bce": {"dice": 1.0, "bce": 1.0},
    "dice_focal": {"dice": 1.0, "focal": 20.0},
    "bce": {"bce": 1.0},
}
"""Weights of the terms by name: MedSAM's sum, SAM's 20:1 (arXiv:2304.02643, A), the plainest."""

# Focusing and balance of the focal loss as SAM took them over from RetinaNet (arXiv:1708.02002).
_FOCAL_GAMMA, _FOCAL_ALPHA = 2.0, 0.25


class MaskTargets(NamedTuple):
    """What N prompts should give.

    Attributes:
        masks: bool (N, 1, 256, 256), low-res frame.
        valid: bool (N, 1, 256, 256), False on padding and on invalid pixels.
        objects: (case id, class value) of each prompt, for metrics by case and class.
    """

    masks: torch.Tensor
    valid: torch.Tensor
    objects: tuple[tuple[str, int], ...] = ()


class MaskLoss(nn.Module):
    """A sum of Dice, BCE and focal terms of the masks, and the IoU head's squared error.

    Args:
        recipe: One of `RECIPES`.
        iou_weight: Weight of the IoU head's error; 0 leaves the head out.

    Raises:
        InputError: The recipe is not known.
    """

    def __init__(self, recipe: str = "dice_bce", iou_weight: float = 1.0) -> None:
        """Take the weights of a recipe."""
        super().__init__()
        if recipe not in RECIPES:
            raise InputError(f"loss {recipe!r} is not known; use one of {', '.join(RECIPES)}")
        self.weights = RECIPES[recipe]
        self.iou_weight = iou_weight
        # The probabilities are masked before the Dice sums, so the sigmoid is taken outside.
        self.dice = DiceLoss(sigmoid=False)
        self.focal = FocalLoss(gamma=_FOCAL_GAMMA, alpha=_FOCAL_ALPHA, reduction="none")

    def forward(self, output: DecodeOutput, targets: MaskTargets) -> torch.Tensor:
        """Return the mean loss of N prompts as a scalar.

        Args:
            output: Logits (N, 1, 256, 256) and IoU predictions (N, 1).
            targets: Masks and valid areas of the same prompts.
        """
        logits = output.low_res_logits.float()
        target, valid = targets.masks.float(), targets.valid.float()
        loss = logits.new_zeros(())
        for term, weight in self.weights.items():
            loss = loss + weight * self._term(term, logits, target, valid)
        if self.iou_weight:
            truth = binary_iou(logits.detach() > 0, targets)
            loss = loss + self.iou_weight * mse_loss(output.iou_predictions.float(), truth)
        return loss

    def _term(
        self, term: str, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        if term == "dice":
            dice: torch.Tensor = self.dice(logits.sigmoid() * valid, target * valid)
            return dice
        per_pixel = (
            self.focal(logits, target)
            if term == "focal"
            else binary_cross_entropy_with_logits(logits, target, reduction="none")
        )
        mean: torch.Tensor = (per_pixel * valid).sum() / valid.sum().clamp(min=1)
        return mean


def binary_iou(masks: torch.Tensor, targets: MaskTargets) -> torch.Tensor:
    """Return float (N, 1): intersection over union in the valid area; two empty masks give 1.

    Args:
        masks: bool (N, 1, 256, 256), predicted masks in the low-res frame.
        targets: The true masks and the valid areas.
    """
    predicted, truth = masks & targets.valid, targets.masks & targets.valid
    intersection = (predicted & truth).flatten(2).sum(2)
    union = (predicted | truth).flatten(2).sum(2)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)
