"""Micro model: a Segment Anything small enough to be part of the package.

``micro`` is `segment_anything.modeling.Sam` with a narrow encoder (128 channels, six blocks) and a
narrow decoder: about 2.7 million parameters. It was trained from scratch on drawn scenes by
``tools/micro/train.py`` and is meant for demonstrations, tests and teaching; see
``weights/MODEL_CARD.md`` for what it scores and where it fails.
"""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

MICRO_DIM = 128
"""Channels of the encoder's tokens, of the image embedding and of the decoder."""

_IMAGE_SIZE = 1024
_PATCH_SIZE = 16
_WINDOW_SIZE = 8
_HARMONICS = 8
_PIXEL_MEAN = [123.675, 116.28, 103.53]
_PIXEL_STD = [58.395, 57.12, 57.375]


def build_micro() -> Sam:
    """Build the micro model with random weights, drawn from torch's global generator.

    Returns:
        A stock `Sam` in eval mode: 1024x1024 model space, image embeddings of shape
        Bx128x64x64, low-resolution logits of 256x256, SAM's pixel mean and standard deviation.
    """
    grid = _IMAGE_SIZE // _PATCH_SIZE
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=_IMAGE_SIZE,
            patch_size=_PATCH_SIZE,
            embed_dim=MICRO_DIM,
            depth=6,
            num_heads=4,
            mlp_ratio=4,
            out_chans=MICRO_DIM,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_abs_pos=True,
            use_rel_pos=False,
            window_size=_WINDOW_SIZE,
            global_attn_indexes=(3,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=MICRO_DIM,
            image_embedding_size=(grid, grid),
            input_image_size=(_IMAGE_SIZE, _IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=MICRO_DIM,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=MICRO_DIM, num_heads=4, mlp_dim=512
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=MICRO_DIM,
        ),
        pixel_mean=_PIXEL_MEAN,
        pixel_std=_PIXEL_STD,
    )
    _initialise_frequencies(sam)
    _initialise_cross_attention(sam)
    _initialise_positions(sam)
    return sam.eval()


@torch.no_grad()
def _initialise_frequencies(sam: Sam) -> None:
    """Spread the prompts' frequencies, a quarter along each axis.

    Upstream draws them all from one normal distribution. Here the first eight along x, and along
    y, are the odd harmonics of a wave as long as two frames, of which a sign function is the sum.
    """
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    coarse = 0.25 * torch.arange(1, 2 * _HARMONICS, 2)
    fine = torch.tensor([4.75, 5.75, 6.75, 7.75, 9.25, 11.25, 13.75, 16.75])
    axis = torch.cat([coarse, fine])
    rest = matrix.shape[1] - 2 * len(axis)
    magnitude = 0.25 * (40.0 ** torch.rand(rest))
    angle = 2 * torch.pi * torch.rand(rest)
    x = torch.cat([axis, torch.zeros(len(axis)), magnitude * torch.cos(angle)])
    y = torch.cat([torch.zeros(len(axis)), axis, magnitude * torch.sin(angle)])
    matrix.copy_(torch.stack([x, y]))


@torch.no_grad()
def _initialise_cross_attention(sam: Sam) -> None:
    """Initialise the decoder's cross-attention to distinguish left, right, above and below.

    Each of the four heads compares two places along one axis: its logit is a smooth sign of the
    difference, from the coarse or from the fine frequencies. The values are learned.
    """
    transformer = sam.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    waves = MICRO_DIM // 2  # the code is the sines, then the cosines
    for attention in attentions:
        q, k = attention.q_proj.weight, attention.k_proj.weight
        q.mul_(0.3)
        k.mul_(0.3)
        for head in range(attention.num_heads):
            first = (head % 2) * 2 * _HARMONICS + (head // 2) * _HARMONICS
            for i in range(_HARMONICS):
                gain = 15 / (2 * i + 1) if head < 2 else 2.0
                row, wave = head * 2 * _HARMONICS + i, first + i
                q[row, wave] += gain**0.5
                k[row, waves + wave] += gain**0.5
                q[row + _HARMONICS, waves + wave] += gain**0.5
                k[row + _HARMONICS, wave] -= gain**0.5


@torch.no_grad()
def _initialise_positions(sam: Sam) -> None:
    """Initialise the encoder's positions as a patch's place within its window and within the frame.

    Upstream starts them at zero.
    """
    position = sam.image_encoder.pos_embed
    assert position is not None
    grid = position.shape[1]
    index = torch.arange(grid, dtype=torch.float32)
    local = 2 * torch.pi * (index % _WINDOW_SIZE + 0.5) / _WINDOW_SIZE
    codes = []
    for frequency in (0.5, 1.0, 2.0, 3.0):
        for wave in (torch.sin(frequency * local), torch.cos(frequency * local)):
            codes.append(wave[:, None].expand(grid, grid))
            codes.append(wave[None, :].expand(grid, grid))
    within_window = torch.stack(codes, dim=-1)
    within_frame = sam.prompt_encoder.get_dense_pe()[0].permute(1, 2, 0)
    mix = torch.randn(within_window.shape[-1], MICRO_DIM) / within_window.shape[-1] ** 0.5
    position.copy_((0.3 * within_window @ mix + 0.1 * within_frame)[None])
