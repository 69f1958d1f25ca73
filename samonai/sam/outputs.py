"""What the decoder says."""

from typing import NamedTuple

import torch


class DecodeOutput(NamedTuple):
    """What the mask decoder says to N prompts, M masks each (1, or 3 with `multimask_output`).

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
        class_logits: float (B, K + 1, 256, 256), as `SamNetwork.decode_classes` returns them.
    """

    prompted: DecodeOutput | None
    class_logits: torch.Tensor
