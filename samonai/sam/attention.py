"""Attention with decomposed relative positions, as in SAM's encoder, in three forms.

Upstream's attention writes the whole attention map of every head to memory, three times over: at
1024 x 1024 pixels that is 768 MiB per copy in each global block of vit_b. Here no more than a few
MiB of it exist at once. `attention_form` says which form is used where.
"""

import math
from typing import NamedTuple

import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch.nn.functional import pad, scaled_dot_product_attention

BIAS, FOLDED, BLOCKS = "bias", "folded", "blocks"
ATTENTION_FORMS = {
    BIAS: "fused, relative positions as an additive bias, built for a few heads at a time",
    FOLDED: "fused, relative positions folded into wider queries and keys, no bias at all",
    BLOCKS: "plain products, scores in blocks that stay in a processor's cache",
}
"""Descriptions of the values of `attention_form`."""

# The relative positions of one global block at 1024 x 1024 would take heads x 64 MiB in fp32. One
# head at a time is no slower on a CPU and stays small beside the activations.
_BIAS_BYTES = 1 << 26
_BIAS_BYTES_CUDA = 1 << 28
# Scores that exist at once in the form of blocks: the fastest of 0.5 to 8 MiB.
_BLOCK_BYTES = 1 << 21
_SHORT = 1024
GLOBAL_TOKENS, WINDOW_TOKENS = 4096, 196
"""Tokens of a whole 1024 x 1024 image, and of a window of SAM's encoders."""


class Grids(NamedTuple):
    """Inputs of each form of attention: N grids of tokens, each attended within itself.

    Attributes:
        q: float (N, h, w, c), queries.
        k: float (N, h, w, c), keys.
        v: float (N, h, w, c), values.
        table_h: float (h_query, h_key, c), relative positions along rows.
        table_w: float (w_query, w_key, c), along columns.
        scale: Factor of the scores.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    table_h: torch.Tensor
    table_w: torch.Tensor
    scale: float


def attention_form(device: torch.device, dtype: torch.dtype, length: int) -> str:
    """Return the form of attention for relative positions among `length` tokens.

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


def attend_within_grids(
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
    # The other forms write into memory in loops, which autograd would track and a compiler would
    # unroll.
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        form = FOLDED
    else:
        form = attention_form(q.device, q.dtype, length)
    return ATTENTION[form](Grids(q, k, v, table_h, table_w, scale))


def _attend_with_bias(grids: Grids) -> torch.Tensor:
    """Attend with the relative positions as a bias (chunk, h·w, h·w); see `attend_within_grids`."""
    q, k, v, table_h, table_w, scale = grids
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


def _attend_folded(grids: Grids) -> torch.Tensor:
    """Attend with the relative positions folded into the queries; see `attend_within_grids`.

    A query's term for a key's row, and that for its column, are h + w numbers. They become channels
    of the query, and a key's row and column, one-hot encoded, those of the key: their
    product is the bias. Values are padded to the same width, which fused kernels require.
    """
    q, k, v, table_h, table_w, scale = grids
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


def _attend_in_blocks(grids: Grids) -> torch.Tensor:
    """Attend on blocks of scores, one after the other; see `attend_within_grids`.

    A block is some rows of queries of some heads against all keys. It is laid out keys by queries:
    a key's row and column have a term for each query, and adding them then runs along memory, over
    all queries of the block, instead of over the few keys of one row.
    """
    q, k, v, table_h, table_w, scale = grids
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
"""Function of each of `ATTENTION_FORMS`."""
