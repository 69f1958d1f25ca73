"""Masks of many prompts on one image, computed where they can be.

A mask covers few of an image's tokens, and those are upscaled. One pixel of each token tells where
that is; from there the tokens to upscale grow until no mask reaches their border. Of a prompt that
is decoded on a window of the tokens, all of these are upscaled.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import max_pool2d, pad

from samonai.core.geometry import LOW_RES_STRIDE, FrameGeometry
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork
from samonai.sam.prompt_embedding import embed_prompts
from samonai.sam.prompted import hypernetwork, prompt_tokens, window_masks
from samonai.sam.shared_image import SharedImage
from samonai.sam.upscaling import BLOCK, UPSCALE
from samonai.sam.windows import BACKGROUND, Window, windows_of

OUTSIDE = -1.0
"""The logit of pixels that are not computed, as they are outside the mask."""

_NEAR = 0.05  # of the largest sample: a token this close to the threshold is upscaled, too


class _Asked(NamedTuple):
    """One prompt's image tokens, and its hypernetwork's answer (1, C/8)."""

    scale: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    wanted: torch.Tensor


def positive_logits(
    network: SamNetwork,
    image_embeddings: torch.Tensor,
    prompts: Prompts,
    geometry: FrameGeometry,
    shared: SharedImage | None = None,
) -> torch.Tensor:
    """Decode N prompts, one mask each, and bring them to the frame where they are above 0.

    Args:
        network: Decodes, each prompt on its window or on all tokens.
        image_embeddings: float (1, C, h, w), of the only image.
        prompts: N prompts on it, none with a mask.
        geometry: The frame's.
        shared: From `SamNetwork.share`, where it pays.

    Returns:
        float32 (N, H, W), frame space, on the CPU: the logits of `SamNetwork.decode_single` within
        float32 rounding where they are above 0, elsewhere numbers that are not.
    """
    images = image_embeddings.to(network.device, torch.float32)
    prompts, side = prompts.to(network.device), images.shape[-1]
    windows = windows_of(network.windows, prompts, side)
    found = torch.full((len(prompts), *geometry.original_size), OUTSIDE)
    given = network.prompt_encoder, network.mask_decoder, images, prompts, windows
    for row, window, logits in window_masks(*given):
        lines, columns, values = geometry.window_to_frame(*_surrounded(logits, window, side))
        found[row, lines, columns] = values
    whole = torch.tensor([n for n, window in enumerate(windows) if window.size == side]).long()
    if len(whole) and shared is not None:
        found[whole] = _shared_logits(network, shared, prompts[whole], geometry)
    elif len(whole):
        output = network.decode_single(images, prompts[whole])
        found[whole] = geometry.logits_to_frame(output.low_res_logits)[:, 0].float().cpu()
    return found


def _surrounded(logits: torch.Tensor, window: Window, side: int) -> tuple[torch.Tensor, int, int]:
    """Add background along the edges of a window's logits that lie inside the image.

    A pixel of the frame between such an edge and the outside depends on both.

    Args:
        logits: float (4 * size, 4 * size).
        window: Where they lie.
        side: Tokens along a side of the image.

    Returns:
        float32, on the CPU, and the row and column of their first pixel in the low-res frame.
    """
    firsts = (window.top, window.left)
    before = [int(first > 0) for first in firsts]
    after = [int(first + window.size < side) for first in firsts]
    around = (before[1], after[1], before[0], after[0])
    top, left = (BLOCK * first - more for first, more in zip(firsts, before, strict=True))
    return pad(logits.float().cpu(), around, value=BACKGROUND), top, left


def _shared_logits(
    network: SamNetwork, shared: SharedImage, prompts: Prompts, geometry: FrameGeometry
) -> torch.Tensor:
    """Return the positive logits of prompts that share an image; see `positive_logits`."""
    found = torch.full((len(prompts), *geometry.original_size), OUTSIDE)
    for rows in prompts.kinds():
        few = prompts[rows]
        sparse, _ = embed_prompts(network.prompt_encoder, few)
        tokens = prompt_tokens(shared.decoder, sparse)
        several = network.multimask and bool(few.row_is_ambiguous()[0])
        for some in torch.arange(len(rows)).split(shared.prompts_at_once(tokens.shape[1])):
            for row, asked in zip(rows[some], _asked(shared, tokens[some], several), strict=True):
                box = None if prompts.boxes is None else prompts.boxes[row]
                lines, columns, logits = geometry.window_to_frame(*_window(shared, asked, box))
                found[row, lines, columns] = logits
    return found


def _asked(shared: SharedImage, tokens: torch.Tensor, several: bool) -> Iterator[_Asked]:
    """Attend to the image; yield what each prompt's mask is upscaled from."""
    decoder = shared.decoder
    queries, image = shared.attend(tokens, 1 + (decoder.num_mask_tokens if several else 1))
    chosen = [0] * len(tokens)
    if several:
        chosen = (1 + decoder.iou_prediction_head(queries[:, 0])[:, 1:].argmax(1)).tolist()
    for n, token in enumerate(chosen):
        wanted = hypernetwork(decoder, queries[n : n + 1], token)
        yield _Asked(image.scale[n], image.weights[n], image.rows[n], wanted)


def _window(
    shared: SharedImage, asked: _Asked, box: torch.Tensor | None
) -> tuple[torch.Tensor, int, int]:
    """Return the low-res logits around a mask, and where their top left pixel lies."""
    side = int(len(asked.scale) ** 0.5)
    samples = shared.upscaling.samples(*asked[:3], asked.wanted[0])
    blocks = samples[:, None].expand(-1, BLOCK**2).clone()
    done = torch.zeros(side, side, dtype=torch.bool)
    near = (samples > -_NEAR * samples.abs().max()).view(side, side)
    if box is not None and not bool(box.isnan().any()):
        left, top, right, bottom = (int(edge) for edge in box / (BLOCK * LOW_RES_STRIDE))
        near[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = True
    tokens = _spread_out(near).flatten().nonzero().flatten()
    while len(tokens):
        done.view(-1)[tokens] = True
        pixels = shared.upscaling.pixels_at(tokens, *asked)[..., 0]
        blocks[tokens] = pixels
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside.view(-1)[tokens] = (pixels > 0).any(1)
        tokens = (_spread_out(inside) & ~done).flatten().nonzero().flatten()
    return _crop(blocks, done)


def _spread_out(tokens: torch.Tensor) -> torch.Tensor:
    """Return bool (h, w): the tokens and their eight neighbours."""
    return max_pool2d(tokens[None].float(), 3, stride=1, padding=1)[0] > 0


def _crop(blocks: torch.Tensor, done: torch.Tensor) -> tuple[torch.Tensor, int, int]:
    """Put blocks (hw, 16) of pixels in place, cropped to the tokens that are done."""
    rows, columns = done.any(1).nonzero().flatten(), done.any(0).nonzero().flatten()
    if not len(rows):
        return blocks.new_empty(0, 0), 0, 0
    top, bottom, left, right = (int(n) for n in (rows[0], rows[-1], columns[0], columns[-1]))
    window = blocks.view(*done.shape, UPSCALE, UPSCALE, UPSCALE, UPSCALE)
    window = window[top : bottom + 1, left : right + 1].permute(0, 2, 4, 1, 3, 5)
    height, width = (bottom + 1 - top) * BLOCK, (right + 1 - left) * BLOCK
    return window.reshape(height, width), top * BLOCK, left * BLOCK
