"""Losses of prompted masks on low-res logits, without padding, and of the IoU head.

Each prompt's loss is a weighted sum of terms over its valid pixels; a batch's loss is their mean. A
prompt with several masks (an ambiguous single point) has the loss of its best mask, so that only
that one is trained, while the IoU head is trained on all of them; as SAM was trained
(arXiv:2304.02643, appendix A).
"""

from typing import NamedTuple

import torch
from monai.losses import BoundaryLoss, DiceLoss, FocalLoss, LogHausdorffDTLoss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from samonai.core.settings import check_given
from samonai.sam.network import DecodeOutput
from samonai.settings.training import HeadSettings

RECIPES = {
    "dice_bce": {"dice": 1.0, "bce": 1.0},
    "dice_focal": {"dice": 1.0, "focal": 20.0},
    "dice_ce": {"squared_dice": 0.8, "bce": 0.2},
    "bce": {"bce": 1.0},
    "dice_boundary": {"dice": 1.0, "bce": 1.0, "boundary": 0.01},
    "dice_hausdorff": {"dice": 1.0, "bce": 1.0, "hausdorff": 0.1},
}
"""Weights of the terms by name.

MedSAM's sum; SAM's 20:1 (arXiv:2304.02643, A); SAMed's 0.8 and 0.2 with squares in the Dice (the
cross-entropy of object and background is the BCE of the object); BCE alone; the boundary loss of
Kervadec et al. (arXiv:1812.07032) and the Hausdorff distance by distance transforms (Karimi and
Salcudean, arXiv:1904.10030), both added to the first, since they are weak far from the object.
"""

# Focusing and balance of the focal loss, as SAM adopted them from RetinaNet (arXiv:1708.02002).
_FOCAL_GAMMA, _FOCAL_ALPHA = 2.0, 0.25


class MaskTargets(NamedTuple):
    """Targets of N prompts.

    Attributes:
        masks: bool (N, 1, 256, 256), low-res frame.
        valid: bool (N, 1, 256, 256), False on padding and on invalid pixels.
        objects: (case id, class value) of each prompt, for metrics by case and class.
    """

    masks: torch.Tensor
    valid: torch.Tensor
    objects: tuple[tuple[str, int], ...] = ()

    def rows(self, chosen: torch.Tensor) -> "MaskTargets":
        """Return the targets of the prompts chosen by a bool (N,)."""
        objects = tuple(
            key for key, kept in zip(self.objects, chosen.tolist(), strict=True) if kept
        )
        return MaskTargets(self.masks[chosen], self.valid[chosen], objects)


class MaskLoss(nn.Module):
    """Weighted sum of mask loss terms, plus the IoU head's squared error.

    Args:
        recipe: One of `RECIPES`.
        iou_weight: Weight of the IoU head's error; 0 leaves the head out.

    Raises:
        InputError: The recipe is unknown.
    """

    def __init__(self, recipe: str = "dice_bce", iou_weight: float = 1.0) -> None:
        """Set the weights of a recipe."""
        super().__init__()
        check_given(HeadSettings, {"loss_recipe": recipe, "iou_weight": iou_weight})
        self.weights = RECIPES[recipe]
        self.iou_weight = iou_weight
        # Each gets masked probabilities, so the sigmoid is applied outside.
        self.of_regions = nn.ModuleDict(
            {
                "dice": DiceLoss(reduction="none"),
                "squared_dice": DiceLoss(squared_pred=True, reduction="none"),
                "boundary": BoundaryLoss(reduction="none"),
                "hausdorff": LogHausdorffDTLoss(include_background=True, reduction="none"),
            }
        )
        self.focal = FocalLoss(gamma=_FOCAL_GAMMA, alpha=_FOCAL_ALPHA, reduction="none")

    def forward(self, output: DecodeOutput, targets: MaskTargets) -> torch.Tensor:
        """Return the mean loss of N prompts as a scalar.

        Args:
            output: Logits (N, M, 256, 256) and IoU predictions (N, M) of M masks per prompt.
            targets: Masks and valid areas of the same prompts.
        """
        logits = output.low_res_logits.float()
        valid = targets.valid.float().expand_as(logits)
        target = targets.masks.float().expand_as(logits)
        losses = logits.new_zeros(logits.shape[:2])
        for term, weight in self.weights.items():
            losses = losses + weight * self._term(term, logits, target, valid)
        loss = losses.min(1).values.mean()
        if self.iou_weight:
            truth = binary_iou(logits.detach() > 0, targets)
            loss = loss + self.iou_weight * mse_loss(output.iou_predictions.float(), truth)
        return loss

    def _term(
        self, term: str, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Return (N, M): one term of every mask."""
        if term in self.of_regions:
            # As single-channel maps, which all of MONAI's losses treat alike.
            pair = [(maps * valid).flatten(0, 1)[:, None] for maps in (logits.sigmoid(), target)]
            of_each: torch.Tensor = self.of_regions[term](*pair)
            return of_each.flatten(1).mean(1).unflatten(0, logits.shape[:2])
        per_pixel = (
            self.focal(logits, target)
            if term == "focal"
            else binary_cross_entropy_with_logits(logits, target, reduction="none")
        )
        mean: torch.Tensor = (per_pixel * valid).sum((2, 3)) / valid.sum((2, 3)).clamp(min=1)
        return mean


def binary_iou(masks: torch.Tensor, targets: MaskTargets) -> torch.Tensor:
    """Return float (N, M): intersection over union in the valid area; two empty masks give 1.

    Args:
        masks: bool (N, M, 256, 256), predicted masks in the low-res frame.
        targets: The true masks and the valid areas.
    """
    predicted, truth = masks & targets.valid, targets.masks & targets.valid
    intersection = (predicted & truth).flatten(2).sum(2)
    union = (predicted | truth).flatten(2).sum(2)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)
