"""A leaner forward through segment-anything's image encoder: same modules, same weights.

Upstream's attention writes the whole attention map of every head to memory, three times over: at
1024 x 1024 pixels that is 768 MiB per copy in each global block of vit_b. Here no more than a few
MiB of it exist at once, and the decomposed relative positions take one of three forms, see
`attention_form`. Linear layers run on the tokens of the image only, never on the padding of the
attention windows. Nothing is cached between calls, so changed weights are seen at once; what could
be, the tables of relative positions, takes a few thousandths of a forward.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from samonai.errors import InputError

PRECISIONS = ("fp32", "bf16", "fp16", "auto")
"""What `encode_images` takes as `precision`."""

BIAS, FOLDED, BLOCKS = "bias", "folded", "blocks"
ATTENTION_FORMS = {
    BIAS: "fused, relative positions as an additive bias, built for a few heads at a time",
    FOLDED: "fused, relative positions folded into wider queries and keys, no bias at all",
    BLOCKS: "plain products, scores in blocks that stay in a processor's cache",
}
"""What `attention_form` returns, in words."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The relative positions of one global block at 1024 x 1024 would take heads x 64 MiB in fp32. One
# head at a time is no slower on a CPU and stays small beside the activations.
_BIAS_BYTES = 1 << 26
_BIAS_BYTES_CUDA = 1 << 28
# Scores that exist at once in the form of blocks: the fastest of 0.5 to 8 MiB.
_BLOCK_BYTES = 1 << 21
_SHORT = 1024
GLOBAL_TOKENS, WINDOW_TOKENS = 4096, 196
"""Tokens of a whole 1024 x 1024 image, and of a window of SAM's encoders."""


