"""Boxes worth asking about on a page: blocks of ink, parts of them, and blocks joined.

No one width of white space tells all regions apart: paragraphs may differ by an indent alone, and
the columns of a table may lie farther from each other than the columns of a page. So none is
trusted. Beside the blocks at one width (`blocks`), a page's boxes are the runs of lines between
indents and short lines, and what comes of joining the two nearest blocks again and again, as
selective search does with patches of a photograph (Uijlings et al., IJCV 104, 2013). Which of them
are regions is for the model to say.
"""

import numpy as np
import numpy.typing as npt

from samonai.domains.documents.layout.blocks import Ink, find_ink, ink_blocks
from samonai.domains.documents.layout.ink_boxes import Boxes, box_areas, box_around, shared_areas

_ACROSS = (0.15, 1.0)
"""What a gap across counts, where one down counts 1: rows of cells join first, or columns."""

_FARTHEST = 6.0
"""Heights of a letter over which blocks are joined, as `_distances` counts."""

_LEAVES = 150
"""The largest blocks of a page are joined; a page of more is a scan with specks."""

_SAME = 0.9
"""Boxes that share an IoU of more are one."""

_LEAST_INK = 2.0
"""Boxes of fewer squares of a letter's height are specks; they may be a part of what is joined."""

_LEAST_HEIGHT, _LEAST_WIDTH = 2.5, 6.0
"""Heights of a letter below which a block is no lines of text that could be cut."""

_INDENT = 1.0
"""Heights of a letter at the left of a block that an indent leaves blank."""

_RAGGED = 0.2
"""Share of a block's width that its short lines leave blank at the right."""

_ONE_LINE, _SEVERAL = 2.2, 4.5
"""Heights of a letter for which one line leaves them blank at least; more than one, above."""

_WHITE = 1.5
"""Heights of a letter between the letters of two lines, at most."""

_FEW, _ITEM = 2, 8.0
"""A block of more cuts, with parts lower than so many heights of a letter, is a list of items."""

_PARTS = 3
"""So many runs of lines that follow each other are joined at most."""


def proposed_boxes(image: npt.NDArray[np.uint8]) -> Boxes:
    """Return boxes of what may be regions of a page, float32 (N, 4), in its pixels.

    Args:
        image: uint8 (H, W, 3), RGB.
    """
    ink = find_ink(image)
    blocks = ink_blocks(ink)
    parts = [blocks, *(_runs_of_lines(ink, box) for box in blocks)]
    parts += [_joined(blocks / ink.letter, across) * ink.letter for across in _ACROSS]
    boxes = np.concatenate(parts)
    large = box_areas(boxes) >= _LEAST_INK * ink.letter**2
    found = _different(boxes[large]) * ink.step
    return found.clip(0, [*image.shape[1::-1]] * 2).astype(np.float32)


def _joined(boxes: Boxes, across: float) -> Boxes:
    """Join the two nearest boxes again and again; return what came of it, float32 (N, 4).

    Args:
        boxes: In heights of a letter.
        across: What a gap across counts.
    """
    left = boxes[np.argsort(-box_areas(boxes), kind="stable")[:_LEAVES]]
    found = [np.zeros((0, 4), np.float32)]
    while len(left) > 1:
        far = _distances(left, across)
        one, other = np.unravel_index(int(far.argmin()), far.shape)
        if far[one, other] > _FARTHEST:
            break
        pair = left[[one, other]]
        union = np.concatenate([pair[:, :2].min(0), pair[:, 2:].max(0)])[None]
        apart = shared_areas(left, union)[:, 0] < _SAME * box_areas(left)
        left = np.concatenate([left[apart], union])
        found.append(union)
    return np.concatenate(found)


