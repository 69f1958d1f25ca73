"""Prompt embedding by segment-anything's prompt encoder."""

from typing import Any

import torch

from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts


def embed_prompts(prompt_encoder: Any, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed prompts that all have the same parts, see `Prompts.kinds`.

    Args:
        prompt_encoder: The stock prompt encoder.
        prompts: N prompts. Their masks may be cut to windows of whole tokens: each token's dense
            embedding depends on its own 4 x 4 pixels alone.

    Returns:
        sparse (N, T, C) and dense (N, C, h, w) embeddings, h and w those of the cut masks.
    """
    points = None
    if prompts.point_coords is not None and prompts.point_labels is not None:
        count = int((prompts.point_labels[0] != NO_POINT).sum())
        if count:
            # Padding goes last, so that rows of one kind have their points side by side.
            absent = prompts.point_labels == NO_POINT
            order = torch.argsort(absent.int(), dim=1, stable=True)[:, :count]
            coords = prompts.point_coords.gather(1, order[..., None].expand(-1, -1, 2))
            # Upstream's own label of a blank token is -1.
            points = (coords, prompts.point_labels.gather(1, order).clamp(min=-1))
    boxes = prompts.boxes if bool(prompts.row_has_box()[0]) else None
    masks = prompts.mask_inputs if bool(prompts.row_has_mask()[0]) else None
    if points is None and boxes is None and masks is None:
        masks_absent = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        height, width = prompt_encoder.image_embedding_size
        dense = masks_absent.expand(len(prompts), -1, height, width)
        return dense.new_zeros(len(prompts), 0, dense.shape[1]), dense
    sparse, dense = prompt_encoder(points, boxes, masks)
    return sparse, dense
