"""The inferer of the training engines: the decoder on stored embeddings."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from samonai.prompts.types import Prompts
from samonai.sam.network import IMAGE_CHANNELS, SamNetwork
from samonai.sam.outputs import DecodeOutput, HeadsOutput, choose_masks


class DecoderInferer(Inferer):
    """Decodes a batch of embeddings, optionally in bfloat16.

    MONAI's engines can autocast on CUDA only; bfloat16 needs no gradient scaling, so that the
    same switch works on CPUs too.

    Args:
        amp: Compute in bfloat16 where that is safe; weights and losses stay float32.
        multimask: Take the best of the three masks of a single point, see
            `samonai.sam.outputs`.
    """

    def __init__(self, amp: bool = False, multimask: bool = False) -> None:
        """Keep the switches."""
        super().__init__()
        self.amp = amp
        self.multimask = multimask

    def __call__(  # type: ignore[override]  # MONAI promises one signature of several
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        prompts: Prompts,
        *_: Any,
        classes: bool = False,
    ) -> DecodeOutput | HeadsOutput:
        """Decode prompts, one mask each, and on request the classes of the frames.

        Args:
            inputs: float (B, C, h, w) embeddings; or float (B, 3, S, S) model images, where the
                encoder is trained.
            network: A `SamNetwork`, also wrapped for several processes.
            prompts: N prompts over the B images.
            classes: Run the semantic head too, in the same pass.
        """
        if classes:
            return self._heads(inputs, network, prompts)
        if not self.multimask:
            return self.masks(inputs, network, prompts, all_masks=False)
        output = self.masks(inputs, network, prompts, all_masks=True)
        return choose_masks(output, prompts.row_is_ambiguous())

    def encode(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor | None:
        """Encode model images once for several passes; None where embeddings are stored.

        A network that is wrapped for several processes must run each pass as a whole, so it
        encodes in every pass.
        """
        if inputs.shape[1] != IMAGE_CHANNELS or not isinstance(network, SamNetwork):
            return None
        return network.encode(inputs, "bf16" if self.amp else "fp32")

    def masks(
        self, inputs: torch.Tensor, network: nn.Module, prompts: Prompts, all_masks: bool
    ) -> DecodeOutput:
        """Decode the single mask of each prompt, or all four."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.amp):
            output: DecodeOutput = network(inputs, prompts, all_masks)
        return output

    def classes(
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        prompts: Prompts | None = None,
        all_masks: bool = False,
    ) -> HeadsOutput:
        """Run the semantic head on whole frames; decode prompts in the same pass if given."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.amp):
            output: HeadsOutput = network(inputs, prompts, all_masks, True)
        return output

    def _heads(self, inputs: torch.Tensor, network: nn.Module, prompts: Prompts) -> HeadsOutput:
        if not len(prompts):
            return self.classes(inputs, network)
        output = self.classes(inputs, network, prompts, self.multimask)
        if not self.multimask or output.prompted is None:
            return output
        chosen = choose_masks(output.prompted, prompts.row_is_ambiguous())
        return output._replace(prompted=chosen)
