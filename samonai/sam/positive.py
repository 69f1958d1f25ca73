"""Masks of many prompts on one image, computed where they can be.

A mask covers few of an image's tokens, and those are upscaled. One pixel of each token tells where
that is; from there the tokens to upscale grow until no mask reaches their border.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import max_pool2d, pad

from samonai.core.geometry import LOW_RES_STRIDE, FrameGeometry
from samonai.prompts.types import Prompts
from samonai.sam.prompt_embedding import embed_prompts
from samonai.sam.prompted import hypernetwork, prompt_tokens
from samonai.sam.shared_image import SharedImage, attend
from samonai.sam.upscaling import BLOCK, UPSCALE
from samonai.sam.windows import BACKGROUND, Window, WindowRule, kinds_in_windows, windows_of

OUTSIDE = -1.0
"""The logit of pixels that are not computed, as they are outside the mask."""

_NEAR = 0.05  # of the largest sample: a token this close to the threshold is upscaled, too


class _Asked(NamedTuple):
    """One prompt's part of the image, its tokens, and its hypernetwork's answer (1, C/8)."""

    part: SharedImage
    scale: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    wanted: torch.Tensor


def positive_logits(
    prompt_encoder: Any,
    shared: SharedImage,
    prompts: Prompts,
    geometry: FrameGeometry,
    *,
    multimask: bool,
    rule: WindowRule | None = None,
) -> torch.Tensor:
    """Decode N prompts, and bring their logits to the frame where they are above 0.

    Args:
        prompt_encoder: The stock module.
        shared: The image.
        prompts: N prompts on it, none with a mask.
        geometry: The frame's.
        multimask: Take the best of three readings of a single point.
        rule: Each prompt's window of the image tokens; None: all of them.

    Returns:
        float32 (N, H, W), frame space: the logits within float32 rounding where they are above 0,
        elsewhere numbers that are not.
    """
    found = torch.full((len(prompts), *geometry.original_size), OUTSIDE)
    windows = None if rule is None else rule.windows(prompts, shared.side)
    for rows, size in kinds_in_windows(prompts, windows, shared.side):
        several = multimask and bool(prompts[rows[:1]].row_is_ambiguous()[0])
        sparse, _ = embed_prompts(prompt_encoder, prompts[rows])
        tokens = prompt_tokens(shared.decoder, sparse)
        at_once = shared.prompts_at_once(tokens.shape[1], size)
        for some, few in zip(rows.split(at_once), tokens.split(at_once), strict=True):
            seen = None if windows is None else windows_of(windows, some)
            places = seen or [Window(0, 0, shared.side)] * len(some)
            answers = _asked(shared.parts(seen, len(some)), few, several)
            for row, place, asked in zip(some, places, answers, strict=True):
                box = None if prompts.boxes is None else prompts.boxes[row]
                parts = geometry.window_to_frame(*_window(asked, box, place, shared.side))
                lines, columns, logits = parts
                found[row, lines, columns] = logits
    return found


def _asked(parts: list[SharedImage], tokens: torch.Tensor, several: bool) -> Iterator[_Asked]:
    """Attend to the image; yield what each prompt's mask is upscaled from."""
    decoder = parts[0].decoder
    queries, image = attend(parts, tokens, 1 + (decoder.num_mask_tokens if several else 1))
    chosen = [0] * len(tokens)
    if several:
        chosen = (1 + decoder.iou_prediction_head(queries[:, 0])[:, 1:].argmax(1)).tolist()
    for n, token in enumerate(chosen):
        wanted = hypernetwork(decoder, queries[n : n + 1], token)
        yield _Asked(parts[n], image.scale[n], image.weights[n], image.rows[n], wanted)


def _window(
    asked: _Asked, box: torch.Tensor | None, place: Window, whole: int
) -> tuple[torch.Tensor, int, int]:
    """Return the low-res logits around a mask, and where their top left pixel lies.

    Args:
        asked: The prompt's tokens.
        box: float32 (4,), its box in model space; None, or NaN, without one.
        place: Which of the image's tokens these are.
        whole: Tokens along a side of the image.
    """
    side, (part, scale, weights, rows, wanted) = place.size, asked
    samples = part.upscaling.samples(scale, weights, rows, wanted[0])
    blocks = samples[:, None].expand(-1, BLOCK**2).clone()
    done = torch.zeros(side, side, dtype=torch.bool)
    near = (samples > -_NEAR * samples.abs().max()).view(side, side)
    if box is not None and not bool(box.isnan().any()):
        left, top, right, bottom = (int(edge) for edge in box / (BLOCK * LOW_RES_STRIDE))
        down, across = (
            slice(max(first - offset, 0), max(last + 1 - offset, 0))
            for first, last, offset in ((top, bottom, place.top), (left, right, place.left))
        )
        near[down, across] = True
    tokens = _spread_out(near).flatten().nonzero().flatten()
    while len(tokens):
        done.view(-1)[tokens] = True
        pixels = part.upscaling.pixels_at(tokens, scale, weights, rows, wanted)[..., 0]
        blocks[tokens] = pixels
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside.view(-1)[tokens] = (pixels > 0).any(1)
        tokens = (_spread_out(inside) & ~done).flatten().nonzero().flatten()
    return _surrounded(*_crop(blocks, done), place, whole)


def _surrounded(
    logits: torch.Tensor, top: int, left: int, place: Window, whole: int
) -> tuple[torch.Tensor, int, int]:
    """Add pixels of background where logits reach a window's edge inside the image.

    A pixel of the frame between such an edge and the outside depends on both.

    Args:
        logits: float (h, w), at the low-res pixel (top, left) of the window.
        top: See there.
        left: As there.
        place: The window.
        whole: Tokens along a side of the image.

    Returns:
        The logits, and the row and column of their first pixel in the low-res frame.
    """
    if not logits.numel():
        return logits, 0, 0
    around, firsts = [], []
    length, edge = BLOCK * place.size, BLOCK * whole
    for first, count, offset in (
        (left, logits.shape[1], BLOCK * place.left),
        (top, logits.shape[0], BLOCK * place.top),
    ):
        before = int(first == 0 and offset > 0)
        after = int(first + count == length and offset + length < edge)
        around += [before, after]
        firsts.append(offset + first - before)
    return pad(logits, around, value=BACKGROUND), firsts[1], firsts[0]


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
