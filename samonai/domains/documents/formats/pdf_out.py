"""PDF writing: the page itself, with an annotation for each region.

The annotations are stamps with their own drawing (outline, tint, name), so that every
viewer shows the same, and the page's content and text layer are unchanged. Viewers can list, hide
and remove them; their contents are number, class and score.
"""

import ctypes
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.documents.formats.pdf import POINTS_PER_INCH, opened_pdf
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page
from samonai.domains.documents.text.words import Box
from samonai.domains.outlines import outlines
from samonai.domains.palette import palette

_PICTURE_DPI = 150.0  # of pictures without a resolution
_JPEG_QUALITY = 92
_TINT = 60  # of 255
_LINE = 1.0  # points
_TEXT = 7.0  # points
_PADDING = 1.5  # points around a name

Colour = tuple[int, int, int]
Points = npt.NDArray[np.float64]


def write_pdf(page: Page, regions: Sequence[Region], path: Path) -> Path:
    """Write a page as a PDF of one page, its regions as annotations in reading order.

    Args:
        page: The page; a PDF's page is copied unchanged, a picture becomes the page.
        regions: In reading order.
        path: The file.

    Raises:
        InputError: The page's PDF can no longer be read.
    """
    colours = np.array(palette()).reshape(-1, 3)
    document = _copied(page) if page.path.suffix.lower() == ".pdf" else _drawn(page)
    try:
        sheet = _Sheet(document, document[0], page.size)
        for region in regions:
            red, green, blue = colours[region.value % len(colours)].tolist()
            sheet.annotate(region, (red, green, blue))
        with write_atomically(path) as temporary:
            document.save(temporary)
    finally:
        document.close()
    return path


def _copied(page: Page) -> Any:
    with opened_pdf(page.path) as source:
        document = pypdfium2.PdfDocument.new()
        try:
            document.import_pages(source, [page.number - 1])
        except pypdfium2.PdfiumError as error:
            raise InputError(
                f"{page.path}: page {page.number} cannot be copied: {error}"
            ) from error
        return document


def _drawn(page: Page) -> Any:
    """Return a document of one page filled by a picture."""
    dots = page.dpi or (_PICTURE_DPI, _PICTURE_DPI)
    height, width = (
        side * POINTS_PER_INCH / per_inch for side, per_inch in zip(page.size, dots, strict=True)
    )
    file = io.BytesIO()
    Image.fromarray(page.image).save(file, format="JPEG", quality=_JPEG_QUALITY)
    document = pypdfium2.PdfDocument.new()
    sheet = document.new_page(width, height)
    picture = pypdfium2.PdfImage.new(document)
    picture.load_jpeg(file, inline=True)
    picture.set_matrix(pypdfium2.PdfMatrix().scale(width, height))
    sheet.insert_obj(picture)
    sheet.gen_content()
    return document


