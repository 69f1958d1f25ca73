"""Many prompts on one image: two-way attention in terms of what the prompts share.

The image tokens of a prompt differ from the image's own by what H heads and T prompt tokens added
in each block: a sum of H*T rows, weighted differently at each token. Layer norm keeps that form,
its mean being linear and its deviation a number per token. So after every block

    image tokens = scale * base + weights.T @ rows,

with `base` (h*w, C) the same for all prompts, `scale` (h*w,), `weights` (K, h*w) and `rows` (K, C)
a prompt's own. Each projection of `base` is computed once per image. Per prompt, what remains are
products with as many columns as a head has channels, or as there are rows: a fifth of the
arithmetic of `decoder.decode_tokens`, equal to it within float32 rounding.

Nothing here takes part in training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.transformer import Attention

from samonai.sam.decoder import attend_to_tokens, by_head
from samonai.sam.lora import effective_weight
from samonai.sam.upscaling import SharedUpscaling

_BYTES_OF_WEIGHTS = 1 << 24
"""Of all prompts decoded at once: what a processor's last cache holds."""


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of N prompts after the last block.

    Attributes:
        scale: float (N, hw), the factor of the base at each token.
        weights: float (N, K, hw).
        rows: float (N, K, C).
    """

    scale: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class _Projection:
    """A linear map by head of the base, and of the terms added to it.

    Attributes:
        weight: float (H, d, C).
        base: float (H, d, hw).
        added: float (H, d, hw), the map of the positional encoding, and the bias.
    """

    weight: torch.Tensor
    base: torch.Tensor
    added: torch.Tensor


@dataclass(frozen=True)
class _Values:
    """Image features gathered by prompt tokens.

    Attributes:
        weight: float (H, d, C).
        base: float (H, hw, d).
    """

    weight: torch.Tensor
    base: torch.Tensor


@dataclass(frozen=True)
class _Norm:
    """Layer norm after a block, in terms of the centred base.

    Attributes:
        squares: float (hw,), squared length of each token of the centred base.
        products: float (H, d + 1, hw) for each block so far: the centred base times what the block
            adds per channel of a head's values, and per unit of its bias.
        constants: float (hw,) for each layer norm before: the centred base times its bias.
        outputs: float (H, d + 1, C), what this block adds, before it is centred.
        weight: float (C,).
        bias: float (C,).
        eps: Added to the variance.
    """

    squares: torch.Tensor
    products: tuple[torch.Tensor, ...]
    constants: tuple[torch.Tensor, ...]
    outputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float


class SharedImage:
    """One image before the mask decoder, projected as each of its attentions asks for.

    Args:
        decoder: The stock decoder.
        image: float (hw, C), image embedding plus the dense embedding of "no mask".
        position: float (hw, C), positional encoding of the image tokens.
    """

    def __init__(self, decoder: MaskDecoder, image: torch.Tensor, position: torch.Tensor) -> None:
        """Project the image."""
        self.decoder = decoder
        self._asked: list[tuple[_Projection, _Values]] = []
        self._asking: list[_Projection] = []
        self._norms: list[_Norm] = []
        base, outputs, biases = image, list[torch.Tensor](), list[torch.Tensor]()
        for layer in decoder.transformer.layers:
            attention = layer.cross_attn_token_to_image
            self._asked.append(_keys_and_values(attention, base, position))
            attention = layer.cross_attn_image_to_token
            self._asking.append(_projection(attention.q_proj, attention.num_heads, base, position))
            added, norm = _outputs(attention), layer.norm4
            base = _centred(base)
            outputs = [_centred(each) for each in [*outputs, added]]
            biases = [_centred(each) for each in biases]
            self._norms.append(
                _Norm(
                    base.square().sum(1),
                    tuple((each @ base.T).contiguous() for each in outputs),
                    tuple(each @ base.T for each in biases),
                    added,
                    norm.weight,
                    norm.bias,
                    norm.eps,
                )
            )
            base = base * norm.weight
            outputs = [each * norm.weight for each in outputs]
            biases = [*(each * norm.weight for each in biases), norm.bias]
        self.upscaling = SharedUpscaling(decoder.output_upscaling, base)
        attention = decoder.transformer.final_attn_token_to_image
        self._final = _keys_and_values(attention, base, position)

    def prompts_at_once(self, tokens: int) -> int:
        """Return how many prompts of so many tokens to decode at once."""
        rows = len(self._norms) * (tokens * len(self._asking[0].weight) + 1)
        return max(1, _BYTES_OF_WEIGHTS // (4 * rows * len(self.upscaling.base)))

    def attend(self, tokens: torch.Tensor, kept: int) -> tuple[torch.Tensor, ImageTokens]:
        """Run the two-way transformer.

        Args:
            tokens: float (N, T, C), the decoder's own tokens and the sparse prompt embeddings.
            kept: How many of them, from the first on, are wanted back.

        Returns:
            float (N, kept, C), and the image tokens.
        """
        run = _Run(len(tokens), tokens.shape[1], self._norms, self._asking)
        transformer, queries = self.decoder.transformer, tokens
        for layer, (keys, values), asking, norm in zip(
            transformer.layers, self._asked, self._asking, self._norms, strict=True
        ):
            queries = attend_to_tokens(layer, queries, tokens)
            attention = layer.cross_attn_token_to_image
            attended = run.gather(attention, queries + tokens, keys, values)
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            run.update(layer.cross_attn_image_to_token, queries + tokens, queries, asking)
            run.normalise(norm)
        attention = transformer.final_attn_token_to_image
        queries, placed = queries[:, :kept], (queries + tokens)[:, :kept]
        attended = run.gather(attention, placed, *self._final)
        assert run.scale is not None
        image = ImageTokens(run.scale, run.weights, run.rows)
        return transformer.norm_final_attn(queries + attended), image


class _Run:
    """The image tokens of N prompts on their way through the blocks.

    The products of each prompt are taken by themselves: their operands then stay in the cache, and
    batched products of these shapes are slower.
    """

    def __init__(
        self, prompts: int, tokens: int, norms: Sequence[_Norm], asking: Sequence[_Projection]
    ) -> None:
        heads, _, size = asking[0].base.shape
        self._buffer = norms[0].squares.new_empty(prompts, len(norms) * (heads * tokens + 1), size)
        self._count = 0  # of the rows of the buffer in use
        self.rows = norms[0].weight.new_empty(prompts, 0, len(norms[0].weight))
        self.scale: torch.Tensor | None = None
        self._values: list[torch.Tensor] = []

    @property
    def weights(self) -> torch.Tensor:
        """Return float (N, K, hw)."""
        return self._buffer[:, : self._count]

    def gather(
        self, attention: Attention, placed: torch.Tensor, keys: _Projection, values: _Values
    ) -> torch.Tensor:
        """Let prompt tokens (N, T, C) attend to the image; see `decoder._tokens_to_image`."""
        heads = attention.num_heads
        queries = by_head(attention.q_proj(placed), heads)
        queries = queries / math.sqrt(queries.shape[-1])  # (N, H, T, d)
        weights = self._scores(queries, keys).softmax(-1)
        scaled = weights if self.scale is None else weights * self.scale[:, None, None]
        # The bias of the values is added once, as the weights of a query sum to one.
        gathered = torch.stack([torch.bmm(one, values.base) for one in scaled])
        if self._count:
            flat = weights.flatten(1, 2)
            parts = [one @ own.T for one, own in zip(flat, self.weights, strict=True)]
            own = (torch.stack(parts) @ self.rows).unflatten(1, (heads, -1))  # (N, H, T, C)
            gathered = gathered + own @ values.weight.mT
        merged = gathered.transpose(1, 2).flatten(2) + attention.v_proj.bias
        out: torch.Tensor = attention.out_proj(merged)
        return out

    def update(
        self,
        attention: Attention,
        placed: torch.Tensor,
        queries: torch.Tensor,
        asking: _Projection,
    ) -> None:
        """Let the image attend to prompt tokens (N, T, C); see `decoder._image_to_tokens`."""
        heads = attention.num_heads
        keys = by_head(attention.k_proj(placed), heads)
        keys = keys / math.sqrt(keys.shape[-1])
        end = self._count + heads * keys.shape[2]
        scores = self._scores(keys, asking, self._buffer[:, self._count : end])
        scores.sub_(scores.amax(2, keepdim=True)).exp_()
        scores.div_(scores.sum(2, keepdim=True))
        values = by_head(attention.v_proj(queries), heads)
        self._values.append(torch.cat([values, torch.ones_like(values[..., :1])], -1))
        self._count = end

    def normalise(self, norm: _Norm) -> None:
        """Apply layer norm to the image tokens."""
        added = (self._values[-1] @ norm.outputs).flatten(1, 2)  # (N, HT, C)
        rows = _centred(torch.cat([self.rows, added], 1))
        variance = self._squares(norm, rows) / rows.shape[2]
        factor = torch.rsqrt(variance.clamp(min=0) + norm.eps)
        self.scale = factor if self.scale is None else self.scale * factor
        self.weights.mul_(factor[:, None])
        self._buffer[:, self._count] = 1
        self._count += 1
        bias = norm.bias.expand(len(rows), 1, -1)
        self.rows = torch.cat([rows * norm.weight, bias], 1)

    def _squares(self, norm: _Norm, rows: torch.Tensor) -> torch.Tensor:
        """Return float (N, hw), squared lengths of the centred tokens."""
        gram = rows @ rows.mT
        mixed = self._buffer.new_empty(rows.shape[1], self._buffer.shape[2])
        squares = []
        for n, weights in enumerate(self.weights):
            self._multiply_base(norm, n, mixed)
            base = norm.squares
            if self.scale is not None:
                mixed *= self.scale[n]
                base = base * self.scale[n].square()
            mixed.addmm_(gram[n], weights, beta=2)
            squares.append(base + mixed.mul_(weights).sum(0))
        return torch.stack(squares)

    def _multiply_base(self, norm: _Norm, prompt: int, out: torch.Tensor) -> None:
        """Write the products of a prompt's rows with the centred base to `out`, (K, hw)."""
        end = 0
        for block, products in enumerate(norm.products):
            values = self._values[block][prompt]
            start, end = end, end + values.shape[0] * values.shape[1]
            torch.bmm(values, products, out=out[start:end].view(*values.shape[:2], -1))
            if block < len(norm.constants):
                out[end] = norm.constants[block]
                end += 1

    def _scores(
        self, queries: torch.Tensor, keys: _Projection, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the products of queries (N, H, T, d) with projected tokens: (N, H, T, hw)."""
        shape = (*queries.shape[:3], keys.base.shape[2])
        scores = queries.new_empty(shape) if out is None else out.view(shape)
        onto_rows = (queries @ keys.weight).flatten(1, 2) @ self.rows.mT  # (N, HT, K)
        for n, one in enumerate(scores):
            torch.bmm(queries[n], keys.base, out=one)
            if self.scale is not None:
                one.mul_(self.scale[n])
            one.baddbmm_(queries[n], keys.added)
            if self._count:
                one.flatten(0, 1).addmm_(onto_rows[n], self.weights[n])
        return scores


def _keys_and_values(
    attention: Attention, base: torch.Tensor, position: torch.Tensor
) -> tuple[_Projection, _Values]:
    # The bias of the keys adds the same to every score of a query: softmax takes it away.
    keys = _projection(attention.k_proj, attention.num_heads, base, position, bias=False)
    weight = effective_weight(attention.v_proj).unflatten(0, (attention.num_heads, -1))
    return keys, _Values(weight, (base @ weight.mT).contiguous())


def _projection(
    linear: Any, heads: int, base: torch.Tensor, position: torch.Tensor, *, bias: bool = True
) -> _Projection:
    weight = effective_weight(linear).unflatten(0, (heads, -1))
    added = weight @ position.T
    if bias:
        added = added + linear.bias.unflatten(0, (heads, -1, 1))
    return _Projection(weight, (weight @ base.T).contiguous(), added.contiguous())


def _outputs(attention: Attention) -> torch.Tensor:
    """Return float (H, d + 1, C): what each channel of a head's values adds, and its bias."""
    heads = attention.num_heads
    weight = effective_weight(attention.out_proj).T.unflatten(0, (heads, -1))
    # The weights of each head sum to one: a share of the bias per head adds it up to once.
    return torch.cat([weight, (attention.out_proj.bias / heads).expand(heads, 1, -1)], 1)


def _centred(channels: torch.Tensor) -> torch.Tensor:
    """Subtract from (..., C) the mean over the channels."""
    return channels - channels.mean(-1, keepdim=True)
