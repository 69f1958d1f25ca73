"""Which mask is meant: one of three for a single point, the single one for any other prompt.

The decoder has four output slots. Slot 0 is the mask of an unambiguous prompt; slots 1 to 3 are
three readings of a single point, of which the IoU head names the best.
"""

import torch

from samonai.sam.network import DecodeOutput


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
