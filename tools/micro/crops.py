"""Forward passes of the micro model on crops of tokens, over the stock modules.

A crop of K x K tokens is a window of the 1024 x 1024 frame: the encoder's positions and the dense
position code are cut at the same offset, and prompt coordinates are frame coordinates. So the
weights do not know at which crop size they are being trained, and early steps cost little.
Everything here uses `scaled_dot_product_attention`; the parameters are segment_anything's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention as EncoderAttention
from torch import Tensor

from samonai.sam.decoder import decode_tokens

PATCH = 16
WINDOW = 8


@dataclass
class PromptBatch:
    """Prompts of N objects, each of one image; coordinates are (x, y) in frame pixels.

    Attributes:
        image_index: N, int64: the image of each object.
        points: NxKx2 float32, or None.
        point_labels: NxK float32, 1 foreground, 0 background, -1 padding, or None.
        boxes: Nx4 float32 xyxy, or None.
        masks: Nx1x(4H)x(4W) float32 logits of the crop, or None.
    """

    image_index: Tensor
    points: Tensor | None = None
    point_labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


def normalise(sam: Sam, images: Tensor, valid: Tensor | None = None) -> Tensor:
    """Normalises Bx3xHxW images in 0-255; where `valid` (Bx1xHxW) is 0 the result is 0."""
    normal = (images - sam.pixel_mean) / sam.pixel_std
    return normal if valid is None else normal * valid


def encode(sam: Sam, images: Tensor, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Encodes normalised images Bx3xhxw whose first token lies at `offset` (row, column)."""
    encoder = sam.image_encoder
    x = encoder.patch_embed(images)
    height, width = x.shape[1:3]
    row, column = offset
    x = x + encoder.pos_embed[:, row : row + height, column : column + width]
    for block in encoder.blocks:
        y = block.norm1(x)
        if block.window_size:
            y = _windowed_attention(block.attn, y)
        else:
            y = _encoder_attention(block.attn, y.flatten(1, 2)).view_as(y)
        x = x + y
        x = x + block.mlp(block.norm2(x))
    return encoder.neck(x.permute(0, 3, 1, 2))


def _encoder_attention(attention: EncoderAttention, x: Tensor) -> Tensor:
    batch, length, dim = x.shape
    qkv = attention.qkv(x).view(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    if q.dtype == torch.bfloat16 and length <= WINDOW**2:
        # The fused kernel takes seven times as long for small windows in bfloat16 on a CPU.
        out = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return attention.proj(out.transpose(1, 2).reshape(batch, length, dim))


def _windowed_attention(attention: EncoderAttention, x: Tensor) -> Tensor:
    batch, height, width, dim = x.shape
    rows, columns = height // WINDOW, width // WINDOW
    x = x.view(batch, rows, WINDOW, columns, WINDOW, dim).transpose(2, 3)
    x = _encoder_attention(attention, x.reshape(-1, WINDOW * WINDOW, dim))
    x = x.view(batch, rows, columns, WINDOW, WINDOW, dim).transpose(2, 3)
    return x.reshape(batch, height, width, dim)


def decode(
    sam: Sam,
    embeddings: Tensor,
    prompts: PromptBatch,
    offset: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """Decodes N objects of B image embeddings (BxCxhxw).

    Returns:
        Logits Nx4x(4h)x(4w) (index 0 is the single mask, 1-3 the multimask) and IoU predictions
        Nx4, both float32.
    """
    height, width = embeddings.shape[-2:]
    row, column = offset
    sparse, dense = embed_prompts(sam, prompts)
    with torch.autocast(embeddings.device.type, enabled=False):
        pe = sam.prompt_encoder.get_dense_pe()[..., row : row + height, column : column + width]
    source = (embeddings.index_select(0, prompts.image_index) + dense).permute(0, 2, 3, 1)
    position = pe.flatten(2).transpose(1, 2)
    slots = range(sam.mask_decoder.num_mask_tokens)
    logits, iou_predictions = decode_tokens(sam.mask_decoder, source, position, sparse, slots)
    return logits.float(), iou_predictions.float()


def embed_prompts(sam: Sam, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
    """Embeds prompts in float32: bfloat16 cannot hold a coordinate of a 1024 frame."""
    encoder = sam.prompt_encoder
    sparse = []
    with torch.autocast(prompts.image_index.device.type, enabled=False):
        if prompts.points is not None and prompts.point_labels is not None:
            pad = prompts.boxes is None
            sparse.append(encoder._embed_points(prompts.points, prompts.point_labels, pad))
        if prompts.boxes is not None:
            sparse.append(encoder._embed_boxes(prompts.boxes))
        if prompts.masks is not None:
            dense = encoder._embed_masks(prompts.masks)
        else:
            dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return torch.cat(sparse, dim=1), dense
