"""Words of pages without a text layer, read by RapidOCR, whose models come in its wheel."""

import logging
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.layout.reading_order import reading_order
from samonai.domains.documents.text.words import Word

_LEAST_SCORE = 0.5
"""Lines that the reader is less sure of are more often dirt than text."""


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
    """Return the words of a line; a reader may join a word's pieces, or give several as one."""
    words = []
    for text, score, corners in parts:
        x0, y0, x1, y1 = _around([corners])
        pieces = str(text).split()
        if float(score) < _LEAST_SCORE or not pieces:
            continue
        # Where one box holds several words, each gets its share of the letters.
        letters = sum(len(piece) for piece in pieces) + len(pieces) - 1
        at = 0
        for piece in pieces:
            left, right = (x0 + (x1 - x0) * n / letters for n in (at, at + len(piece)))
            words.append(Word(piece, (left, y0, right, y1), number, float(score)))
            at += len(piece) + 1
    return words


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
