"""Heads of a run and their joint loss: promptable, semantic, or both in one pass."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from samonai.core.errors import InputError
from samonai.core.settings import check_given, renamed_parameters
from samonai.sam.network import DecodeOutput, HeadsOutput, SamNetwork
from samonai.settings.choices import BOTH, PROMPTABLE, SEMANTIC
from samonai.settings.training import HeadSettings
from samonai.training.objectives.losses import MaskLoss, MaskTargets
from samonai.training.objectives.semantic_loss import ClassTargets, SemanticLoss


class HeadTargets(NamedTuple):
    """Targets of a batch where the semantic head is trained.

    Attributes:
        masks: Targets of the prompts; None without prompts.
        classes: Targets of the frames.
    """

    masks: MaskTargets | None
    classes: ClassTargets


class HeadsLoss(nn.Module):
    """The semantic head's loss, plus that of the prompted masks if there are any.

    Args:
        of_masks: The loss of prompted masks.
        semantic_weight: Weight of the semantic head's loss.
    """

    def __init__(self, of_masks: MaskLoss, semantic_weight: float = 1.0) -> None:
        """Keep the parts."""
        super().__init__()
        self.of_masks, self.of_classes = of_masks, SemanticLoss()
        self.semantic_weight = semantic_weight

    def forward(
        self, output: DecodeOutput | HeadsOutput, targets: MaskTargets | HeadTargets
    ) -> torch.Tensor:
        """Return the loss of one or both heads' outputs as a scalar."""
        if isinstance(targets, MaskTargets):
            assert isinstance(output, DecodeOutput)
            of_masks: torch.Tensor = self.of_masks(output, targets)
            return of_masks
        assert isinstance(output, HeadsOutput)
        loss: torch.Tensor = self.of_classes(
            output.class_logits, targets.classes, output.border_logits
        )
        loss = self.semantic_weight * loss
        # A batch of frames without objects has no prompts.
        if output.prompted is not None and targets.masks is not None and len(targets.masks.masks):
            loss = loss + self.of_masks(output.prompted, targets.masks)
        return loss


@renamed_parameters(recipe="loss_recipe")
def heads_loss(
    heads: str = PROMPTABLE,
    loss_recipe: str = "dice_bce",
    iou_weight: float = 1.0,
    semantic_weight: float = 1.0,
) -> nn.Module:
    """Return the loss of a run.

    Args:
        heads: One of `HEADS`.
        loss_recipe: The prompted masks' loss, see `MaskLoss`.
        iou_weight: Weight of the IoU head's error.
        semantic_weight: Weight of the semantic head's loss beside the prompted masks'.

    Raises:
        InputError: The heads or the recipe are unknown, or the weight is not above 0.
    """
    check_heads(heads)
    of_masks = MaskLoss(loss_recipe, iou_weight)
    if heads == PROMPTABLE:
        return of_masks
    check_given(HeadSettings, {"semantic_weight": semantic_weight})
    return HeadsLoss(of_masks, semantic_weight)


def with_heads(
    network: SamNetwork, classes: Mapping[int, str], heads: str, borders: bool = False
) -> SamNetwork:
    """Add the heads of a run to a network, and freeze the parts that only other heads use.

    An existing semantic head for the same classes, with borders or without as requested, is trained
    further; any other is replaced. A run of the promptable head drops it, since the shared
    transformer changes.

    Args:
        network: The network, with its trainable parts already chosen.
        classes: Label value to name.
        heads: One of `HEADS`.
        borders: Give the semantic head a channel for object borders.

    Returns:
        The same network.

    Raises:
        InputError: The heads are unknown, or have no borders.
    """
    check_heads(heads, borders)
    network.object_classifier = None
    if heads == PROMPTABLE:
        return network.remove_semantic_head()
    values, head = sorted(classes), network.semantic_head
    if head is None or (head.values, head.borders) != ((0, *values), borders):
        network.add_semantic_head(values, borders=borders)
    if heads == SEMANTIC:
        decoder = network.mask_decoder
        for part in (
            decoder.iou_token,
            decoder.mask_tokens,
            decoder.output_hypernetworks_mlps,
            decoder.iou_prediction_head,
        ):
            part.requires_grad_(False)
    return network


def check_heads(heads: str, borders: bool = False) -> None:
    """Check the name of the heads, and whether they support borders.

    Raises:
        InputError: The heads are unknown, or borders are requested for the promptable head alone.
    """
    check_given(HeadSettings, {"heads": heads})
    if borders and heads == PROMPTABLE:
        raise InputError(
            "borders=true is for the semantic head, which is not trained; give --heads both or "
            "--heads semantic, or leave it out"
        )


def trained_heads(heads: str) -> list[str]:
    """Return the single heads that a run trains, as listed in a decoder's file."""
    return [PROMPTABLE, SEMANTIC] if heads == BOTH else [heads]
