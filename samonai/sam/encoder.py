"""Image encoder forward with less time and memory, on segment-anything's modules and weights.

Attention is that of `samonai.sam.attention`. Linear layers run on the tokens of the image only,
never on the padding of the attention windows. Changed weights take effect at once: between calls
only int8's packed weights are cached, and checked for changes. The tables of relative positions,
which could be cached, take a few thousandths of a forward.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cache

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Attention, Block
from torch import nn
from torch.utils.checkpoint import checkpoint

from samonai.core.errors import InputError
from samonai.sam.attention import attend_within_grids
from samonai.sam.int8 import check_int8, cpu_capabilities, int8_linear
from samonai.settings.choices import PRECISIONS

INT8 = "int8"

COMPILE_SWITCH = "SAMONAI_COMPILE"
"""Environment variable; 1 compiles the encoder's blocks with `torch.compile`."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# int8 resolves to a name with the precision of the other layers, since signatures contain it.
_INT8_DTYPES = {f"{INT8}_{rest}": _DTYPES[rest] for rest in ("fp32", "bf16")}

Linear = Callable[[nn.Linear, torch.Tensor], torch.Tensor]
"""Function that computes a block's linear layers."""


def encode_images(
    image_encoder: nn.Module,
    images: torch.Tensor,
    precision: str = "auto",
    *,
    checkpointing: bool = True,
) -> torch.Tensor:
    """Encode normalised images as `image_encoder(images)` would, in less time and memory.

    The result carries a gradient history only if a parameter of the encoder requires one, and
    may be used in autograd in any case. Encoders of other classes than `ImageEncoderViT` are called
    unchanged.

    Args:
        image_encoder: The image encoder of a segment-anything model.
        images: float (B, 3, S, S), normalised and padded, model space.
        precision: "fp32" (equal to upstream within 1e-5), "bf16" (within 1 %), "fp16", "int8"
            (a CPU's, within 3 %: the blocks' linear layers in 8-bit integers, all else as "auto"
            has it), or "auto": bf16 where the device has arithmetic for it, else fp32. Sums along
            the residual path, the neck and the result are float32 in any case.
        checkpointing: If a gradient is needed, keep only the input of each block, and compute
            the rest again: one more forward pass for a fraction of the memory.

    Returns:
        float32 (B, C, h, w) image embeddings, on the device of `images`.

    Raises:
        InputError: The precision is unknown or not for this device or encoder, the images do not
            fit the encoder, or the values overflow in fp16.
    """
    resolved = resolve_precision(precision, images.device)
    dtype = dtype_of(resolved)
    trained = torch.is_grad_enabled() and any(p.requires_grad for p in image_encoder.parameters())
    if resolved in _INT8_DTYPES and (trained or not isinstance(image_encoder, ImageEncoderViT)):
        raise InputError(
            "precision int8 is for SAM's own encoders, and computes no gradient: use auto for "
            "vit_t, and where a part of the encoder is trained"
        )
    with torch.set_grad_enabled(trained):
        if not isinstance(image_encoder, ImageEncoderViT):
            with _computing_in(dtype, images.device):
                embeddings: torch.Tensor = image_encoder(images.float()).float()
        else:
            side = image_encoder.img_size
            if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
                raise InputError(
                    f"the image encoder takes images of shape (B, 3, {side}, {side}), got "
                    f"{tuple(images.shape)}; resize and pad them first"
                )
            if resolved in _INT8_DTYPES:
                # One by one: activations are scaled together, and the result for an image must
                # not depend on its neighbours.
                found = [
                    _encode_vit(image_encoder, image, dtype, False, int8_linear)
                    for image in images.float().split(1)
                ]
                embeddings = torch.cat(found)
            else:
                embeddings = _encode_vit(image_encoder, images.float(), dtype, checkpointing)
    if dtype is torch.float16 and not torch.isfinite(embeddings).all():
        raise InputError("the encoder's values overflow in fp16; use precision bf16 or fp32")
    return embeddings


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve a precision for a device; resolved ones are unchanged.

    Returns:
        "fp32", "bf16", "fp16", or "int8_fp32" or "int8_bf16", where the second half is the
        precision of the layers that stay floating point.

    Raises:
        InputError: The precision is not one of `PRECISIONS`, or not supported by the device.
    """
    if precision not in (*PRECISIONS, *_INT8_DTYPES):
        raise InputError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    if precision.startswith(INT8):
        check_int8(device)
    if precision not in (INT8, "auto"):
        return precision
    best = "bf16" if _has_bf16_arithmetic(device) else "fp32"
    return f"{INT8}_{best}" if precision == INT8 else best


def dtype_of(precision: str) -> torch.dtype:
    """Return the floating-point dtype of a resolved precision."""
    return (_DTYPES | _INT8_DTYPES)[precision]


def compiles() -> bool:
    """Return whether blocks are compiled; see `COMPILE_SWITCH`."""
    return os.environ.get(COMPILE_SWITCH) == "1"


def _has_bf16_arithmetic(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = cpu_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


@contextlib.contextmanager
def _computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run matrix products in `dtype`, regardless of the caller's autocast."""
    enabled = dtype is not torch.float32
    with torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled):
        yield


