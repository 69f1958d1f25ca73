"""What the decoder says, and which of its masks is meant.

The mask decoder has four output slots. Slot 0 is the mask of an unambiguous prompt; slots 1 to 3
are three readings of a single point, of which the IoU head names the best.
"""

from typing import NamedTuple

import torch


class DecodeOutput(NamedTuple):
    """What the mask decoder says to N prompts, M masks each.

    M is 1, 3 with `multimask_output`, or 4 with `every_slot`.

    Attributes:
        low_res_logits: float (N, M, 256, 256), low-res frame; above 0 is the object.
        iou_predictions: float (N, M), the decoder's own estimate of each mask's IoU.
    """

    low_res_logits: torch.Tensor
    iou_predictions: torch.Tensor


class HeadsOutput(NamedTuple):
    """What one forward pass with the semantic head gives.

    Attributes:
        prompted: The answer to the prompts; None where none were given.
        class_logits: float (B, K + 1, 256, 256), as `SamNetwork.decode_frames` orders them.
        border_logits: float (B, 256, 256), above 0 near the border of an object; None where the
            head does not say.
    """

    prompted: DecodeOutput | None
    class_logits: torch.Tensor
    border_logits: torch.Tensor | None = None


def choose_masks(output: DecodeOutput, ambiguous: torch.Tensor) -> DecodeOutput:
    """Choose one mask for each prompt.

    Args:
        output: All slots of N prompts, as `SamNetwork.decode(..., every_slot=True)` gives them.
        ambiguous: bool (N,), the prompts that have three readings.

    Returns:
        One mask each: the reading with the highest predicted IoU, or slot 0.
    """
    logits, predicted = output
    best = 1 + predicted[:, 1:].argmax(1)
    slots = torch.where(ambiguous.to(best.device), best, 0)
    rows = torch.arange(len(slots), device=slots.device)
    return DecodeOutput(logits[rows, slots][:, None], predicted[rows, slots][:, None])