def encode_images(
    image_encoder: nn.Module,
    images: torch.Tensor,
    precision: str = "auto",
    *,
    checkpointing: bool = True,
) -> torch.Tensor:
    """Encode normalised images as `image_encoder(images)` would, in less time and memory.

    The result carries a gradient history only where a parameter of the encoder requires one, and
    may be used in autograd in any case. Encoders of other classes than `ImageEncoderViT` are called
    as they are.

    Args:
        image_encoder: The image encoder of a segment-anything model.
        images: float (B, 3, S, S), normalised and padded, model space.
        precision: "fp32" (equal to upstream within 1e-5), "bf16" (within 1 %), "fp16", or
            "auto": bf16 where the device has arithmetic for it, else fp32. Sums along the
            residual path, the neck and the result are float32 in any case.
        checkpointing: Where a gradient is needed, keep only what goes into each block, and compute
            the rest again: one more forward pass for a fraction of the memory.

    Returns:
        float32 (B, C, h, w) image embeddings, on the device of `images`.

    Raises:
        InputError: The precision is unknown, the images do not fit the encoder, or the values
            overflow in fp16.
    """
    dtype = dtype_of(resolve_precision(precision, images.device))
    trained = any(parameter.requires_grad for parameter in image_encoder.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
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
            embeddings = _encode_vit(image_encoder, images.float(), dtype, checkpointing)
    if dtype is torch.float16 and not torch.isfinite(embeddings).all():
        raise InputError("the encoder's values overflow in fp16; use precision bf16 or fp32")
    return embeddings


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16" for what the user asked, given the device.

    Raises:
        InputError: The precision is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bf16" if _has_bf16_arithmetic(device) else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype of a precision that `resolve_precision` returned."""
    return _DTYPES[precision]


def attention_form(device: torch.device, dtype: torch.dtype, length: int) -> str:
    """Return how the encoder brings relative positions into attention among `length` tokens.

    On a CPU plain products on blocks of scores are faster than the fused kernel in windows, and in
    bf16 over the whole image, where that kernel stays far below the rate of products; in fp32 it is
    the faster one there (`python -m benchmarks --only attention`). A GPU's fused kernels take no
    bias in half precision without reading it from memory, query by key: there the whole image is
    attended in the folded form, and windows, since they are small, with a bias.
    """
    whole = length > _SHORT
    if device.type == "cpu":
        return BLOCKS if dtype is torch.bfloat16 or not whole else BIAS
    half = dtype in (torch.bfloat16, torch.float16)
    return FOLDED if device.type == "cuda" and half and whole else BIAS


def _has_bf16_arithmetic(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


@contextlib.contextmanager
def _computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run matrix products in `dtype`, whatever autocast the caller is in."""
    enabled = dtype is not torch.float32
    with torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled):
        yield


def _encode_vit(
    encoder: ImageEncoderViT, images: torch.Tensor, dtype: torch.dtype, checkpointing: bool
) -> torch.Tensor:
    """Run patches, blocks and neck; (B, 3, S, S) to (B, C, h, w), float32."""
    with _computing_in(dtype, images.device):
        tokens = encoder.patch_embed(images).float()
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for block in encoder.blocks:
            if checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(_run_block, block, tokens, use_reentrant=False)
            else:
                tokens = _run_block(block, tokens)
    # The neck is half a percent of the work, and its LayerNorm2d squares small numbers.
    with _computing_in(torch.float32, images.device):
        embeddings: torch.Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embeddings.float().contiguous()


def _run_block(block: Block, tokens: torch.Tensor) -> torch.Tensor:
    """Run one transformer block on (B, H, W, C) tokens; the residual path stays float32."""
    tokens = _add(tokens, _attend(block.attn, block.norm1(tokens), block.window_size))
    return _add(tokens, _perceive(block.mlp, block.norm2(tokens)))


def _perceive(mlp: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return the MLP's output; its activation works in place where nothing is trained.

    A new tensor of the hidden layer's size costs more than the activation itself: the system hands
    out its memory page by page.
    """
    if torch.is_grad_enabled() or not isinstance(mlp, MLPBlock) or not _is_exact_gelu(mlp.act):
        result: torch.Tensor = mlp(tokens)
    else:
        result = mlp.lin2(torch.ops.aten.gelu_(mlp.lin1(tokens)))
    return result


def _is_exact_gelu(activation: nn.Module) -> bool:
    return type(activation) is nn.GELU and activation.approximate == "none"


def _add(tokens: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Add to the residual path, in place where autograd does not need the tokens as they were."""
    return tokens + change if torch.is_grad_enabled() else tokens.add_(change)


def _attend(attention: Attention, tokens: torch.Tensor, window_size: int) -> torch.Tensor:
    """Return the attention's output (B, H, W, C) for its normalised input (B, H, W, C).

    Args:
        attention: Upstream's attention module.
        tokens: float (B, H, W, C).
        window_size: Side of the attention windows in tokens; 0 attends over the whole image.
    """
    height, width = tokens.shape[1:3]
    qkv = attention.qkv(tokens)
    side_h, side_w = (window_size, window_size) if window_size else (height, width)
    rows, columns = -(-height // side_h), -(-width // side_w)
    if rows * side_h > height or columns * side_w > width:
        # Upstream pads the tokens with zeros, and the padding takes part as keys and values:
        # what the linear layer makes of a zero token, its bias.
        padding = attention.qkv(tokens.new_zeros(1, tokens.shape[-1]))[0]
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
    out = _attend_in_chunks(attention, q, k, v)
    out = out.unflatten(1, (side_h, side_w)).unflatten(0, (*batch, heads))
    out = out.permute(0, 1, 4, 2, 5, 3, 6)
    out = out.reshape(batch[0], rows * side_h, columns * side_w, -1)[:, :height, :width]
    result: torch.Tensor = attention.proj(out)
    return result


def _attend_in_chunks(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Attend within each of N grids of tokens, (N, h, w, c) each, with relative positions.

    Returns:
        (N, h·w, c), in the dtype of the inputs.
    """
    height, width = q.shape[1:3]
    length = height * width
    scale = attention.scale
    if not attention.use_rel_pos:
        q, k, v = (part.flatten(1, 2)[None] for part in (q, k, v))
        return scaled_dot_product_attention(q, k, v, scale=scale)[0]
    # (h_query, h_key, c) and (w_query, w_key, c), in the precision of the queries.
    table_h = get_rel_pos(height, height, attention.rel_pos_h).to(q.dtype)
    table_w = get_rel_pos(width, width, attention.rel_pos_w).to(q.dtype)
    # The other forms write into memory that autograd would look at.
    form = FOLDED if torch.is_grad_enabled() else attention_form(q.device, q.dtype, length)
    return ATTENTION[form](q, k, v, table_h, table_w, scale)


def _attend_with_bias(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table_h: torch.Tensor,
    table_w: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attend with the relative positions as a bias (chunk, h·w, h·w); see `_attend_in_chunks`."""
    count, height, width, _ = q.shape
    length = height * width
    budget = _BIAS_BYTES_CUDA if q.is_cuda else _BIAS_BYTES
    chunk = max(1, budget // (length * length * q.element_size()))
    bias = q.new_empty(min(chunk, count), height, width, height, width)
    out = q.new_empty(count, length, q.shape[-1])
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        queries, keys, values = (x[part].flatten(1, 2)[None] for x in (q, k, v))
        along_h = torch.einsum("nhwc,hkc->nhwk", q[part], table_h)[..., :, None]
        along_w = torch.einsum("nhwc,wkc->nhwk", q[part], table_w)[..., None, :]
        filled = bias[: len(q[part])]
        torch.add(along_h, along_w, out=filled)
        mask = filled.view(1, -1, length, length)
        out[part] = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale
        )[0]
    return out


def _attend_folded(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table_h: torch.Tensor,
    table_w: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attend on queries that carry their own relative positions; see `_attend_in_chunks`.

    A query's term for a key's row, and that for its column, are h + w numbers. They become channels
    of the query, and a key's row and column, written as ones among zeros, those of the key: their
    product is the bias. Values are padded to the same width, which fused kernels ask for.
    """
    count, height, width, channels = q.shape
    along_h = torch.einsum("nhwc,hkc->nhwk", q, table_h)
    along_w = torch.einsum("nhwc,wkc->nhwk", q, table_w)
    queries = torch.cat([q * scale, along_h, along_w], dim=-1).flatten(1, 2)
    rows = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, 0)
    columns = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    places = torch.cat([rows, columns], dim=-1).expand(count, -1, -1)
    keys = torch.cat([k.flatten(1, 2), places], dim=-1)
    values = pad(v.flatten(1, 2), (0, height + width))
    out = scaled_dot_product_attention(queries[None], keys[None], values[None], scale=1.0)
    return out[0][..., :channels]


def _attend_in_blocks(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table_h: torch.Tensor,
    table_w: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attend on blocks of scores, one after the other; see `_attend_in_chunks`.

    A block is some rows of queries of some heads against all keys. It is laid out keys by queries:
    a key's row and column have a term for each query, and adding them then runs along memory, over
    all queries of the block, instead of over the few keys of one row.
    """
    count, height, width, _ = q.shape
    length = height * width
    along_h = torch.einsum("nhwc,hkc->nkhw", q, table_h).flatten(2)  # (count, h_key, queries)
    along_w = torch.einsum("nhwc,wkc->nkhw", q, table_w).flatten(2)
    keys, queries = (k * scale).flatten(1, 2), q.flatten(1, 2).mT
    values = v.flatten(1, 2).mT.contiguous()  # a transposed one would be copied for every block
    budget = _BLOCK_BYTES // (length * q.element_size())  # queries
    rows = min(height, max(1, budget // width))
    heads = max(1, budget // length)
    memory = q.new_empty(min(heads, count) * length * rows * width)
    out = torch.empty_like(values)
    for first in range(0, count, heads):
        some = slice(first, first + heads)
        for row in range(0, height, rows):
            part = slice(row * width, (row + rows) * width)
            above, beside = along_h[some, :, None, part], along_w[some, None, :, part]
            shape = (len(above), height, width, above.shape[-1])
            scores = memory[: math.prod(shape)].view(shape)
            torch.add(above, beside, out=scores)
            block = scores.view(len(above), length, -1)
            block.baddbmm_(keys[some], queries[some, :, part])
            out[some, :, part] = torch.bmm(values[some], block.softmax(1))
    return out.mT


ATTENTION = {BIAS: _attend_with_bias, FOLDED: _attend_folded, BLOCKS: _attend_in_blocks}
"""What attends in each of `ATTENTION_FORMS`; see `_attend_in_chunks` for what it takes."""
