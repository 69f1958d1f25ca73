"""Origin of a page's words: its text layer, OCR, or OCR in addition to the text layer.

A text layer is used if it covers the visible letters and consists of text. A stamp or
a page number on a scan covers little; a font whose codes stand for other letters (a subset without
a map to Unicode) covers all and reads as nonsense, which OCR of a few of the layer's lines shows.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.domains.documents.layout.blocks import Ink, find_ink
from samonai.domains.documents.text.words import Word, is_unspaced, joined_box

logger = logging.getLogger(__name__)

ReadWords = Callable[[npt.NDArray[np.uint8]], tuple[Word, ...]]

LAYER, OCR, BOTH = "text layer", "ocr", "text layer and ocr"

_LEAST_COVERED = 0.5
"""Least share of a page's visible letters that its text layer must cover."""
_FEW = 5
"""Least number of letter-sized shapes from which the coverage is measured."""
_UNREADABLE = 0.2
"""Largest share of a layer's characters without a meaning."""
_COMMON_SHARE, _LEAST_PAIRS = 0.25, 30
# fmt: off
_COMMON_PAIRS = frozenset((
    "th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed",
    "is", "it", "al", "ar", "st", "to", "nt", "ng", "se", "ha", "as", "ou", "io", "le", "ve", "co",
    "me", "de", "hi", "ri", "ro", "ic", "ne", "ea", "ra", "ce", "li", "ch", "ll", "be", "ma", "si",
    "om", "ur", "el", "la", "us", "et", "ta", "ei", "ie",
))
# fmt: on
"""Letter pairs that are frequent in languages of Latin script: half of the pairs of a text, a
tenth of those of a cipher."""
_SAMPLE_LINES, _SAMPLE_LETTERS = 3, 12
_LEAST_ALIKE = 50.0
"""Least similarity (0..100) of a layer's lines to their OCR for the layer to be text."""
_CATEGORIES = ("Co", "Cn", "Cc", "Cs")


@dataclass(frozen=True)
class PageText:
    """The words of a page, with their origin.

    Attributes:
        words: In the order of the page's text.
        source: "text layer", "ocr" or "text layer and ocr".
    """

    words: tuple[Word, ...]
    source: str


def page_text(
    image: npt.NDArray[np.uint8],
    layer: tuple[Word, ...],
    read_words: ReadWords | None,
    *,
    always: bool = False,
    name: str = "",
) -> PageText:
    """Return a page's words.

    Args:
        image: uint8 (H, W, 3), RGB.
        layer: The words of its text layer.
        read_words: OCR function; None: the layer only.
        always: Use OCR regardless of the layer.
        name: Name of the page, for the log.

    Raises:
        InputError: OCR is needed and not installed.
    """
    found = _chosen(image, layer, read_words, always, name)
    logger.info("%s: %d words from %s", name, len(found.words), found.source)
    return found


def _chosen(
    image: npt.NDArray[np.uint8],
    layer: tuple[Word, ...],
    read_words: ReadWords | None,
    always: bool,
    name: str,
) -> PageText:
    if read_words is None:
        return PageText(layer, LAYER)
    if always or not layer:
        return PageText(read_words(image), OCR)
    installed = find_spec("rapidocr") is not None
    share = covered_share(image, layer)
    if is_unreadable(layer) or (installed and _reads_otherwise(image, layer, read_words)):
        logger.warning("%s: its text layer is no text%s", name, _outcome(installed, "ocr is used"))
        return PageText(read_words(image), OCR) if installed else PageText(layer, LAYER)
    if share >= _LEAST_COVERED:
        return PageText(layer, LAYER)
    logger.warning(
        "%s: its text layer covers %.0f %% of the letters that are seen%s",
        name,
        100 * share,
        _outcome(installed, "ocr reads the rest"),
    )
    if not installed:
        return PageText(layer, LAYER)
    return PageText(_beside(layer, read_words(image)), BOTH)


def _outcome(installed: bool, done: str) -> str:
    return f"; {done}" if installed else "; pip install 'samonai[ocr]' to have it read"


def is_unreadable(words: Sequence[Word]) -> bool:
    """Return whether many characters have no meaning: private, unassigned, replaced."""
    text = "".join(word.text for word in words)
    bad = sum(c == "\ufffd" or unicodedata.category(c) in _CATEGORIES for c in text)
    return bad > _UNREADABLE * len(text)


