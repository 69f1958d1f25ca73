"""Local decoding: windows of embedding tokens around prompts, of a few sizes.

A window is size x size tokens of an image embedding, at whole tokens. The mask decoder attends to
these tokens alone, at their own positions, and its low-res logits, 4 pixels to a token, are put
back at their exact place; the rest of the low-res frame is `BACKGROUND`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from samonai.core.errors import InputError
from samonai.core.geometry import LOW_RES_STRIDE
from samonai.prompts.types import Prompts
from samonai.sam.decoder_metadata import WINDOWS_ENTRY
from samonai.sam.upscaling import BLOCK
from samonai.settings.choices import ALL_TOKENS, WINDOWS

BACKGROUND = -10.0
"""The logit of low-res pixels outside a prompt's window: a probability of 0.00005."""

_PIXELS = BLOCK * LOW_RES_STRIDE  # of the model image along a side of a token


class Window(NamedTuple):
    """A square of embedding tokens.

    Attributes:
        top: Row of the first token.
        left: Its column.
        size: Tokens along a side.
    """

    top: int
    left: int
    size: int

    def of_tokens(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the window's part of a grid (h, w, ...): (size, size, ...)."""
        return grid[self.top : self.top + self.size, self.left : self.left + self.size]

    def of_low_res(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the window's part of maps (..., 4h, 4w) in the low-res frame."""
        top, left, size = (BLOCK * number for number in self)
        return maps[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class WindowRule:
    """The choice of a window by the extent of a prompt.

    The extent of a prompt is the smallest box around its box, its points and its mask. The window
    is the smallest of the sizes that holds the extent and a margin on each side, as far as the
    frame reaches, centred on them. A prompt with neither a box nor a mask has no extent, and others
    are too large for all sizes: these are decoded with all tokens.

    Attributes:
        sizes: Tokens along the side of a window, ascending.
        margin: Tokens.
    """

    sizes: tuple[int, ...] = (16, 24, 32, 40, 48)
    margin: int = 2

    @classmethod
    def of_training(cls, training: Mapping[str, Any], path: Path | str) -> "WindowRule | None":
        """Return the rule that a decoder was trained with; None for all tokens.

        Args:
            training: The metadata of its training.
            path: The decoder's file, for messages.

        Raises:
            InputError: The metadata hold another thing than a rule.
        """
        content = training.get(WINDOWS_ENTRY)
        if content is None:
            return None
        try:
            rule = cls(tuple(content["sizes"]), content["margin"])
        except (TypeError, KeyError):
            rule = cls(())
        if not rule.is_valid:
            raise InputError(
                f"{path}: {WINDOWS_ENTRY} in the metadata is {content!r:.80}, not a rule of windows"
            )
        return rule

    @property
    def is_valid(self) -> bool:
        """Return whether all are whole numbers in their ranges, and the sizes ascend."""
        numbers = [*self.sizes, self.margin]
        if not self.sizes or not all(type(number) is int for number in numbers):
            return False
        ascending = list(self.sizes) == sorted(set(self.sizes))
        return ascending and self.sizes[0] >= 1 and self.margin >= 0

    def to_metadata(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return {**asdict(self), "sizes": list(self.sizes)}

    def windows(self, prompts: Prompts, side: int) -> list[Window]:
        """Choose the window of each prompt.

        Args:
            prompts: N prompts.
            side: Tokens along a side of the embedding; a window of this size is all of it.
        """
        low, high = _extents(prompts)
        known = (low <= high).all(1)
        low, high = low.where(known[:, None], 0.0), high.where(known[:, None], 0.0)
        first = ((low / _PIXELS).floor().long() - self.margin).clamp(0, side)
        last = ((high / _PIXELS).ceil().long() + self.margin).clamp(0, side)
        sizes = torch.tensor([*(size for size in self.sizes if size < side), side])
        needed = (last - first).amax(1)
        size = sizes[torch.searchsorted(sizes, needed)].where(known, side)[:, None]
        start = (first + last - size).div(2, rounding_mode="floor")
        start = start.clamp(min=0).minimum(side - size)
        return [
            Window(top, left, tokens)
            for (left, top), (tokens,) in zip(start.tolist(), size.tolist(), strict=True)
        ]


def window_rule(windows: str) -> WindowRule | None:
    """Return the rule that a setting names; None: all tokens.

    Raises:
        InputError: The setting is unknown.
    """
    if windows not in WINDOWS:
        raise InputError(f"decoder_window={windows!r}: expected one of {', '.join(WINDOWS)}")
    return None if windows == ALL_TOKENS else WindowRule()


def windows_of(rule: WindowRule | None, prompts: Prompts, side: int) -> list[Window]:
    """Return the window of each prompt, or all tokens without a rule; see `WindowRule.windows`."""
    if rule is None:
        return [Window(0, 0, side)] * len(prompts)
    return rule.windows(prompts, side)


def sharing_prompts(rule: WindowRule | None, prompts: Prompts, side: int) -> int:
    """Return how many prompts without a mask are decoded on all tokens, which they can share."""
    whole = [window.size == side for window in windows_of(rule, prompts, side)]
    return int((torch.tensor(whole, dtype=torch.bool) & ~prompts.row_has_mask().cpu()).sum())


def kinds_in_windows(
    prompts: Prompts, windows: list[Window], side: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield rows of prompts that are decoded together, and the size of their windows.

    Args:
        prompts: N prompts.
        windows: Of each.
        side: Tokens along a side of the embedding.
    """
    for rows in prompts.kinds():
        sizes = torch.tensor([windows[row].size for row in rows.tolist()])
        for size in torch.unique(sizes):
            yield rows[(sizes == size).to(rows.device)], int(size)


def place(logits: Sequence[torch.Tensor], windows: list[Window], side: int) -> torch.Tensor:
    """Put low-res logits of windows at their place in the low-res frame.

    Args:
        logits: Of N windows, float (M, 4 * size, 4 * size) each.
        windows: N of them.
        side: Tokens along a side of the embedding.

    Returns:
        float (N, M, 4 * side, 4 * side), `BACKGROUND` outside the windows.
    """
    length, parts = BLOCK * side, []
    for window, values in zip(windows, logits, strict=True):
        top, left, size = (BLOCK * number for number in window)
        around = (left, length - left - size, top, length - top - size)
        parts.append(pad(values, around, value=BACKGROUND))
    return torch.stack(parts)


def _extents(prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the extents of N prompts: least and greatest (x, y) in model space, float32 (N, 2).

    The least are above the greatest where a prompt has neither a box nor a mask.
    """
    rows = len(prompts)
    low, high = torch.full((rows, 2), torch.inf), torch.full((rows, 2), -torch.inf)
    if prompts.boxes is not None:
        boxes = prompts.boxes.float().cpu()
        low, high = low.fmin(boxes[:, :2]), high.fmax(boxes[:, 2:])
    if prompts.mask_inputs is not None:
        counted = prompts.row_has_mask()[:, None]
        inside = (prompts.mask_inputs[:, 0] > 0) & counted[..., None]
        for axis, along in ((0, inside.any(1)), (1, inside.any(2))):
            found, length = along.any(1).cpu(), along.shape[1]
            numbers = along.to(torch.uint8)
            first = numbers.argmax(1).cpu()
            last = length - numbers.flip(1).argmax(1).cpu()
            low[:, axis] = low[:, axis].fmin((first * LOW_RES_STRIDE).where(found, torch.inf))
            high[:, axis] = high[:, axis].fmax((last * LOW_RES_STRIDE).where(found, -torch.inf))
    known = (low <= high).all(1)
    if prompts.point_coords is not None and prompts.point_labels is not None:
        counts = ((prompts.point_labels >= 0).cpu() & known[:, None])[..., None]
        points = prompts.point_coords.float().cpu()
        low = low.fmin(points.where(counts, torch.inf).amin(1))
        high = high.fmax(points.where(counts, -torch.inf).amax(1))
    return low, high