def _as_it_is(layer: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = layer(values)
    return result


def _encode_vit(
    encoder: ImageEncoderViT,
    images: torch.Tensor,
    dtype: torch.dtype,
    checkpointing: bool,
    linear: Linear = _as_it_is,
) -> torch.Tensor:
    """Run patches, blocks and neck; (B, 3, S, S) to (B, C, h, w), float32."""
    with _computing_in(dtype, images.device):
        tokens = encoder.patch_embed(images).float()
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        run = _run_compiled if compiles() and linear is _as_it_is else _run_block
        for block in encoder.blocks:
            if checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(run, block, tokens, linear, use_reentrant=False)
            else:
                tokens = run(block, tokens, linear)
    # The neck is half a percent of the work, and its LayerNorm2d squares small numbers.
    with _computing_in(torch.float32, images.device):
        embeddings: torch.Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embeddings.float().contiguous()


def _run_block(block: Block, tokens: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Run one transformer block on (B, H, W, C) tokens; the residual path stays float32."""
    tokens = _add(tokens, _attend(block.attn, block.norm1(tokens), block.window_size, linear))
    return _add(tokens, _perceive(block.mlp, block.norm2(tokens), linear))


def _run_compiled(block: Block, tokens: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Run one block compiled by `torch.compile` for blocks of its shape."""
    try:
        return _compiled()(block, tokens, linear)
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"torch.compile cannot compile the encoder here ({reason}); unset {COMPILE_SWITCH}"
        ) from error


@cache
def _compiled() -> Callable[[Block, torch.Tensor, Linear], torch.Tensor]:
    return torch.compile(_run_block, fullgraph=True, dynamic=False)


def _perceive(mlp: nn.Module, tokens: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Return the MLP's output; its activation works in place in inference.

    A new tensor of the hidden layer's size costs more than the activation itself, since the system
    maps its memory page by page.
    """
    if torch.is_grad_enabled() or not isinstance(mlp, MLPBlock) or not _is_exact_gelu(mlp.act):
        result: torch.Tensor = mlp(tokens)
    else:
        result = linear(mlp.lin2, torch.ops.aten.gelu_(linear(mlp.lin1, tokens)))
    return result


def _is_exact_gelu(activation: nn.Module) -> bool:
    return type(activation) is nn.GELU and activation.approximate == "none"


def _add(tokens: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Add to the residual path, in place unless autograd needs the tokens unchanged."""
    return tokens + change if torch.is_grad_enabled() else tokens.add_(change)


def _attend(
    attention: Attention, tokens: torch.Tensor, window_size: int, linear: Linear
) -> torch.Tensor:
    """Return the attention's output (B, H, W, C) for its normalised input (B, H, W, C).

    Args:
        attention: Upstream's attention module.
        tokens: float (B, H, W, C).
        window_size: Side of the attention windows in tokens; 0 attends over the whole image.
        linear: Function that computes the linear layers.
    """
    height, width = tokens.shape[1:3]
    qkv = linear(attention.qkv, tokens)
    side_h, side_w = (window_size, window_size) if window_size else (height, width)
    rows, columns = -(-height // side_h), -(-width // side_w)
    if rows * side_h > height or columns * side_w > width:
        # Upstream pads the tokens with zeros, and the padding is attended to as keys and values:
        # the linear layer's output for a zero token is its bias.
        padding = linear(attention.qkv, tokens.new_zeros(1, tokens.shape[-1]))[0]
        padded = qkv.new_empty(len(qkv), rows * side_h, columns * side_w, qkv.shape[-1])
        padded[:, :height, :width] = qkv
        padded[:, height:] = padding
        padded[:, :height, width:] = padding
        qkv = padded
    heads = attention.num_heads
    qkv = qkv.view(-1, rows, side_h, columns, side_w, 3, heads, qkv.shape[-1] // (3 * heads))
    qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)  # 3, B, rows, columns, heads, side_h, side_w, c
    batch = qkv.shape[1:4]
    q, k, v = qkv.reshape(3, -1, side_h, side_w, qkv.shape[-1]).unbind(0)  # (B·windows·heads, …)
    out = attend_within_grids(attention, q, k, v)
    out = out.unflatten(1, (side_h, side_w)).unflatten(0, (*batch, heads))
    out = out.permute(0, 1, 4, 2, 5, 3, 6)
    out = out.reshape(batch[0], rows * side_h, columns * side_w, -1)[:, :height, :width]
    return linear(attention.proj, out)
