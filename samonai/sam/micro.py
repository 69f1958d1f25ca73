"""The embedded model: a Segment Anything small enough to ship inside the package.

``micro`` is `segment_anything.modeling.Sam` with a narrow encoder (128 channels, six blocks) and a
narrow decoder: about 2.7 million parameters. It was trained from scratch on drawn scenes by
``tools/micro/train.py`` and is meant for demonstrations, tests and teaching; see
``weights/MODEL_CARD.md`` for what it scores and where it fails.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

MICRO_WEIGHTS = Path(__file__).parent / "weights" / "micro.safetensors"
"""The embedded weights: the full `Sam.state_dict()` layout, stored as fp16."""

MICRO_DIM = 128
"""Channels of the encoder's tokens, of the image embedding and of the decoder."""

_IMAGE_SIZE = 1024
_PATCH_SIZE = 16
_WINDOW_SIZE = 8
_PIXEL_MEAN = [123.675, 116.28, 103.53]
_PIXEL_STD = [58.395, 57.12, 57.375]


def build_micro() -> Sam:
    """Builds the micro model with random weights, drawn from torch's global generator.

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
    _initialise_positions(sam, grid)
    return sam.eval()


def load_micro(path: str | Path = MICRO_WEIGHTS) -> Sam:
    """Builds the micro model and loads its weights.

    Args:
        path: A safetensors file in the full `Sam.state_dict()` layout, any float dtype.

    Returns:
        The model in eval mode with fp32 parameters.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        RuntimeError: If the file's tensors are not exactly those of the micro model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the micro weights at {path}, found no file; reinstall samonai, or train "
            "them with tools/micro/train.py"
        )
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    sam = build_micro()
    sam.load_state_dict(state, strict=True)
    return sam


@torch.no_grad()
def _initialise_positions(sam: Sam, grid: int) -> None:
    """Starts the position codes where a small model can use them at once.

    Upstream draws the prompt frequencies from one normal distribution (wavelengths around half a
    frame) and starts the encoder's positions at zero. Here the frequencies spread log-uniformly
    over wavelengths from two frames to about three patches, and the encoder's positions start as
    the place of a patch within its window and within the frame.
    """
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    count = matrix.shape[1]
    magnitude = 0.25 * (40.0 ** torch.rand(count))
    angle = 2 * torch.pi * torch.rand(count)
    matrix.copy_(torch.stack([magnitude * torch.cos(angle), magnitude * torch.sin(angle)]))

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
    position = sam.image_encoder.pos_embed
    assert position is not None
    position.copy_((0.3 * within_window @ mix + 0.1 * within_frame)[None])
