"""Tensor names of Hugging Face transformers' `SamModel`, converted from and to SAM's.

A pure renaming in both directions: no tensor is reshaped. `SamModel` holds the positional matrix of
the prompt encoder twice (`shared_image_embedding`). Checked against transformers 5.24.0, class
`transformers.models.sam.modeling_sam.SamModel`.
"""

import re
from collections.abc import Mapping

import torch

SHARED_POSITIONS = "shared_image_embedding.positional_embedding"
"""The second copy of the positional matrix in a `SamModel`."""

_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# (upstream, transformers), tried in this order; a group is a number that is kept.
_RULES = (
    (_POSITIONS.replace(".", r"\."), "prompt_encoder.shared_embedding.positional_embedding"),
    (r"image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"image_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"image_encoder\.blocks\.(\d+)\.", r"vision_encoder.layers.\1."),
    (r"image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"image_encoder\.pos_embed", "vision_encoder.pos_embed"),
    (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (
        r"mask_decoder\.transformer\.norm_final_attn\.",
        "mask_decoder.transformer.layer_norm_final_attn.",
    ),
    (
        r"mask_decoder\.transformer\.layers\.(\d+)\.norm(\d)\.",
        r"mask_decoder.transformer.layers.\1.layer_norm\2.",
    ),
    (
        r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.",
        r"mask_decoder.\1.proj_in.",
    ),
    (
        r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.1\.",
        r"mask_decoder.\1.layers.0.",
    ),
    (
        r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.2\.",
        r"mask_decoder.\1.proj_out.",
    ),
)


def to_hf_name(name: str) -> str:
    """Return the name that `SamModel` gives a tensor of `segment_anything`'s `Sam`."""
    for upstream, renamed in _RULES:
        if re.match(upstream, name):
            return re.sub(f"^{upstream}", renamed, name)
    return name


def from_hf_names(
    state: Mapping[str, torch.Tensor], names: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a `SamModel`'s state under upstream's names; tensors without one keep theirs.

    Args:
        state: Tensors of a `SamModel`.
        names: A state of the upstream model, of which only the names are used.
    """
    back = {to_hf_name(name): name for name in names}
    renamed = {
        back.get(name, name): tensor for name, tensor in state.items() if name != SHARED_POSITIONS
    }
    # Of two tensors in one memory, safetensors keeps one name.
    if SHARED_POSITIONS in state:
        renamed.setdefault(_POSITIONS, state[SHARED_POSITIONS])
    return renamed


def is_hf_state(names: Mapping[str, object]) -> bool:
    """Return whether tensors are named as in a `SamModel`."""
    return any(name.startswith("vision_encoder.") for name in names)
