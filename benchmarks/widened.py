"""The embedded model's decoder in the geometry of SAM's own, computing the same masks.

Random weights have no masks: their logits are noise, or empty. So each channel of the embedded
decoder is doubled, and what reads it halved (Net2WiderNet, arXiv 1511.05641): layer norm sees the
same mean and variance, twice the heads attend as their twins do, and the masks stay what they were.
"""

from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import nn

from samonai.sam.network import SamNetwork

_HALF = 0.5


@torch.no_grad()
def widen(micro: SamNetwork, target: Sam) -> None:
    """Write the decoder and prompt encoder of the embedded model into one of twice the channels.

    Args:
        micro: The embedded model.
        target: A stock SAM of 256 channels; the parts that embed masks stay as they are.
    """
    _widen_prompts(micro.prompt_encoder, target.prompt_encoder)
    _widen_decoder(micro.mask_decoder, target.mask_decoder)


def _widen_prompts(source: PromptEncoder, target: PromptEncoder) -> None:
    name = "positional_encoding_gaussian_matrix"
    getattr(target.pe_layer, name).copy_(_twins(getattr(source.pe_layer, name), 1))
    for own, wide in zip(source.point_embeddings, target.point_embeddings, strict=True):
        wide.weight.copy_(_twins(own.weight, 1))
    target.not_a_point_embed.weight.copy_(_twins(source.not_a_point_embed.weight, 1))
    target.no_mask_embed.weight.copy_(_twins(source.no_mask_embed.weight, 1))


def _widen_decoder(source: MaskDecoder, target: MaskDecoder) -> None:
    wide_modules: dict[str, Any] = dict(target.named_modules())
    own_modules: dict[str, Any] = dict(source.named_modules())
    for name, own in own_modules.items():
        wide = wide_modules[name]
        if isinstance(own, nn.Embedding):
            wide.weight.copy_(_twins(own.weight, 1))
        elif isinstance(own, nn.ConvTranspose2d):
            assert own.bias is not None
            wide.weight.copy_(_twins(_twins(own.weight, 0), 1) * _HALF)
            wide.bias.copy_(_twins(own.bias, 0))
        elif isinstance(own, nn.Linear):
            _widen_linear(name.rsplit(".", 1)[-1], own, wide)
        elif isinstance(getattr(own, "weight", None), nn.Parameter):  # layer norms
            wide.weight.copy_(_twins(own.weight, 0))
            wide.bias.copy_(_twins(own.bias, 0))
    for mlp in target.output_hypernetworks_mlps:
        # Twice the channels are weighed and added up.
        mlp.layers[-1].weight.mul_(_HALF)
        mlp.layers[-1].bias.mul_(_HALF)


def _widen_linear(name: str, own: nn.Linear, wide: nn.Linear) -> None:
    """Copy a linear layer; attention's inner channels are doubled head by head."""
    inputs = wide.in_features // own.in_features
    outputs = wide.out_features // own.out_features
    weight: torch.Tensor = own.weight / inputs
    bias: torch.Tensor = own.bias
    by_head = name == "out_proj"
    weight = weight.repeat(1, inputs) if by_head else weight.repeat_interleave(inputs, 1)
    if name in ("q_proj", "k_proj", "v_proj"):
        weight, bias = weight.repeat(outputs, 1), bias.repeat(outputs)
    else:
        weight, bias = (value.repeat_interleave(outputs, 0) for value in (weight, bias))
    wide.weight.copy_(weight)
    wide.bias.copy_(bias)


def _twins(values: torch.Tensor, axis: int) -> torch.Tensor:
    return values.repeat_interleave(2, axis)
