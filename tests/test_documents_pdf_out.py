"""Regions as annotations of a PDF, read back by PDFium: what they say, and where they lie."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
import pytest
from document_factory import block_page, save_picture, text_pdf
from scipy import ndimage

from samonai.domains.base import LabelFacts
from samonai.domains.documents import DocumentsDomain, Page
from samonai.domains.documents.formats.outputs import FORMATS
from samonai.domains.documents.layout.prediction import PagePrediction, from_label

NAMES = {1: "text", 2: "figure"}


def labelled(path: Path) -> PagePrediction:
    """Return a page with an L, a block and a ring as its regions."""
    domain = DocumentsDomain(ocr="never")
    (case,) = domain.find_cases(path)
    page = domain.read(case)
    height, width = page.size
    label = np.zeros(page.size, np.int32)
    label[height // 8 : height // 3, width // 8 : width // 4] = 1
    label[height // 4 : height // 3, width // 8 : width // 2] = 1
    label[height // 2 : height - 60, width // 2 : width - 40] = 2
    label[height // 2 + 50 : height - 120, width // 2 + 50 : width - 120] = 0
    return from_label(page, label)


def written(prediction: PagePrediction, folder: Path) -> Path:
    (path,) = DocumentsDomain().export(
        prediction.page, prediction, folder / "page", ["pdf"], facts=LabelFacts(NAMES)
    )
    assert path.name == "page.regions.pdf"
    return path


def stamps(path: Path, size: tuple[int, int]) -> dict[str, tuple[float, ...]]:
    """Return the contents of each stamp, and its outline's box in pixels of the page."""
    found = {}
    with pypdfium2.PdfDocument(path) as document:
        assert len(document) == 1
        page = document[0]
        for number in range(pdfium.FPDFPage_GetAnnotCount(page)):
            annotation = pdfium.FPDFPage_GetAnnot(page, number)
            assert pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_STAMP
            text = (ctypes.c_ushort * 200)()
            pdfium.FPDFAnnot_GetStringValue(annotation, b"Contents", text, 400)
            outline = pdfium.FPDFAnnot_GetObject(annotation, 0)
            sides = [ctypes.c_float() for _ in range(4)]
            assert pdfium.FPDFPageObj_GetBounds(outline, *sides)
            x0, y0, x1, y1 = (side.value for side in sides)
            corners = np.array([pixel(page, size, x, y) for x, y in ((x0, y0), (x1, y1))])
            box = (*corners.min(0).tolist(), *corners.max(0).tolist())
            found[bytes(text).decode("utf-16-le").partition("\0")[0]] = box
            pdfium.FPDFPage_CloseAnnot(annotation)
    return found


def pixel(page: Any, size: tuple[int, int], x: float, y: float) -> tuple[int, int]:
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, size[1], size[0], 0, x, y, across, down)
    return across.value, down.value


def assert_drawn_where_the_regions_are(prediction: PagePrediction, path: Path) -> None:
    """Compare the drawn pages: what is in regions is tinted, what is outside is as it was."""
    page = prediction.page
    (case,) = DocumentsDomain().find_cases(path)
    again = DocumentsDomain(ocr="never").read(case)
    assert again.size == page.size
    difference = np.abs(again.image.astype(int) - page.image).max(-1)
    inside = prediction.label > 0
    plates = np.zeros(page.size, bool)
    for region in prediction.regions(NAMES):
        x0, y0 = (int(value) for value in region.box[:2])
        plates[max(y0 - 3, 0) : y0 + 40, max(x0 - 3, 0) : x0 + 140] = True
    white = (page.image.min(-1) > 250) & ndimage.binary_erosion(inside, iterations=3)
    assert white.any()
    assert (difference[white & ~plates] > 20).all()
    outside = ~ndimage.binary_dilation(inside, iterations=3) & ~plates
    # A keyhole joins the hole of the ring to its outline: a line of the outline's width.
    lines, _ = ndimage.label(outside & (difference > 20))
    assert np.bincount(lines.ravel())[1:].sum() < 0.002 * outside.sum()


def assert_boxes(prediction: PagePrediction, path: Path) -> None:
    found = stamps(path, prediction.page.size)
    regions = prediction.regions(NAMES)
    assert list(found) == [f"{r.number} {r.name} {r.score:.2f}" for r in regions]
    for region, box in zip(regions, found.values(), strict=True):
        # The outline's line is one point wide.
        np.testing.assert_allclose(box, region.box, atol=3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_regions_lie_where_they_are_on_turned_and_cropped_pages(
    rotation: int, tmp_path: Path
) -> None:
    text_pdf(tmp_path / "two.pdf", pages=1, seed=2)
    document = pypdfium2.PdfDocument(tmp_path / "two.pdf")
    document[0].set_rotation(rotation)
    document[0].set_cropbox(20, 30, 580, 830)
    document.save(tmp_path / "turned.pdf")
    document.close()
    prediction = labelled(tmp_path / "turned.pdf")
    path = written(prediction, tmp_path)
    assert_boxes(prediction, path)
    assert_drawn_where_the_regions_are(prediction, path)
    (case,) = DocumentsDomain().find_cases(path)
    again: Page = DocumentsDomain().read(case)
    assert again.points == prediction.page.points
    assert again.words == prediction.page.words  # no name of a class among them


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_becomes_the_page(orientation: int, tmp_path: Path) -> None:
    image, _ = block_page(300, 200)
    image[:] = 255
    save_picture(tmp_path / "scan.png", image, orientation, dpi=100)
    prediction = labelled(tmp_path / "scan.png")
    path = written(prediction, tmp_path)
    with pypdfium2.PdfDocument(path) as document:
        assert document[0].get_size() == pytest.approx((144, 216), abs=0.01)
        drawn = document[0].render(scale=100 / 72, draw_annots=False).to_numpy()
    assert np.abs(drawn[..., :3].astype(int) - 255).max() < 8
    assert_boxes(prediction, path)


def test_the_format_is_named_and_other_pages_are_left_out(tmp_path: Path) -> None:
    assert "pdf" in FORMATS
    text_pdf(tmp_path / "three.pdf", pages=3, seed=2)
    domain = DocumentsDomain(pages="2")
    (case,) = domain.find_cases(tmp_path / "three.pdf")
    page = domain.read(case)
    nothing = from_label(page, np.zeros(page.size, np.int32))
    path = written(nothing, tmp_path)
    with pypdfium2.PdfDocument(path) as document:
        assert len(document) == 1
        assert pdfium.FPDFPage_GetAnnotCount(document[0]) == 0
    (case,) = domain.find_cases(tmp_path / "three.pdf")
    again = DocumentsDomain().read(DocumentsDomain().find_cases(path)[0])
    assert again.words == page.words
