"""OCR of pages without a text layer, by RapidOCR, whose models are part of its wheel."""

import logging
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.layout.reading_order import reading_order
from samonai.domains.documents.text.words import Box, Word, is_unspaced, joined_box

_LEAST_SCORE = 0.5
"""Least OCR score of a line; lower ones are usually dirt."""


def read_words(image: npt.NDArray[np.uint8]) -> tuple[Word, ...]:
    """Read the words of a page, in reading order.

    Args:
        image: uint8 (H, W, 3), RGB.

    Raises:
        InputError: RapidOCR is not installed.
    """
    result = _engine()(np.ascontiguousarray(image[..., ::-1]), return_word_box=True)
    lines = [line for line in result.word_results or () if line]
    boxes = [_around([part[2] for part in line]) for line in lines]
    words: list[Word] = []
    for number, row in enumerate(reading_order(boxes)):
        words += _line_words(lines[row], number)
    return tuple(words)


def _line_words(parts: Any, number: int) -> list[Word]:
    """Return the words of a line; OCR may join a word's pieces, or return several as one."""
    words = []
    for text, score, corners in parts:
        x0, y0, x1, y1 = _around([corners])
        pieces = str(text).split()
        if float(score) < _LEAST_SCORE or not pieces:
            continue
        # A box of several words is divided in proportion to their letters.
        letters = sum(len(piece) for piece in pieces) + len(pieces) - 1
        at = 0
        for piece in pieces:
            left, right = (x0 + (x1 - x0) * n / letters for n in (at, at + len(piece)))
            box = (left, y0, right, y1)
            words.append(Word(piece, box, number, float(score), _letters(piece, box)))
            at += len(piece) + 1
    return _joined(words)


def _letters(text: str, box: Box) -> tuple[Box, ...]:
    """Return equal shares of a box for each character of a script without spaces."""
    if not any(map(is_unspaced, text)):
        return ()
    x0, y0, x1, y1 = box
    edges = np.linspace(x0, x1, len(text) + 1).tolist()
    return tuple((left, y0, right, y1) for left, right in pairwise(edges))


def _joined(words: list[Word]) -> list[Word]:
    """Join the characters of scripts without spaces, which OCR returns one by one."""
    found: list[Word] = []
    for word in words:
        last = found[-1] if found else None
        height = word.box[3] - word.box[1]
        if last and last.letters and word.letters and word.box[0] - last.box[2] < height:
            box, score = joined_box([last.box, word.box]), min(last.score, word.score)
            letters = last.letters + word.letters
            found[-1] = Word(last.text + word.text, box, word.line, score, letters)
        else:
            found.append(word)
    return found


def _around(corners: list[Any]) -> tuple[float, float, float, float]:
    points = np.asarray(corners, float).reshape(-1, 2)
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return x0, y0, x1, y1


@cache
def _engine() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise InputError(
            "this page has no text layer, and reading it needs RapidOCR: pip install 'samonai[ocr]'"
        ) from error
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(params={"Global.log_level": "error"})
