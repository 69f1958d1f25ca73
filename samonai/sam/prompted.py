"""Prompts of every kind through the stock prompt encoder and mask decoder."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from samonai.prompts.types import Prompts
from samonai.sam.decoder import decode_tokens, prompts_at_once
from samonai.sam.outputs import DecodeOutput
from samonai.sam.prompt_embedding import embed_prompts
from samonai.sam.shared_image import SharedImage, attend
from samonai.sam.upscaling import BLOCK, whole_masks
from samonai.sam.windows import Window, WindowRule, kinds_in_windows, place, windows_of

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
    rule: WindowRule | None = None,
) -> DecodeOutput:
    """Decode ragged prompts on a batch of embeddings.

    Args:
        prompt_encoder: The stock module.
        decoder: The stock mask decoder.
        image_embeddings: float32 (B, C, h, w).
        prompts: N prompts.
        mask_tokens: Which mask tokens to return masks for.
        shared: What the prompts of the only image share, where it is known.
        rule: Each prompt's window of the image tokens; None: all of them.

    Returns:
        Logits (N, M, 4h, 4w) and IoU predictions (N, M), in the order of the prompts.
    """
    frames = _Frames(prompt_encoder, decoder, image_embeddings, mask_tokens)
    windows = None if rule is None else rule.windows(prompts, frames.side)
    groups, parts = [], []
    for rows, size in kinds_in_windows(prompts, windows, frames.side):
        common = None if bool(prompts[rows[:1]].row_has_mask()[0]) else shared
        for some in rows.split(frames.at_once(len(rows), size)):
            few = prompts[some]
            seen = None if windows is None or size == frames.side else windows_of(windows, some)
            part = (
                _decode_kind(frames, few, seen)
                if common is None
                else _decode_shared(frames, common, few, seen)
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


@dataclass(frozen=True)
class _Frames:
    """The frames that prompts are decoded on, and by which modules; see `decode_prompts`."""

    prompt_encoder: Any
    decoder: Any
    embeddings: torch.Tensor
    mask_tokens: range

    @property
    def side(self) -> int:
        """Return the tokens along a side of an embedding."""
        return int(self.embeddings.shape[-1])

    @cached_property
    def image(self) -> torch.Tensor:
        """Return the embeddings with channels last: (B, h, w, C)."""
        return self.embeddings.permute(0, 2, 3, 1).contiguous()

    def at_once(self, rows: int, size: int) -> int:
        """Return how many of so many prompts to decode at once, in windows of a size."""
        if self.embeddings.device.type == "cpu" and not torch.is_grad_enabled():
            return prompts_at_once((self.embeddings.shape[1], size, size))
        return max(rows, 1)


def _decode_kind(frames: _Frames, prompts: Prompts, windows: list[Window] | None) -> DecodeOutput:
    """Decode prompts that all have the same parts, in windows of one size or on all tokens."""
    prompt_encoder = frames.prompt_encoder
    if windows is not None and prompts.mask_inputs is not None:
        masks = [w.of_low_res(m) for w, m in zip(windows, prompts.mask_inputs, strict=True)]
        prompts = replace(prompts, mask_inputs=torch.stack(masks))
    # bfloat16 cannot represent a coordinate of a 1024 frame, so positions are outside autocast.
    with torch.autocast(frames.embeddings.device.type, enabled=False):
        sparse, dense = embed_prompts(prompt_encoder, prompts)
        position = prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    # Channels last: (B, h, w, C) and (N, h, w, C).
    image, dense = frames.image, dense.permute(0, 2, 3, 1)
    if windows is not None:
        size, rows = windows[0].size, prompts.image_index.tolist()
        grid = position[0].unflatten(0, (frames.side, -1))
        position = torch.stack([window.of_tokens(grid).flatten(0, 1) for window in windows])
        image = torch.stack(
            [window.of_tokens(image[row]) for row, window in zip(rows, windows, strict=True)]
        )
        image = image + dense[:, :size, :size]  # of windows, or the same at each token
    elif len(image) == 1 and not bool(prompts.row_has_mask()[0]):
        image = image + dense[:1]  # the same for all
    else:
        image = image[prompts.image_index] + dense
    logits, iou = decode_tokens(frames.decoder, image, position, sparse, frames.mask_tokens)
    if windows is not None:
        logits = place(logits, windows, frames.side)
    return DecodeOutput(logits, iou[:, frames.mask_tokens.start : frames.mask_tokens.stop])


def _decode_shared(
    frames: _Frames, shared: SharedImage, prompts: Prompts, windows: list[Window] | None
) -> DecodeOutput:
    """Decode prompts without a mask that all have the same parts, on the only image."""
    decoder, mask_tokens = frames.decoder, frames.mask_tokens
    sparse, _ = embed_prompts(frames.prompt_encoder, prompts)
    parts = shared.parts(windows, len(prompts))
    queries, image = attend(parts, prompt_tokens(decoder, sparse), 1 + mask_tokens.stop)
    hypernetworks = torch.stack([hypernetwork(decoder, queries, s) for s in mask_tokens], 1)
    pixels = [
        part.upscaling.pixels(*of_prompt)
        for part, *of_prompt in zip(
            parts, image.scale, image.weights, image.rows, hypernetworks, strict=True
        )
    ]
    logits = whole_masks(torch.stack(pixels), (parts[0].side, parts[0].side))
    if windows is not None:
        logits = place(logits, windows, shared.side)
    iou_predictions = decoder.iou_prediction_head(queries[:, 0])
    return DecodeOutput(logits, iou_predictions[:, mask_tokens.start : mask_tokens.stop])


def prompt_tokens(decoder: Any, sparse: torch.Tensor) -> torch.Tensor:
    """Return the decoder's own tokens before sparse embeddings (N, P, C): (N, T, C)."""
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    return torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)


def hypernetwork(decoder: Any, queries: torch.Tensor, token: int) -> torch.Tensor:
    """Return float (N, C/8): the weights of the upscaled channels, from one mask token."""
    weights: torch.Tensor = decoder.output_hypernetworks_mlps[token](queries[:, 1 + token])
    return weights
