"""Region proposals on a page: blocks of ink, parts of them, and blocks joined.

No single width of white space separates all regions: paragraphs may differ by an indent alone, and
the columns of a table may lie farther from each other than the columns of a page. So, in addition
to the blocks at one width (`blocks`), the proposals are the runs of lines between
indents and short lines, and the results of joining the two nearest blocks again and again, as in
selective search on patches of a photograph (Uijlings et al., IJCV 104, 2013). The model decides
which of them are regions.
"""

import numpy as np
import numpy.typing as npt

from samonai.domains.documents.layout.blocks import Ink, find_ink, ink_blocks
from samonai.domains.documents.layout.ink_boxes import Boxes, box_areas, box_around, shared_areas

_ACROSS = (0.15, 1.0)
"""Weights of a horizontal gap, where a vertical one has 1: rows of cells join first, or columns."""

_FARTHEST = 6.0
"""Largest distance of joined blocks in heights of a letter, as by `_distances`."""

_LEAVES = 150
"""Number of blocks that are joined, the largest first; a page of more is a scan with specks."""

_SAME = 0.9
"""IoU from which two boxes are duplicates."""

_LEAST_INK = 2.0
"""Least area of a box in squares of a letter's height; smaller ones may be part of joined boxes."""

_LEAST_HEIGHT, _LEAST_WIDTH = 2.5, 6.0
"""Least height of a block that is cut into runs of lines, in heights of a letter."""

_INDENT = 1.0
"""Width of an indent in heights of a letter."""

_RAGGED = 0.2
"""Share of a block's width that a short line leaves blank at the right."""

_ONE_LINE, _SEVERAL = 2.2, 4.5
"""Least height of a blank strip in heights of a letter: of one line, of more than one."""

_WHITE = 1.5
"""Largest gap between the letters of two lines, in heights of a letter."""

_FEW, _ITEM = 2, 8.0
"""Number of cuts, and height of the parts in heights of a letter, from which a block is a list."""

_PARTS = 3
"""Largest number of consecutive runs of lines that are joined."""


def proposed_boxes(image: npt.NDArray[np.uint8]) -> Boxes:
    """Return proposed boxes of regions on a page, float32 (N, 4), in its pixels.

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
    """Join the two nearest boxes again and again; return all joined boxes, float32 (N, 4).

    Args:
        boxes: In heights of a letter.
        across: Weight of a horizontal gap.
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
    """Return the distances of boxes, (N, N), with an infinite diagonal.

    A gap weighs more, the less two boxes lie side by side at one height, or below each other:
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

    Several such lines, as in a figure above its caption, are cut above and below.

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
    """Remove near-duplicates of earlier boxes."""
    areas, shared = box_areas(boxes), shared_areas(boxes, boxes)
    alike = shared > _SAME * (areas[:, None] + areas[None] - shared)
    kept: list[int] = []
    for row in range(len(boxes)):
        if not alike[row, kept].any():
            kept.append(row)
    return boxes[kept]
