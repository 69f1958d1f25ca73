"""Upscaling of image tokens to masks, whole or at chosen tokens only.

The transposed convolutions have stride equal to kernel, and layer norm sees one pixel at a time:
the 4 x 4 pixels that a token becomes depend on no other token.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import layer_norm

UPSCALE = 2
"""Of each of the two transposed convolutions."""

BLOCK = UPSCALE**2
"""Pixels of the low-res frame along a side of a token."""

_SAMPLED = (UPSCALE**2 - 1, 0)  # of a token's pixels, the one right below its centre
_TOKENS_AT_ONCE = 512  # so that what they are upscaled to stays in a processor's cache


def upscaled_masks(
    upscaling: nn.Sequential, keys: torch.Tensor, weights: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Upscale the image tokens four times and weigh their channels: (N, M, 4h, 4w).

    Args:
        upscaling: Transposed convolution, layer norm, activation, transposed convolution,
            activation.
        keys: float (N, h*w, C).
        weights: float (N, M, C/8).
        size: (h, w).
    """
    # Typed as sequences of plain modules; `_matrix` checks what it takes.
    first, norm, activation, second, last_activation = cast(Sequence[Any], upscaling)
    pixels = _spread(first, keys)  # (N, hw, 4, C/4)
    pixels = layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps)
    pixels = last_activation(_spread(second, activation(pixels)))  # (N, hw, 4, 4, C/8)
    logits = pixels.flatten(1, 3) @ weights.transpose(1, 2)  # (N, hw*16, M)
    return whole_masks(logits.unflatten(1, (-1, BLOCK**2)), size)


def whole_masks(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Put the pixels of all tokens, float (N, hw, 16, M), in their place: (N, M, 4h, 4w)."""
    height, width = size
    count, _, _, masks = logits.shape
    grid = logits.reshape(count, height, width, UPSCALE, UPSCALE, UPSCALE, UPSCALE, masks)
    # Rows are made of (h, first row, second row), columns of (w, first column, second column).
    grid = grid.permute(0, 7, 1, 3, 5, 2, 4, 6)
    return grid.reshape(count, masks, height * BLOCK, width * BLOCK)


class SharedUpscaling:
    """The upscaling of image tokens that are `scale * base + weights.T @ rows`.

    See `samonai.sam.shared_image`.

    Args:
        upscaling: The stock decoder's.
        base: float (hw, C), the same for all prompts.
    """

    def __init__(self, upscaling: nn.Sequential, base: torch.Tensor) -> None:
        """Let the first convolution see the base."""
        first, self.norm, self.activation, second, self.last_activation = cast(
            Sequence[Any], upscaling
        )
        self.matrix, self.bias = _matrix(first), first.bias
        self.base = base @ self.matrix
        self.second, self.second_bias = _matrix(second), second.bias

    def pixels(
        self,
        scale: torch.Tensor,
        weights: torch.Tensor,
        rows: torch.Tensor,
        hypernetworks: torch.Tensor,
    ) -> torch.Tensor:
        """Return the logits of all tokens of one prompt, float (hw, 16, M).

        Args:
            scale: float (hw,).
            weights: float (K, hw).
            rows: float (K, C).
            hypernetworks: float (M, C/8).
        """
        every = torch.arange(len(scale), device=scale.device)
        return self.pixels_at(every, scale, weights, rows, hypernetworks)

    def pixels_at(
        self,
        tokens: torch.Tensor,
        scale: torch.Tensor,
        weights: torch.Tensor,
        rows: torch.Tensor,
        hypernetworks: torch.Tensor,
    ) -> torch.Tensor:
        """Return the logits of some tokens, int64 (m,), float (m, 16, M); see `pixels`."""
        spread, (inner, outer) = rows @ self.matrix, (len(self.bias), len(self.second_bias))
        repeated = self.second_bias.repeat(UPSCALE**2)
        parts = []
        for some in tokens.split(_TOKENS_AT_ONCE):
            pixels = self.base[some] * scale[some, None]
            pixels.addmm_(weights[:, some].T, spread)
            pixels = self._activated(pixels.view(-1, inner))
            pixels = torch.addmm(repeated, pixels, self.second).view(-1, outer)
            parts.append(self.last_activation(pixels) @ hypernetworks.T)
        return torch.cat(parts).view(len(tokens), BLOCK**2, -1)

    def samples(
        self, scale: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Return the logit of one pixel of each token, float (hw,).

        Args:
            scale: See `pixels`, like the next two.
            weights: As there.
            rows: As there.
            wanted: float (C/8,), the hypernetwork's answer.
        """
        inner, outer = (
            slice(sub * len(bias), (sub + 1) * len(bias))
            for sub, bias in zip(_SAMPLED, (self.bias, self.second_bias), strict=True)
        )
        pixels = self.base[:, inner] * scale[:, None]
        pixels.addmm_(weights.T, rows @ self.matrix[:, inner])
        pixels = torch.addmm(self.second_bias, self._activated(pixels), self.second[:, outer])
        sampled: torch.Tensor = self.last_activation(pixels) @ wanted
        return sampled

    def _activated(self, pixels: torch.Tensor) -> torch.Tensor:
        """Finish the first convolution, (pixels, C/4), in place, and what follows it."""
        pixels += self.bias
        norm = self.norm
        pixels = layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps)
        activated: torch.Tensor = self.activation(pixels)
        return activated


def _spread(convolution: nn.ConvTranspose2d, pixels: torch.Tensor) -> torch.Tensor:
    """Apply a transposed convolution of stride = kernel = 2 to channels-last pixels.

    Returns:
        float (..., 4, out channels): the 2 x 2 pixels that each pixel becomes, row by row.
    """
    assert convolution.bias is not None
    spread = pixels @ _matrix(convolution)
    return spread.unflatten(-1, (UPSCALE**2, -1)) + convolution.bias


def _matrix(convolution: nn.ConvTranspose2d) -> torch.Tensor:
    """Return the weights of a transposed convolution of stride = kernel = 2: (C, 4 * out)."""
    assert convolution.kernel_size == convolution.stride == (UPSCALE, UPSCALE)
    return convolution.weight.permute(0, 2, 3, 1).reshape(convolution.weight.shape[0], -1)
