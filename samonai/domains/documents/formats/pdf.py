"""PDF through pypdfium2: pages as pictures at a chosen resolution, and the text layer's words."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pypdfium2
import pypdfium2.raw as pdfium

from samonai.core.errors import InputError
from samonai.domains.documents.text.words import Box, Word, is_unspaced, joined_box
from samonai.domains.pictures import check_size

POINTS_PER_INCH = 72.0

_HEAD = 1024  # the PDF signature lies within the first bytes
_SUBPIXELS = 64  # PDFium returns whole device pixels; so many per pixel are requested
_HYPHENS = ("\x02", "\ufffe")  # PDFium's marks of a hyphen at the end of a line


@dataclass(frozen=True)
class PdfPage:
    """A page of a PDF as displayed: rotated and cropped as the file states.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        points: (height, width) in points of 1/72 inch.
        words: Words of the text layer; none on a scan.
    """

    image: npt.NDArray[np.uint8]
    points: tuple[float, float]
    words: tuple[Word, ...]


def count_pdf_pages(path: Path) -> int:
    """Return the number of pages.

    Raises:
        InputError: The file cannot be read.
    """
    with opened_pdf(path) as document:
        return len(document)


def read_pdf_page(path: Path, number: int, dpi: float) -> PdfPage:
    """Draw one page and read its text layer.

    Args:
        path: The PDF.
        number: Number of the page, from 1.
        dpi: Pixels per inch.

    Raises:
        InputError: The file cannot be read, or the page would be too large.
    """
    with opened_pdf(path) as document:
        try:
            page = document[number - 1]
            width, height = page.get_size()
            scale = dpi / POINTS_PER_INCH
            size = math.ceil(height * scale), math.ceil(width * scale)
            check_size(path, size, dpi)
            bitmap = page.render(scale=scale, rev_byteorder=True, fill_color=(255, 255, 255, 255))
            image = np.array(bitmap.to_numpy()[..., :3], np.uint8)
            return PdfPage(image, (height, width), tuple(_words(page, image.shape[:2])))
        except pypdfium2.PdfiumError as error:
            raise InputError(f"{path}: page {number} cannot be read: {error}") from error


@contextmanager
def opened_pdf(path: Path) -> Iterator[Any]:
    """Open a PDF, and close it at the end of the block.

    Raises:
        InputError: The file is not a PDF, is encrypted, or is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if b"%PDF-" not in head:
        kind = "HTML" if b"<html" in head.lower() or b"<!doctype" in head.lower() else "no PDF"
        raise InputError(f"{path}: {kind} inside, whatever its name says")
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise InputError(f"{path}: encrypted; remove its password first") from error
        raise InputError(f"{path}: damaged: {error}") from error
    try:
        yield document
    finally:
        document.close()


def _words(page: Any, size: tuple[int, int]) -> Iterator[Word]:
    """Yield the words of a page's text layer, in the order of the file."""
    text_page = page.get_textpage()
    text = [chr(pdfium.FPDFText_GetUnicode(text_page, n)) for n in range(text_page.count_chars())]
    place = _Place(page, text_page, size)
    line, start = 0, 0
    for end, character in enumerate([*text, " "]):
        # PDFium leaves out the line's end behind a hyphen that it marks.
        broken = character in _HYPHENS and not place.goes_on(end, end + 1, len(text))
        if character in _HYPHENS and not broken:
            continue
        if not (broken or character.isspace() or ord(character) < 32):
            continue
        stop = end + 1 if broken else end
        if stop > start:
            box = place.box(range(start, stop))
            if box is not None:
                word = "".join("-" if c in _HYPHENS else c for c in text[start:stop])
                yield Word(word, box, line, letters=place.letters(word, start, box))
        line += broken or character == "\n"
        start = end + 1
    text_page.close()


class _Place:
    """Positions of characters in pixels of the drawn page, for any rotation and crop."""

    def __init__(self, page: Any, text_page: Any, size: tuple[int, int]) -> None:
        self._page, self._text_page, (self._height, self._width) = page, text_page, size

    def box(self, characters: range) -> Box | None:
        """Return the box around characters, cut at the page's border; None if it is empty."""
        boxes = [box for n in characters if (box := self._character(n)) is not None]
        if not boxes:
            return None
        x0, y0, x1, y1 = joined_box(boxes)
        x0, x1 = max(x0, 0.0), min(x1, float(self._width))
        y0, y1 = max(y0, 0.0), min(y1, float(self._height))
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def letters(self, word: str, start: int, box: Box) -> tuple[Box, ...]:
        """Return the box of each character of a word, in scripts without spaces."""
        if not any(map(is_unspaced, word)):
            return ()
        places = range(start, start + len(word))
        return tuple(self.box(range(place, place + 1)) or box for place in places)

    def goes_on(self, number: int, after: int, count: int) -> bool:
        """Return whether a character directly follows another one on the same line."""
        if after >= count:
            return False
        one, other = self._character(number), self._character(after)
        if one is None or other is None:
            return False
        height = max(one[3] - one[1], other[3] - other[1])
        level = min(one[3], other[3]) + height / 2 > max(one[1], other[1])
        return level and -height / 2 < other[0] - one[2] < height / 2

    def _character(self, number: int) -> Box | None:
        left, right, bottom, top = (ctypes.c_double() for _ in range(4))
        if not pdfium.FPDFText_GetCharBox(self._text_page, number, left, right, bottom, top):
            return None
        corners = [self._device(x.value, y.value) for x, y in ((left, top), (right, bottom))]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def _device(self, x: float, y: float) -> tuple[float, float]:
        across, down = ctypes.c_int(), ctypes.c_int()
        size = self._width * _SUBPIXELS, self._height * _SUBPIXELS
        pdfium.FPDF_PageToDevice(self._page, 0, 0, *size, 0, x, y, across, down)
        return across.value / _SUBPIXELS, down.value / _SUBPIXELS
