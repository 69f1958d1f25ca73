"""Ink blocks of a page, separated by white space: candidates for regions.

Letters are joined to lines where the white between them is narrower than that between columns, and
lines to blocks where the white between them is lower than that between paragraphs; both are
measured in heights of the page's own letters, as in run-length smoothing (Wong, Casey and Wahl, IBM
J. Res. Dev. 26, 1982). It needs neither words nor training, and gives no classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.domains.documents.layout.ink_boxes import Boxes, box_areas, box_around, shared_areas

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)
_LONGEST = 2048
"""Pixels along the long side; larger pages are reduced to the darkest pixel of each square."""

_SHADES = 40.0
"""Least difference of ink from the paper's shade, of 255."""

_PAPER_TILES = 8
"""Number of tiles along each side on which the paper's shade is measured."""

_UNLIKE, _ROUNDS = 75.0, 4
"""Largest difference of a paper tile from the fitted shade, in each round of the fit."""

_ACROSS, _DOWN = 2.0, 1.4
"""White between letters of a line, and between lines of a block, in heights of letters."""

_INSIDE = 0.9
"""Share of its area within another block from which a block is part of that."""

_LEAST_INK = 0.3
"""Least area of a block's box in squares of a letter's height; smaller ones are specks."""


@dataclass(frozen=True)
class Ink:
    """Ink of a page: pixels that differ from the paper.

    Attributes:
        mask: bool (H, W), of the page or, where that is large, of squares of its pixels.
        letter: Height of its letters in pixels of `mask`.
        step: Pixels of the page along a pixel of `mask`.
    """

    mask: npt.NDArray[np.bool_]
    letter: float
    step: int


def find_ink(image: npt.NDArray[np.uint8]) -> Ink:
    """Return the ink of a page, uint8 (H, W, 3)."""
    step = -(-max(image.shape[:2]) // _LONGEST)
    mask = _ink(image.mean(-1, dtype=np.float32), step)
    return Ink(mask, _letter_height(mask), step)


def ink_blocks(ink: Ink) -> Boxes:
    """Return the blocks of a page.

    Returns:
        float32 (N, 4), xyxy in pixels of the ink's mask, tight around it, upper ends exclusive.
    """
    lines = _closed(ink.mask, _ACROSS * ink.letter, axis=1)
    parts, _ = ndimage.label(_closed(lines, _DOWN * ink.letter, axis=0), _EVERY_NEIGHBOUR)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
        own = ink.mask[rows, columns] & (parts[rows, columns] == number)
        box = box_around(own, columns.start, rows.start)
        if (box[2] - box[0]) * (box[3] - box[1]) >= _LEAST_INK * ink.letter**2:
            found.append(box)
    return _outermost(np.array(found, np.float32).reshape(-1, 4))


def _outermost(boxes: Boxes) -> Boxes:
    """Remove boxes inside another one, such as a figure's lettering."""
    boxes = boxes[np.argsort(-box_areas(boxes), kind="stable")]
    kept = boxes[:0]
    for box, area in zip(boxes, box_areas(boxes), strict=True):
        if not (shared_areas(box[None], kept) >= _INSIDE * area).any():
            kept = np.concatenate([kept, box[None]])
    return kept


def _ink(grey: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.bool_]:
    """Return the ink, bool (H / step, W / step), from shades 0..255."""
    ink: npt.NDArray[np.bool_] = np.abs(grey - _paper(grey)) > _SHADES
    if step == 1:
        return ink
    padded = np.pad(ink, [(0, -length % step) for length in ink.shape])
    height, width = (length // step for length in padded.shape)
    return padded.reshape(height, step, width, step).any((1, 3)).astype(bool)


def _paper(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the paper's shade at each pixel: a plane fitted to most tiles' medians.

    A scan may darken towards the spine. Tiles with pictures are outliers and are left out.
    """
    rows, columns = (
        np.array_split(np.arange(length), min(_PAPER_TILES, length)) for length in grey.shape
    )
    tiles = [
        (r.mean(), c.mean(), np.median(grey[r[0] : r[-1] + 1, c[0] : c[-1] + 1]))
        for r in rows
        for c in columns
    ]
    y, x, shade = np.array(tiles).T
    terms = np.stack([np.ones_like(y), y / grey.shape[0] - 0.5, x / grey.shape[1] - 0.5], 1)
    plane = np.array([np.median(shade), 0.0, 0.0])
    for _ in range(_ROUNDS):
        like = np.abs(terms @ plane - shade) < _UNLIKE
        # Three tiles define a plane; so few are not representative.
        if like.sum() < len(shade) / 4:
            break
        plane, *_ = np.linalg.lstsq(terms[like], shade[like], rcond=None)
    down = (np.arange(grey.shape[0]) / grey.shape[0] - 0.5) * plane[1]
    across = (np.arange(grey.shape[1]) / grey.shape[1] - 0.5) * plane[2]
    found: npt.NDArray[np.float32] = (plane[0] + down[:, None] + across).astype(np.float32)
    return found


def _letter_height(ink: npt.NDArray[np.bool_]) -> float:
    """Return the median height of letter-like shapes, in pixels."""
    parts, _ = ndimage.label(ink, _EVERY_NEIGHBOUR)
    sizes = np.array(
        [(rows.stop - rows.start, c.stop - c.start) for rows, c in ndimage.find_objects(parts)]
    ).reshape(-1, 2)
    height, width = sizes.T
    letters = (height >= 3) & (height < ink.shape[0] / 20) & (width < 10 * height)
    return float(np.median(height[letters])) if letters.any() else ink.shape[0] / 100


def _closed(mask: npt.NDArray[np.bool_], most: float, axis: int) -> npt.NDArray[np.bool_]:
    """Fill runs of white up to a length along an axis, where ink is on both sides."""
    along = mask if axis == 1 else mask.T
    places = np.arange(along.shape[1], dtype=np.int32)
    far = np.int32(4 * along.shape[1])
    before = np.maximum.accumulate(np.where(along, places, -far), 1)
    after = np.minimum.accumulate(np.where(along, places, far)[:, ::-1], 1)[:, ::-1]
    filled = after - before - 1 <= most
    return filled if axis == 1 else filled.T
