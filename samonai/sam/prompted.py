"""Prompts of every kind through the stock prompt encoder and mask decoder."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from samonai.prompts.types import Prompts
from samonai.sam.decoder import decode_tokens, prompts_at_once
from samonai.sam.outputs import DecodeOutput
from samonai.sam.prompt_embedding import embed_prompts
from samonai.sam.shared_image import SharedImage
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
    windows = windows_of(rule, prompts, frames.side)
    groups, parts = [], []
    for rows, size in kinds_in_windows(prompts, windows, frames.side):
        common = None if bool(prompts[rows[:1]].row_has_mask()[0]) else shared
        for some in rows.split(frames.at_once(len(rows), size)):
            few = prompts[some]
            if size < frames.side:
                part = _decode_windows(frames, few, [windows[row] for row in some.tolist()])
            elif common is not None:
                part = _decode_shared(frames, common, few)
            else:
                part = _decode_kind(frames, few)
            groups.append(some)
            parts.append(part)
    if not parts:
        height, width = image_embeddings.shape[-2:]
        empty = image_embeddings.new_zeros(0, len(mask_tokens), height * BLOCK, width * BLOCK)
        return DecodeOutput(empty, empty.new_zeros(0, len(mask_tokens)))
    if rule is None and len(parts) == 1:
        return parts[0]
    order = torch.argsort(torch.cat(groups))
    iou_predictions = torch.cat([part.iou_predictions for part in parts])[order]
    if rule is None:
        logits = torch.cat([part.low_res_logits for part in parts])[order]
    else:
        each = [logits for part in parts for logits in part.low_res_logits]
        logits = place([each[row] for row in order.tolist()], windows, frames.side)
    return DecodeOutput(logits, iou_predictions)


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

    @cached_property
    def position(self) -> torch.Tensor:
        """Return the positional encoding of the image tokens: (h, w, C)."""
        # bfloat16 cannot represent a coordinate of a 1024 frame, so this is outside autocast.
        with torch.autocast(self.embeddings.device.type, enabled=False):
            encoding: torch.Tensor = self.prompt_encoder.get_dense_pe()[0].permute(1, 2, 0)
        return encoding

    def embed(self, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sparse (N, P, C) and dense (N, h, w, C) embeddings of prompts of one kind."""
        with torch.autocast(self.embeddings.device.type, enabled=False):
            sparse, dense = embed_prompts(self.prompt_encoder, prompts)
        return sparse, dense.permute(0, 2, 3, 1)

    def at_once(self, rows: int, size: int) -> int:
        """Return how many of so many prompts to decode at once, in windows of a size."""
        if self.embeddings.device.type == "cpu" and not torch.is_grad_enabled():
            return prompts_at_once((self.embeddings.shape[1], size, size))
        return max(rows, 1)


def _decode_kind(frames: _Frames, prompts: Prompts) -> DecodeOutput:
    """Decode prompts that all have the same parts."""
    sparse, dense = frames.embed(prompts)
    image = frames.image
    if len(image) == 1 and not bool(prompts.row_has_mask()[0]):
        image = image + dense[:1]  # the same for all
    else:
        image = image[prompts.image_index] + dense
    return _decoded(frames, image, frames.position.flatten(0, 1)[None], sparse)


def window_masks(
    prompt_encoder: Any,
    decoder: Any,
    image_embeddings: torch.Tensor,
    prompts: Prompts,
    windows: list[Window],
) -> Iterator[tuple[int, Window, torch.Tensor]]:
    """Yield a row, its window and its single mask's logits there, of prompts with windows.

    Args:
        prompt_encoder: The stock module.
        decoder: The stock mask decoder.
        image_embeddings: float32 (B, C, h, w).
        prompts: N prompts.
        windows: Of each; those of all tokens are left out.

    Yields:
        Logits as float (4 * size, 4 * size), in no order of the rows.
    """
    frames = _Frames(prompt_encoder, decoder, image_embeddings, range(1))
    for rows, size in kinds_in_windows(prompts, windows, frames.side):
        if size == frames.side:
            continue
        for some in rows.split(frames.at_once(len(rows), size)):
            seen = [windows[row] for row in some.tolist()]
            logits, _ = _decode_windows(frames, prompts[some], seen)
            yield from zip(some.tolist(), seen, logits[:, 0], strict=True)


def _decode_windows(frames: _Frames, prompts: Prompts, windows: list[Window]) -> DecodeOutput:
    """Decode prompts that all have the same parts, in windows of one size.

    The logits, (N, M, 4 * size, 4 * size), are those of the windows.
    """
    if prompts.mask_inputs is not None:
        masks = [w.of_low_res(m) for w, m in zip(windows, prompts.mask_inputs, strict=True)]
        prompts = replace(prompts, mask_inputs=torch.stack(masks))
    sparse, dense = frames.embed(prompts)
    size, images = windows[0].size, prompts.image_index.tolist()
    image = torch.stack(
        [window.of_tokens(frames.image[n]) for n, window in zip(images, windows, strict=True)]
    )
    image = image + dense[:, :size, :size]  # of the windows, or the same at each token
    position = torch.stack([one.of_tokens(frames.position).flatten(0, 1) for one in windows])
    return _decoded(frames, image, position, sparse)


def _decoded(
    frames: _Frames, image: torch.Tensor, position: torch.Tensor, sparse: torch.Tensor
) -> DecodeOutput:
    mask_tokens = frames.mask_tokens
    logits, iou = decode_tokens(frames.decoder, image, position, sparse, mask_tokens)
    return DecodeOutput(logits, iou[:, mask_tokens.start : mask_tokens.stop])


def _decode_shared(frames: _Frames, shared: SharedImage, prompts: Prompts) -> DecodeOutput:
    """Decode prompts without a mask that all have the same parts, on the only image."""
    decoder, mask_tokens = frames.decoder, frames.mask_tokens
    sparse, _ = embed_prompts(frames.prompt_encoder, prompts)
    queries, image = shared.attend(prompt_tokens(decoder, sparse), 1 + mask_tokens.stop)
    hypernetworks = torch.stack([hypernetwork(decoder, queries, s) for s in mask_tokens], 1)
    pixels = [
        shared.upscaling.pixels(*parts)
        for parts in zip(image.scale, image.weights, image.rows, hypernetworks, strict=True)
    ]
    iou_predictions = decoder.iou_prediction_head(queries[:, 0])
    return DecodeOutput(
        whole_masks(torch.stack(pixels), (frames.side, frames.side)),
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
