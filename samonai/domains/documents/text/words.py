"""Words with their positions on a page."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
)
"""Characters of scripts without spaces between words, as ranges of a regular expression."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
HYPHENS = "\u2010\u00ad-"
"""Endings of a word that is hyphenated at a line's end."""


@dataclass(frozen=True)
class Word:
    """A word; in scripts without spaces a run of characters, up to a line.

    Attributes:
        text: As printed.
        box: xyxy in pixels of the page, upper ends exclusive.
        line: Number of its line in the page's text, from 0.
        score: Score of OCR, 0..1; 1 for a text layer.
        letters: The box of each character in scripts without spaces; else empty.
    """

    text: str
    box: Box
    line: int
    score: float = 1.0
    letters: tuple[Box, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        """Return (x, y) of the box's centre."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def cut(self, start: int, end: int) -> "Word":
        """Return some characters with their box; the whole word if character boxes are unknown."""
        if not self.letters or (start, end) == (0, len(self.text)):
            return self
        boxes = self.letters[start:end]
        return Word(self.text[start:end], joined_box(boxes), self.line, self.score, boxes)


def is_unspaced(character: str) -> bool:
    """Return whether a character's script has no spaces between words."""
    return _UNSPACED.match(character) is not None


def is_broken(word: Word, after: Word) -> bool:
    """Return whether a word at the end of a line may continue on the next one."""
    text = word.text
    ends = len(text) > 1 and text[-1] in HYPHENS and text[-2].isalpha()
    return ends and after.line == word.line + 1 and after.text[:1].isalpha()


def joined_box(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def text_of(words: Sequence[Word]) -> str:
    """Return words as text with the page's line breaks."""
    lines: dict[int, list[str]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word.text)
    return "\n".join(" ".join(line) for line in lines.values())


def running_text(words: Sequence[Word]) -> str:
    """Return words separated by spaces, with hyphenated ones joined."""
    text = ""
    for number, word in enumerate(words):
        goes_on = number + 1 < len(words) and is_broken(word, words[number + 1])
        if goes_on and words[number + 1].text[:1].islower():
            text += word.text[:-1]
        else:
            text += word.text if goes_on else word.text + " "
    return text.rstrip()


def words_in(words: Sequence[Word], mask: npt.NDArray[np.bool_]) -> list[Word]:
    """Return the words whose centre lies in a mask, bool (H, W), in the page's order."""
    height, width = mask.shape
    return [
        word
        for word in words
        if 0 <= word.centre[0] < width
        and 0 <= word.centre[1] < height
        and mask[int(word.centre[1]), int(word.centre[0])]
    ]