class _Sheet:
    """A PDF page for drawing regions.

    Args:
        document: The document.
        page: Its page.
        size: (H, W) of the page's picture, whose pixels the regions are in.
    """

    def __init__(self, document: Any, page: Any, size: tuple[int, int]) -> None:
        self._document, self._page, (self._height, self._width) = document, page, size
        # Origin and axes of the page's picture in the coordinates of drawing: they rotate with the
        # page, so that names are upright on rotated pages too.
        self._origin = self._place(0, 0)
        self._right = (self._place(self._width, 0) - self._origin) / self._width
        self._down = (self._place(0, self._height) - self._origin) / self._height

    def annotate(self, region: Region, colour: Colour) -> None:
        """Add a stamp with a region's outline and name."""
        name = f"{region.number} {region.name} {region.score:.2f}"
        rings = [self._points(ring + 0.5) for ring in outlines(region.mask)]
        outline = _shape(rings)
        _paint(outline, colour, fill=_TINT, line=_LINE)
        plate_ring, *named = self._named(name, region.box, colour)
        annotation = pdfium.FPDFPage_CreateAnnot(self._page, pdfium.FPDF_ANNOT_STAMP)
        try:
            # PDFium knows the bounds of a path only once it is on a page. Lines reach beyond them.
            corners = np.concatenate([*rings, plate_ring])
            (left, bottom), (right, top) = corners.min(0) - _LINE, corners.max(0) + _LINE
            sides = {"left": left, "bottom": bottom, "right": right, "top": top}
            _check(pdfium.FPDFAnnot_SetRect(annotation, pdfium.FS_RECTF(**sides)))
            for part in (outline, *named):
                _check(pdfium.FPDFAnnot_AppendObject(annotation, part))
            _check(pdfium.FPDFAnnot_SetStringValue(annotation, b"Contents", _wide(name)))
            _check(pdfium.FPDFAnnot_SetStringValue(annotation, b"T", _wide("samonai")))
            _check(pdfium.FPDFAnnot_SetFlags(annotation, pdfium.FPDF_ANNOT_FLAG_PRINT))
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)

    def _named(self, name: str, box: Box, colour: Colour) -> tuple[Points, Any, Any]:
        """Return the name plate in the upper left corner of a box: corners, plate, name."""
        text = pdfium.FPDFPageObj_NewTextObj(self._document, b"Helvetica", _TEXT)
        _check(pdfium.FPDFText_SetText(text, _wide(name)))
        width, height = _extent(text)
        right, down = (axis / np.linalg.norm(axis) for axis in (self._right, self._down))
        corner = self._points(np.array([box[:2]]))[0]
        wide, high = (width + 2 * _PADDING) * right, (height + 2 * _PADDING + _TEXT / 4) * down
        ring = np.array([corner, corner + wide, corner + wide + high, corner + high])
        plate = _shape([ring])
        _paint(plate, colour, fill=255)
        start = corner + _PADDING * right + (height + _PADDING) * down
        pdfium.FPDFPageObj_Transform(text, *right, *-down, *start)
        _paint(text, (0, 0, 0) if sum(colour) > 382 else (255, 255, 255), fill=255)
        return ring, plate, text

    def _points(self, corners: Points) -> Points:
        """Map pixel corners (n, 2), (x, y), to the page, float64 (n, 2)."""
        return self._origin + corners[:, :1] * self._right + corners[:, 1:] * self._down

    def _place(self, x: int, y: int) -> Points:
        across, up = ctypes.c_double(), ctypes.c_double()
        size = self._width, self._height
        _check(pdfium.FPDF_DeviceToPage(self._page, 0, 0, *size, 0, x, y, across, up))
        return np.array([across.value, up.value])


def _shape(rings: Sequence[Points]) -> Any:
    """Return closed outlines as one path."""
    path = pdfium.FPDFPageObj_CreateNewPath(*rings[0][0])
    for number, ring in enumerate(rings):
        if number:
            _check(pdfium.FPDFPath_MoveTo(path, *ring[0]))
        for corner in ring[1:]:
            _check(pdfium.FPDFPath_LineTo(path, *corner))
        _check(pdfium.FPDFPath_Close(path))
    return path


def _paint(item: Any, colour: Colour, fill: int, line: float = 0.0) -> None:
    """Set the drawing style of an object: fill opacity (0..255), line width, or none."""
    _check(pdfium.FPDFPageObj_SetFillColor(item, *colour, fill))
    if pdfium.FPDFPageObj_GetType(item) != pdfium.FPDF_PAGEOBJ_PATH:
        return
    _check(pdfium.FPDFPath_SetDrawMode(item, pdfium.FPDF_FILLMODE_ALTERNATE, line > 0))
    if line:
        _check(pdfium.FPDFPageObj_SetStrokeColor(item, *colour, 255))
        _check(pdfium.FPDFPageObj_SetStrokeWidth(item, line))


def _extent(text: Any) -> tuple[float, float]:
    """Return the width of a text, and its height above the baseline."""
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    _check(pdfium.FPDFPageObj_GetBounds(text, left, bottom, right, top))
    return right.value - left.value, top.value


def _wide(text: str) -> Any:
    """Return text in PDFium's encoding: UTF-16, little endian, null-terminated."""
    encoded = (text + "\0").encode("utf-16-le")
    return (pdfium.FPDF_WCHAR * (len(encoded) // 2)).from_buffer_copy(encoded)


def _check(done: int) -> None:
    """Raise an error if PDFium failed, which it does without a reason."""
    if not done:
        raise pypdfium2.PdfiumError("a region could not be drawn")
