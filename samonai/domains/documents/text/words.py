"""Words and where they stand on a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
        text: As it is written.
        box: xyxy in pixels of the page, upper ends exclusive.
        line: Number of its line in the page's text, from 0.
        score: How sure the reader was, 0..1; 1 for a text layer.
    """

    text: str
    box: Box
    line: int
    score: float = 1.0

    @property
    def centre(self) -> tuple[float, float]:
        """Return (x, y) of the box's middle."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def joined_box(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def text_of(words: Sequence[Word]) -> str:
    """Return words as text: those of one line on one line."""
    lines: dict[int, list[str]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word.text)
    return "\n".join(" ".join(line) for line in lines.values())


def words_in(words: Sequence[Word], mask: npt.NDArray[np.bool_]) -> list[Word]:
    """Return the words whose middle lies in a mask, bool (H, W), in the page's order."""
    height, width = mask.shape
    return [
        word
        for word in words
        if 0 <= word.centre[0] < width
        and 0 <= word.centre[1] < height
        and mask[int(word.centre[1]), int(word.centre[0])]
    ]
