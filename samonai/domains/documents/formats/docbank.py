"""DocBank labels: a file per page with a token per line, its box and its class, tab separated.

DocBank has no regions. Here a region is a block of text: tokens of a class whose
boxes, grown by part of a line, touch. A figure is a single token.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.core.errors import InputError
from samonai.domains.documents.formats.annotations import Annotation, PageAnnotations, box_ring
from samonai.domains.documents.text.words import Box, joined_box

ENDING = ".txt"
IMAGE_SUFFIX = "_ori"
"""The page of `NAME.txt` is `NAME_ori.jpg`."""

_SIDE = 1000  # boxes are in thousandths of the page's sides
_COLUMNS = 10  # token, x0, y0, x1, y1, red, green, blue, font, class
_FIGURE, _RULE = "##LTFigure##", "##LTLine##"
_GROWTH = (0.5, 0.35)
"""Growth of boxes to each side, across and down, in heights of a line."""
_SPREAD = {"table": (4.0, 1.2)}
"""Likewise, for classes whose tokens stand apart."""

Token = tuple[str, Box]


def read_docbank(path: Path, size: tuple[int, int]) -> PageAnnotations:
    """Read the regions of a page.

    Args:
        path: The file of tokens.
        size: (H, W) of the page in pixels.

    Raises:
        InputError: The file is not DocBank's.
    """
    height, width = size
    named = _tokens(path)
    groups = [(name, group) for name, tokens in named.items() for group in _blocks(name, tokens)]
    regions = []
    for name, group in groups:
        x0, y0, x1, y1 = joined_box(box for _, box in group)
        ring = box_ring(x0, y0, x1 - x0, y1 - y0) * (width / _SIDE, height / _SIDE)
        text = " ".join(token for token, _ in group if token != _FIGURE)
        regions.append(Annotation(name, (ring,), text=text))
    return PageAnnotations(size, tuple(regions))


def docbank_names(path: Path) -> list[str]:
    """Return the classes of a file.

    Raises:
        InputError: The file is not DocBank's.
    """
    return sorted(_tokens(path))


def _tokens(path: Path) -> dict[str, list[Token]]:
    """Return the tokens of each class, without rules."""
    found: dict[str, list[Token]] = defaultdict(list)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            parts = line.rstrip("\r").split("\t")
            if len(parts) != _COLUMNS:
                raise ValueError(f"line {number} has {len(parts)} columns, not {_COLUMNS}")
            x0, y0, x1, y1 = (float(value) for value in parts[1:5])
            if parts[0] != _RULE:
                box = min(x0, x1), min(y0, y1), max(x0, x1, x0 + 1), max(y0, y1, y0 + 1)
                found[parts[-1].strip()].append((parts[0], box))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no DocBank label: {error}") from error
    return dict(found)


def _blocks(name: str, tokens: Sequence[Token]) -> list[list[Token]]:
    """Group the tokens of one class."""
    blocks: dict[int, list[Token]] = defaultdict(list)
    figures = [[token] for token in tokens if token[0] == _FIGURE]
    words = [token for token in tokens if token[0] != _FIGURE]
    if words:
        boxes = np.array([box for _, box in words])
        for token, number in zip(words, _touching(boxes, _SPREAD.get(name, _GROWTH)), strict=True):
            blocks[number].append(token)
    return [*figures, *blocks.values()]


def _touching(boxes: npt.NDArray[np.float64], growth: tuple[float, float]) -> list[int]:
    """Return for each box (n, 4) the number of its group of touching boxes, after growth."""
    across, down = np.array(growth) * np.median(boxes[:, 3] - boxes[:, 1])
    grown = boxes + np.array([-across, -down, across, down])
    cells = np.clip(np.round(grown), 0, _SIDE).astype(int)
    drawn = np.zeros((_SIDE + 1, _SIDE + 1), bool)
    for x0, y0, x1, y1 in cells.tolist():
        drawn[y0 : y1 + 1, x0 : x1 + 1] = True
    groups, _ = ndimage.label(drawn)
    return [int(groups[y0, x0]) for x0, y0, _, _ in cells.tolist()]