def covered_share(image: npt.NDArray[np.uint8], words: Sequence[Word]) -> float:
    """Return the share of a page's letter-sized shapes that lie in the boxes of words.

    Args:
        image: uint8 (H, W, 3), RGB.
        words: On the page.
    """
    ink = find_ink(image)
    centres = _letters(ink)
    if len(centres) < _FEW:
        return 1.0
    inside = np.zeros(ink.mask.shape, bool)
    for word in words:
        margin = 0.25 * (word.box[3] - word.box[1])
        grown = np.array(word.box) + np.array([-margin, -margin, margin, margin])
        x0, y0, x1, y1 = (grown.clip(0) / ink.step).astype(int).tolist()
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
    return float(inside[centres[:, 0], centres[:, 1]].mean())


def _letters(ink: Ink) -> npt.NDArray[np.int64]:
    """Return (row, column), int64 (N, 2), of the centres of letter-sized shapes."""
    found = ndimage.find_objects(ndimage.label(ink.mask, np.ones((3, 3), bool))[0])
    centres = []
    for rows, columns in found:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        # A figure is higher, a rule is longer and flat, dust and dots are smaller.
        if 0.5 * ink.letter <= height <= 4 * ink.letter and width <= 30 * height:
            centres.append(((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2))
    return np.array(centres, np.int64).reshape(-1, 2)


def _reads_otherwise(
    image: npt.NDArray[np.uint8], layer: Sequence[Word], read_words: ReadWords
) -> bool:
    """Return whether OCR reads other text than a layer in Latin letters or Han has."""
    if _is_plain(layer):
        return False
    lines: dict[int, list[Word]] = {}
    for word in layer:
        lines.setdefault(word.line, []).append(word)
    longest = sorted(lines.values(), key=lambda line: -len(_signs(line)))[:_SAMPLE_LINES]
    written = [line for line in longest if _is_read_by_ocr(_signs(line))]
    if len("".join(map(_signs, written))) < _SAMPLE_LETTERS:
        return False
    from rapidfuzz import fuzz

    crops = _stacked([_crop(image, line) for line in written])
    read = _signs(read_words(crops))
    if len(read) < _SAMPLE_LETTERS // 2:
        return False
    return fuzz.ratio("".join(map(_signs, written)), read) < _LEAST_ALIKE


def _is_plain(layer: Sequence[Word]) -> bool:
    """Return whether a layer's letter pairs are those of a language in Latin script."""
    parts = [part for word in layer for part in re.findall(r"[a-z]+", word.text.casefold())]
    pairs = [part[n : n + 2] for part in parts for n in range(len(part) - 1)]
    common = sum(pair in _COMMON_PAIRS for pair in pairs)
    return len(pairs) >= _LEAST_PAIRS and common >= _COMMON_SHARE * len(pairs)


def _signs(words: Sequence[Word]) -> str:
    """Return the letters and digits of words, normalised for comparison."""
    text = unicodedata.normalize("NFKC", "".join(word.text for word in words)).casefold()
    return "".join(c for c in text if not c.isspace())


def _is_read_by_ocr(text: str) -> bool:
    """Return whether most of a text is supported by OCR's models: Latin letters, signs and Han."""
    known = sum(c < "\u0250" or (is_unspaced(c) and "\u3400" <= c <= "\u9fff") for c in text)
    return known > 0.8 * len(text)


def _crop(image: npt.NDArray[np.uint8], line: Sequence[Word]) -> npt.NDArray[np.uint8]:
    x0, y0, x1, y1 = joined_box(word.box for word in line)
    margin = 0.3 * (y1 - y0)
    rows = slice(int(max(y0 - margin, 0)), int(y1 + margin) + 1)
    return image[rows, int(max(x0 - margin, 0)) : int(x1 + margin) + 1]


def _stacked(crops: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return pictures of lines below each other on white paper."""
    space = max(crop.shape[0] for crop in crops)
    width = max(crop.shape[1] for crop in crops) + 2 * space
    rows = [np.full((space, width, 3), 255, np.uint8)]
    for crop in crops:
        row = np.full((crop.shape[0] + space, width, 3), 255, np.uint8)
        row[: crop.shape[0], space : space + crop.shape[1]] = crop
        rows.append(row)
    return np.concatenate(rows)


def _beside(layer: tuple[Word, ...], read: tuple[Word, ...]) -> tuple[Word, ...]:
    """Return OCR's words, replaced by the layer's words where it has some."""
    boxes = np.array([word.box for word in layer])
    kept = []
    for word in read:
        x, y = word.centre
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        if not inside.any():
            kept.append(word)
    last = max((word.line for word in kept), default=-1) + 1
    moved = [
        Word(word.text, word.box, last + word.line, word.score, word.letters) for word in layer
    ]
    return (*kept, *moved)
