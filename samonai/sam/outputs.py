"""Decoder outputs, and the choice among the masks of an ambiguous prompt.

The mask decoder has four mask tokens. Token 0 gives the mask of an unambiguous prompt; tokens 1 to
3 give three interpretations of a single point, the best of which has the highest predicted IoU.
"""

from typing import NamedTuple

import torch


class DecodeOutput(NamedTuple):
    """Output of the mask decoder for N prompts, M masks each.

    M is 1, 3 with `multimask_output`, or 4 with `all_masks`.

    Attributes:
        low_res_logits: float (N, M, 256, 256), low-res frame; above 0 is the object.
        iou_predictions: float (N, M), the decoder's own estimate of each mask's IoU.
    """

    low_res_logits: torch.Tensor
    iou_predictions: torch.Tensor


class HeadsOutput(NamedTuple):
    """Output of one forward pass with the semantic head.

    Attributes:
        prompted: Output for the prompts; None without prompts.
        class_logits: float (B, K + 1, 256, 256), as `SamNetwork.decode_frames` orders them.
        border_logits: float (B, 256, 256), above 0 near the border of an object; None if the
            head has no border channel.
    """

    prompted: DecodeOutput | None
    class_logits: torch.Tensor
    border_logits: torch.Tensor | None = None


def choose_masks(output: DecodeOutput, ambiguous: torch.Tensor) -> DecodeOutput:
    """Choose one mask for each prompt.

    Args:
        output: All masks of N prompts, from `SamNetwork.decode(..., all_masks=True)`.
        ambiguous: bool (N,), the prompts with three interpretations.

    Returns:
        One mask each: the interpretation with the highest predicted IoU, or the single mask.
    """
    logits, predicted = output
    best = 1 + predicted[:, 1:].argmax(1)
    chosen = torch.where(ambiguous.to(best.device), best, 0)
    rows = torch.arange(len(chosen), device=chosen.device)
    return DecodeOutput(logits[rows, chosen][:, None], predicted[rows, chosen][:, None])