def _distances(boxes: Boxes, across: float) -> npt.NDArray[np.float32]:
    """Return how far boxes are from each other, (N, N); a box is infinitely far from itself.

    A gap counts the more, the less two boxes lie side by side at one height, or below each other:
    cells of a row are alike in height, a cell and the next column of text are not.
    """
    gaps = np.maximum(boxes[:, None, :2], boxes[None, :, :2]) - np.minimum(
        boxes[:, None, 2:], boxes[None, :, 2:]
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    common = np.maximum(-gaps, 1e-6)
    height = sides[:, None, 1] + sides[None, :, 1] - common[..., 1]
    beside = across * gaps[..., 0] / (common[..., 1] / height)
    narrower = np.minimum(sides[:, None, 0], sides[None, :, 0])
    below = gaps[..., 1] / (common[..., 0] / narrower)
    far = np.where(gaps[..., 0] < 0, below, beside).clip(0)
    far[(gaps >= 0).all(2)] = np.inf
    np.fill_diagonal(far, np.inf)
    return far.astype(np.float32)


def _runs_of_lines(ink: Ink, box: Boxes) -> Boxes:
    """Return the parts of a block between indents, between short lines, and between both."""
    x0, y0, x1, y1 = box.astype(int)
    inside = ink.mask[y0:y1, x0:x1]
    if y1 - y0 < _LEAST_HEIGHT * ink.letter or x1 - x0 < _LEAST_WIDTH * ink.letter:
        return np.zeros((0, 4), np.float32)
    counts = inside.sum(1)
    left, right = max(round(_INDENT * ink.letter), 1), round(_RAGGED * (x1 - x0))
    indents = _cuts(inside[:, :left], counts, ink.letter, above=True)
    short = _cuts(inside[:, -right:], counts, ink.letter, above=False)
    count = len({*indents, *short})
    if count > _FEW and y1 - y0 < count * _ITEM * ink.letter:
        return np.zeros((0, 4), np.float32)
    parts = {
        (cuts[first], cuts[last])
        for cuts in (
            sorted({0, *chosen, len(inside)}) for chosen in (indents, short, indents + short)
        )
        for first in range(len(cuts))
        for last in range(first + 1, min(first + 1 + _PARTS, len(cuts)))
    }
    found = [box_around(inside[top:bottom], x0, y0 + top) for top, bottom in sorted(parts)]
    return np.array(found, np.float32).reshape(-1, 4)


def _cuts(
    strip: npt.NDArray[np.bool_], counts: npt.NDArray[np.integer], letter: float, above: bool
) -> list[int]:
    """Return the rows to cut at, in the white above, or below, a line that leaves a strip blank.

    Where several lines do, such as a figure above its legend, it is cut above and below them.

    Args:
        strip: bool (H, W), ink at a side of the block.
        counts: int (H,), ink of the whole block in each row.
        letter: Height of a letter.
        above: Whether a line is cut off above it.
    """
    blank = np.diff(~strip.any(1), prepend=False, append=False).nonzero()[0].reshape(-1, 2)
    reach = max(round(_WHITE * letter), 1)
    found = []
    for start, stop in blank.tolist():
        # The white around a line is part of the run, but not at the block's ends.
        ends = (start == 0) + (stop == len(strip))
        if (stop - start) / letter < _ONE_LINE - ends * _WHITE / 2:
            continue
        several = (stop - start) / letter > _SEVERAL
        if (above or several) and start > 0:
            found.append(start + int(counts[start : start + reach].argmin()))
        if (not above or several) and stop < len(strip):
            first = max(stop - reach, 0)
            found.append(first + int(counts[first:stop].argmin()))
    return found


def _different(boxes: Boxes) -> Boxes:
    """Leave out boxes that nearly are one before them."""
    areas, shared = box_areas(boxes), shared_areas(boxes, boxes)
    alike = shared > _SAME * (areas[:, None] + areas[None] - shared)
    kept: list[int] = []
    for row in range(len(boxes)):
        if not alike[row, kept].any():
            kept.append(row)
    return boxes[kept]
