"""Mask decoder on stock modules and weights, with reduced computation on the image side.

Upstream projects all image tokens (4096 of them) to queries, keys and values for a handful of
prompt tokens. Since a projection and a product with few tokens commute, the same numbers come
from projecting the prompt tokens instead: with H heads and T tokens, every product with the
image tokens has H*T columns instead of half the channels, and no projected copy of the image
exists. The upscaling's transposed convolutions have stride equal to kernel, so they are matrix
products too, and the image stays channels-last until the masks are there.

Prompts on one image share the image tokens until the first block has changed them. Up to
there the tokens exist once, and the products with all prompts are one large product.
"""

import math
from collections.abc import Sequence

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.transformer import (
    Attention,
    TwoWayAttentionBlock,
    TwoWayTransformer,
)
from torch import nn

from samonai.sam.lora import effective_weight
from samonai.sam.upscaling import BLOCK, upscaled_masks

_BYTES_AT_ONCE = 1 << 25


def decode_tokens(
    decoder: MaskDecoder,
    image: torch.Tensor,
    position: torch.Tensor,
    sparse: torch.Tensor,
    mask_tokens: range,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode N prompts, each with its own image tokens or all with the same.

    Equal to `MaskDecoder.predict_masks` within float32 rounding.

    Args:
        decoder: The stock decoder.
        image: float (N, h, w, C), image embedding plus dense prompt embedding of each prompt;
            (1, h, w, C) where these are the same for all.
        position: float (1, h*w, C), positional encoding of the image tokens.
        sparse: float (N, P, C), sparse prompt embeddings.
        mask_tokens: Which mask tokens to return masks for.

    Returns:
        Logits (N, len(mask_tokens), 4h, 4w) and IoU predictions (N, mask tokens).
    """
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)
    height, width = image.shape[1:3]
    queries, keys = _two_way(decoder.transformer, image.flatten(1, 2), position, tokens)
    weights = torch.stack(
        [decoder.output_hypernetworks_mlps[token](queries[:, 1 + token]) for token in mask_tokens],
        dim=1,
    )
    logits = upscaled_masks(decoder.output_upscaling, keys, weights, (height, width))
    return logits, decoder.iou_prediction_head(queries[:, 0])


def prompts_at_once(embedding_shape: tuple[int, int, int]) -> int:
    """Return how many prompts a CPU should decode at once in inference.

    Tensors beyond 32 MiB are mapped anew for each layer, which takes longer than their
    arithmetic; see `samonai.core.memory`.

    Args:
        embedding_shape: (C, h, w) of an image embedding.
    """
    channels, height, width = embedding_shape
    # The largest tensor of a prompt: an eighth of the channels, float32, upscaled twice.
    largest = 4 * (channels // 8) * height * width * BLOCK**2
    return max(1, _BYTES_AT_ONCE // largest)


def decode_class_tokens(
    decoder: MaskDecoder,
    image: torch.Tensor,
    position: torch.Tensor,
    class_tokens: torch.Tensor,
    hypernetworks: Sequence[nn.Module],
) -> torch.Tensor:
    """Decode class tokens on images without a prompt, through the decoder's own modules.

    Args:
        decoder: The stock decoder; its own tokens and hypernetworks are not used.
        image: float (B, h, w, C), image embedding plus the embedding of "no mask".
        position: float (1, h*w, C), positional encoding of the image tokens.
        class_tokens: float (K, C).
        hypernetworks: K modules from C channels to C/8.

    Returns:
        Logits (B, K, 4h, 4w).
    """
    tokens = class_tokens.expand(len(image), -1, -1)
    height, width = image.shape[1:3]
    queries, keys = _two_way(decoder.transformer, image.flatten(1, 2), position, tokens)
    weights = torch.stack([mlp(queries[:, k]) for k, mlp in enumerate(hypernetworks)], dim=1)
    return upscaled_masks(decoder.output_upscaling, keys, weights, (height, width))


def _two_way(
    transformer: TwoWayTransformer, keys: torch.Tensor, position: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the two-way transformer; return prompt tokens (N, T, C) and image tokens (N, hw, C).

    Args:
        transformer: The stock module.
        keys: float (N, hw, C), or (1, hw, C) where all prompts are on one image.
        position: float (1, hw, C).
        tokens: float (N, T, C).
    """
    queries = tokens
    if len(keys) == 1:
        keys, position = keys[0], position[0]  # a product with a matrix is one for all N
    for layer in transformer.layers:
        queries, keys = _block(layer, queries, keys, tokens, position)
    attention = transformer.final_attn_token_to_image
    attended = _tokens_to_image(attention, queries + tokens, keys + position, keys)
    return transformer.norm_final_attn(queries + attended), keys


def _block(
    layer: TwoWayAttentionBlock,
    queries: torch.Tensor,
    keys: torch.Tensor,
    tokens: torch.Tensor,
    position: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one block: tokens to tokens, tokens to image, MLP, image to tokens."""
    queries = attend_to_tokens(layer, queries, tokens)
    placed_keys = keys + position
    attended = _tokens_to_image(
        layer.cross_attn_token_to_image, queries + tokens, placed_keys, keys
    )
    queries = layer.norm2(queries + attended)
    queries = layer.norm3(queries + layer.mlp(queries))
    keys = _image_to_tokens(
        layer.cross_attn_image_to_token, placed_keys, queries + tokens, queries, keys
    )
    return queries, layer.norm4(keys)


def attend_to_tokens(
    layer: TwoWayAttentionBlock, queries: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Let prompt tokens (N, T, C) attend to each other: the first part of a block."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        placed = queries + tokens
        queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
    normalised: torch.Tensor = layer.norm1(queries)
    return normalised


def _tokens_to_image(
    attention: Attention, queries: torch.Tensor, placed_keys: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Let T prompt tokens attend to the image, (N, hw, C) or (hw, C) for all: (N, T, C).

    The key projection moves onto the queries; its bias adds the same to every score of a query,
    which the softmax cancels. The value projection moves behind the weighted sum, whose
    weights sum to one, so that its bias is added once.
    """
    heads, count = attention.num_heads, queries.shape[1]
    projected = by_head(attention.q_proj(queries), heads)  # (N, H, T, d)
    projected = projected / math.sqrt(projected.shape[-1])
    onto_channels = projected @ _weights_by_head(attention.k_proj, heads)  # (N, H, T, C)
    scores = onto_channels.flatten(1, 2) @ placed_keys.mT  # (N, H*T, hw)
    gathered = scores.softmax(-1) @ keys  # (N, H*T, C)
    values = gathered.unflatten(1, (heads, count)) @ _weights_by_head(
        attention.v_proj, heads
    ).transpose(1, 2)
    merged = values.transpose(1, 2).flatten(2) + attention.v_proj.bias  # (N, T, H*d)
    out: torch.Tensor = attention.out_proj(merged)
    return out


def _image_to_tokens(
    attention: Attention,
    placed_keys: torch.Tensor,
    tokens: torch.Tensor,
    values: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """Let the image attend to T prompt tokens and add the result to `keys`: (N, hw, C).

    `placed_keys` and `keys` are (N, hw, C), or (hw, C) for all prompts.

    The query projection moves onto the tokens, its bias becoming one number per head and token;
    the output projection moves onto the values.
    """
    heads, count = attention.num_heads, tokens.shape[1]
    projected = by_head(attention.k_proj(tokens), heads)
    projected = projected / math.sqrt(projected.shape[-1])  # (N, H, T, d)
    onto_channels = projected @ _weights_by_head(attention.q_proj, heads)  # (N, H, T, C)
    bias = projected @ attention.q_proj.bias.unflatten(0, (heads, -1))[..., None]  # (N, H, T, 1)
    scores = _scores(placed_keys, onto_channels.flatten(1, 2), bias.flatten(1))
    weights = scores.unflatten(2, (heads, count)).softmax(-1).flatten(2)  # (N, hw, H*T)
    out_weights = effective_weight(attention.out_proj).T.unflatten(0, (heads, -1))  # (H, d, C)
    contributions = by_head(attention.v_proj(values), heads) @ out_weights  # (N, H, T, C)
    # The weights of each head sum to one: a share of the bias per head adds it up to once.
    contributions = contributions + attention.out_proj.bias / heads
    return torch.baddbmm(keys, weights, contributions.flatten(1, 2))


def _scores(image: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Multiply image tokens by the columns of each prompt, and add a number per column.

    Args:
        image: float (N, hw, C), or (hw, C) for all prompts.
        columns: float (N, K, C).
        bias: float (N, K).

    Returns:
        float (N, hw, K).
    """
    if image.ndim == 2:
        joined = torch.addmm(bias.flatten(), image, columns.flatten(0, 1).T)  # (hw, N*K)
        return joined.unflatten(1, bias.shape).transpose(0, 1)
    return torch.baddbmm(bias[:, None], image, columns.mT)


def by_head(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Split the channels of (N, T, H*d) into heads: (N, H, T, d)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def _weights_by_head(projection: nn.Linear, heads: int) -> torch.Tensor:
    """Split the rows of a projection's weights into heads: (H, d, C)."""
    return effective_weight(projection).unflatten(0, (heads, -1))
