"""The inferer of the training engines: the decoder on stored embeddings."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from samonai.prompts import Prompts
from samonai.sam.network import DecodeOutput


class DecoderInferer(Inferer):
    """Decodes a batch of embeddings, in bfloat16 where it is asked for.

    MONAI's engines can autocast on CUDA only; bfloat16 needs no gradient scaling, so that the
    same switch serves CPUs too.

    Args:
        amp: Compute in bfloat16 where that is safe; weights and losses stay float32.
    """

    def __init__(self, amp: bool = False) -> None:
        """Keep the switch."""
        super().__init__()
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: nn.Module, prompts: Prompts, *_: Any
    ) -> DecodeOutput:
        """Decode prompts.

        Args:
            inputs: float (B, C, h, w) embeddings.
            network: A `SamNetwork`, also wrapped for several processes.
            prompts: N prompts over the B images.
        """
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.amp):
            output: DecodeOutput = network(inputs, prompts)
        return output
