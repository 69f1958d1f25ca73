"""MobileSAM's image encoder: timm's TinyViT behind the names of the published checkpoint.

MobileSAM changed TinyViT in four places: the last stage keeps its grid (64 x 64 of a 1024 x 1024
image, the stride of its merging convolution is 1), SAM's neck of two convolutions follows, the
classifier stays in the weights without being used, and a stage's merging layer is counted with
the stage before it. timm's blocks compute the same from other names; `state_dict()` and
`load_state_dict()` use the published ones, so that `mobile_sam.pt` loads, exports load in
MobileSAM, and the encoder's identity is that of the published tensors.
"""

import re
from collections.abc import Callable
from typing import Any, Self

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn.functional import conv2d, pad, scaled_dot_product_attention

from samonai.core.errors import InputError
from samonai.sam.normalisation import SAM_NORMALISATION

_IMAGE_SIZE = 1024
_EMBED_DIM = 256
_STRIDE = 16
_TIMM_MODEL = "tiny_vit_5m_224"


class TinyVitEncoder(nn.Module):
    """TinyViT as MobileSAM uses it; batch norms keep their statistics in every mode.

    Attributes:
        img_size: Side of the square model image in pixels.
    """

    def __init__(self, trunk: nn.Module, *, img_size: int = _IMAGE_SIZE) -> None:
        """Add the neck to timm's TinyViT, as made by `build_vit_t`.

        Args:
            trunk: timm's model with its classifier; it is changed in place.
            img_size: Side of the model image.
        """
        super().__init__()
        self.img_size = img_size
        self.trunk = trunk
        stages: Any = trunk.stages
        stages[-1].downsample.conv2.conv.stride = (1, 1)
        width = stages[-1].out_dim
        self.neck = nn.Sequential(
            nn.Conv2d(width, _EMBED_DIM, kernel_size=1, bias=False),
            LayerNorm2d(_EMBED_DIM),
            nn.Conv2d(_EMBED_DIM, _EMBED_DIM, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(_EMBED_DIM),
        )
        for block in (block for stage in stages[1:] for block in stage.blocks):
            # Not in the state: a model built on the meta device needs these values too.
            index = block.attn.attention_bias_idxs
            block.attn.attention_bias_idxs = torch.empty_like(index, device="cpu")
            block.attn.init_non_persistent_buffers()
        self.register_state_dict_post_hook(_to_published)
        self.register_load_state_dict_pre_hook(_from_published)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all but the batch norms, which stay in `eval()`."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode normalised images: float (B, 3, S, S) to float32 (B, C, S/16, S/16)."""
        trunk: Any = self.trunk
        x = images.contiguous(memory_format=torch.channels_last)
        x = _convolve(trunk.patch_embed.conv1, x)
        x = _convolve(trunk.patch_embed.conv2, trunk.patch_embed.act(x))
        for block in trunk.stages[0].blocks:
            x = _inverted_bottleneck(block, x)
        for stage in trunk.stages[1:]:
            tokens = _merge(stage.downsample, x).permute(0, 2, 3, 1)
            for block in stage.blocks:
                tokens = _run_block(block, tokens)
            x = tokens.permute(0, 3, 1, 2)
        # As for SAM's own encoders: the neck is little work, and its norm squares small numbers.
        with torch.autocast(images.device.type, enabled=False):
            embeddings: torch.Tensor = self.neck(x)
        return embeddings.contiguous()


def _convolve(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Run a convolution and its batch norm, whose statistics are fixed, as one convolution.

    In float32 in any precision: half precision is no faster on a CPU for convolutions as narrow
    as these, and triples the error of the embeddings.
    """
    conv, norm = layer.conv, layer.bn
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * factor
    weight = conv.weight * factor[:, None, None, None]
    with torch.autocast(x.device.type, enabled=False):
        return conv2d(x.float(), weight, bias, conv.stride, conv.padding, groups=conv.groups)


def _inverted_bottleneck(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Inverted bottleneck with residual: (B, C, H, W) to the same."""
    inner = block.act1(_convolve(block.conv1, x))
    inner = block.act2(_convolve(block.conv2, inner))
    out: torch.Tensor = block.act3(x + _convolve(block.conv3, inner))
    return out


def _merge(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Merge (B, C, H, W) to the next stage's grid and width."""
    x = layer.act1(_convolve(layer.conv1, x))
    x = layer.act2(_convolve(layer.conv2, x))
    return _convolve(layer.conv3, x)


def _run_block(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run one block on float32 tokens (B, H, W, C): window attention, convolution, MLP."""
    tokens = tokens + _attend(block.attn, tokens, block.window_size)
    tokens = _convolve(block.local_conv, tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    result: torch.Tensor = tokens + block.mlp(tokens)
    return result


def _attend(attention: Any, tokens: torch.Tensor, window_size: int) -> torch.Tensor:
    """Return the attention's output (B, H, W, C) for tokens that it normalises itself."""
    height, width, channels = tokens.shape[1:]
    rows, columns = -(-height // window_size), -(-width // window_size)
    # Upstream's padding takes part as zero tokens, before they are normalised.
    right, below = columns * window_size - width, rows * window_size - height
    tokens = pad(tokens, (0, 0, 0, right, 0, below))
    windows = tokens.view(-1, rows, window_size, columns, window_size, channels).transpose(2, 3)
    windows = windows.reshape(-1, window_size**2, channels)
    qkv = attention.qkv(attention.norm(windows))
    # Head by head: its queries, keys and values side by side.
    q, k, v = qkv.unflatten(2, (attention.num_heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)
    bias = attention.attention_biases[:, attention.attention_bias_idxs].to(q.dtype)[None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=attention.scale)
    out = attention.proj(out.transpose(1, 2).flatten(2))
    out = out.view(-1, rows, columns, window_size, window_size, channels).transpose(2, 3)
    result: torch.Tensor = out.reshape(-1, rows * window_size, columns * window_size, channels)
    return result[:, :height, :width]


def build_vit_t() -> Sam:
    """Build MobileSAM with random weights, in eval mode.

    Raises:
        InputError: timm is not installed.
    """
    grid = (_IMAGE_SIZE // _STRIDE, _IMAGE_SIZE // _STRIDE)
    return Sam(
        image_encoder=TinyVitEncoder(_trunk_builder()(_TIMM_MODEL, num_classes=1000)),
        prompt_encoder=PromptEncoder(
            _EMBED_DIM, grid, (_IMAGE_SIZE, _IMAGE_SIZE), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=_EMBED_DIM, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=_EMBED_DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=list(SAM_NORMALISATION.pixel_mean),
        pixel_std=list(SAM_NORMALISATION.pixel_std),
    ).eval()


def _trunk_builder() -> Callable[..., nn.Module]:
    try:
        from timm import create_model
    except ImportError as error:
        raise InputError("vit_t needs timm: pip install 'samonai[vit_t]'") from error
    return create_model


def published_name(name: str) -> str:
    """Return the name in MobileSAM's checkpoint of one of the encoder's tensors."""
    name = name.removeprefix("trunk.").replace(".conv.", ".c.")
    if found := re.match(r"patch_embed\.conv([12])\.(.*)", name):
        return f"patch_embed.seq.{2 * (int(found[1]) - 1)}.{found[2]}"
    if found := re.match(r"stages\.(\d+)\.(.*)", name):
        stage = int(found[1]) - found[2].startswith("downsample.")
        return f"layers.{stage}.{found[2]}"
    return name.replace("head.norm.", "norm_head.").replace("head.fc.", "head.")


def own_name(name: str) -> str:
    """Return the encoder's name of a tensor in MobileSAM's checkpoint."""
    if name.startswith("neck."):
        return name
    name = name.replace(".c.", ".conv.")
    if found := re.match(r"patch_embed\.seq\.([02])\.(.*)", name):
        return f"trunk.patch_embed.conv{int(found[1]) // 2 + 1}.{found[2]}"
    if found := re.match(r"layers\.(\d+)\.(.*)", name):
        stage = int(found[1]) + found[2].startswith("downsample.")
        return f"trunk.stages.{stage}.{found[2]}"
    if found := re.match(r"(norm_)?head\.(.*)", name):
        return f"trunk.head.{'norm' if found[1] else 'fc'}.{found[2]}"
    return name


def _to_published(module: nn.Module, state: dict[str, Any], prefix: str, *_unused: Any) -> None:
    _rename(state, prefix, published_name)


def _from_published(module: nn.Module, state: dict[str, Any], prefix: str, *_unused: Any) -> None:
    _rename(state, prefix, own_name)


def _rename(state: dict[str, Any], prefix: str, rename: Callable[[str], str]) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + rename(key.removeprefix(prefix))] = state.pop(key)
