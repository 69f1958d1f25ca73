"""Prompts of every kind through the stock prompt encoder and mask decoder."""

from typing import Any

import torch

from samonai.prompts.types import Prompts
from samonai.sam.decoder import decode_tokens, prompts_at_once
from samonai.sam.outputs import DecodeOutput
from samonai.sam.prompt_embedding import embed_prompts
from samonai.sam.shared_image import SharedImage
from samonai.sam.upscaling import BLOCK, whole_masks

FEWEST_SHARING = 6
"""Prompts on one image from which on it pays to compute what they share."""


def share_image(
    prompt_encoder: Any, decoder: Any, image_embeddings: torch.Tensor, prompts: int
) -> SharedImage | None:
    """Compute what prompts on one image share, where that pays.

    Args:
        prompt_encoder: The stock module.
        decoder: The stock mask decoder.
        image_embeddings: float32 (B, C, h, w).
        prompts: How many prompts without a mask there will be.

    Returns:
        None where there are several images or few prompts, where a gradient may be needed, or
        where the arithmetic is not float32 on a CPU.
    """
    kind = image_embeddings.device.type
    pays = kind == "cpu" and len(image_embeddings) == 1 and prompts >= FEWEST_SHARING
    if not pays or torch.is_grad_enabled() or torch.is_autocast_enabled(kind):
        return None
    image = image_embeddings[0] + prompt_encoder.no_mask_embed.weight[0, :, None, None]
    position = prompt_encoder.get_dense_pe()[0]
    return SharedImage(
        decoder, *(channels.flatten(1).T.contiguous() for channels in (image, position))
    )


def decode_prompts(
    prompt_encoder: Any,
    decoder: Any,
    image_embeddings: torch.Tensor,
    prompts: Prompts,
    mask_tokens: range,
    shared: SharedImage | None,
) -> DecodeOutput:
    """Decode ragged prompts on a batch of embeddings.

    Args:
        prompt_encoder: The stock module.
        decoder: The stock mask decoder.
        image_embeddings: float32 (B, C, h, w).
        prompts: N prompts.
        mask_tokens: Which mask tokens to return masks for.
        shared: What the prompts of the only image share, where it is known.

    Returns:
        Logits (N, M, 4h, 4w) and IoU predictions (N, M), in the order of the prompts.
    """
    groups, parts = [], []
    for rows in prompts.kinds():
        common = None if bool(prompts[rows[:1]].row_has_mask()[0]) else shared
        for some in rows.split(_at_once(image_embeddings, len(rows))):
            few = prompts[some]
            part = (
                _decode_kind(prompt_encoder, decoder, image_embeddings, few, mask_tokens)
                if common is None
                else _decode_shared(prompt_encoder, common, few, mask_tokens)
            )
            groups.append(some)
            parts.append(part)
    if not parts:
        height, width = image_embeddings.shape[-2:]
        empty = image_embeddings.new_zeros(0, len(mask_tokens), height * BLOCK, width * BLOCK)
        return DecodeOutput(empty, empty.new_zeros(0, len(mask_tokens)))
    if len(parts) == 1:
        return parts[0]
    order = torch.argsort(torch.cat(groups))
    return DecodeOutput(
        torch.cat([part.low_res_logits for part in parts])[order],
        torch.cat([part.iou_predictions for part in parts])[order],
    )


def _at_once(image_embeddings: torch.Tensor, rows: int) -> int:
    if image_embeddings.device.type == "cpu" and not torch.is_grad_enabled():
        channels, height, width = image_embeddings.shape[1:]
        return prompts_at_once((channels, height, width))
    return max(rows, 1)


def _decode_kind(
    prompt_encoder: Any,
    decoder: Any,
    image_embeddings: torch.Tensor,
    prompts: Prompts,
    mask_tokens: range,
) -> DecodeOutput:
    """Decode prompts that all have the same parts."""
    # bfloat16 cannot represent a coordinate of a 1024 frame, so positions are outside autocast.
    with torch.autocast(image_embeddings.device.type, enabled=False):
        sparse, dense = embed_prompts(prompt_encoder, prompts)
        position = prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    # Channels last: (B, h, w, C) and (N, h, w, C).
    image = image_embeddings.permute(0, 2, 3, 1).contiguous()
    if len(image) == 1 and not bool(prompts.row_has_mask()[0]):
        image = image + dense[:1].permute(0, 2, 3, 1)  # the same for all
    else:
        image = image[prompts.image_index] + dense.permute(0, 2, 3, 1)
    logits, iou_predictions = decode_tokens(decoder, image, position, sparse, mask_tokens)
    return DecodeOutput(logits, iou_predictions[:, mask_tokens.start : mask_tokens.stop])


def _decode_shared(
    prompt_encoder: Any, shared: SharedImage, prompts: Prompts, mask_tokens: range
) -> DecodeOutput:
    """Decode prompts without a mask that all have the same parts, on the only image."""
    sparse, _ = embed_prompts(prompt_encoder, prompts)
    queries, image = shared.attend(prompt_tokens(shared.decoder, sparse), 1 + mask_tokens.stop)
    hypernetworks = torch.stack([hypernetwork(shared.decoder, queries, s) for s in mask_tokens], 1)
    pixels = [
        shared.upscaling.pixels(*parts)
        for parts in zip(image.scale, image.weights, image.rows, hypernetworks, strict=True)
    ]
    size = tuple(prompt_encoder.image_embedding_size)
    iou_predictions = shared.decoder.iou_prediction_head(queries[:, 0])
    return DecodeOutput(
        whole_masks(torch.stack(pixels), (size[0], size[1])),
        iou_predictions[:, mask_tokens.start : mask_tokens.stop],
    )


def prompt_tokens(decoder: Any, sparse: torch.Tensor) -> torch.Tensor:
    """Return the decoder's own tokens before sparse embeddings (N, P, C): (N, T, C)."""
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    return torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)


def hypernetwork(decoder: Any, queries: torch.Tensor, token: int) -> torch.Tensor:
    """Return float (N, C/8): the weights of the upscaled channels, from one mask token."""
    weights: torch.Tensor = decoder.output_hypernetworks_mlps[token](queries[:, 1 + token])
    return weights
