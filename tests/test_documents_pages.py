"""Pages as they come: upright, on white, with their words; what is no page is refused in a line."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from document_factory import block_page, save_picture, text_pdf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samonai.core.errors import InputError
from samonai.domains import pictures as pictures_module
from samonai.domains.base import Case
from samonai.domains.documents import DocumentsDomain
from samonai.prompts.frame_prompts import UNKNOWN_ID, FramePrompts


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_labels_come_back_exactly(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(3, 180), st.integers(3, 60)), "size")
    orientation = data.draw(st.integers(1, 8), "orientation")
    dpi = data.draw(st.sampled_from([None, 96.0, 300.0]), "dpi")
    longest = data.draw(st.sampled_from([1.5, 2.0, 3.0]), "longest")
    overlap = data.draw(st.sampled_from([0.0, 0.25, 0.5]), "overlap")
    image, label = block_page(height, width, data.draw(st.integers(0, 99), "seed"))
    domain = DocumentsDomain(longest=longest, overlap=overlap, classes="a,b,c")
    with tempfile.TemporaryDirectory() as folder:
        path = save_picture(Path(folder) / "page.png", image, orientation, dpi)
        mask = Path(folder) / "masks" / "page.png"
        mask.parent.mkdir()
        Image.fromarray(label).save(mask)
        (case,) = domain.find_cases(path, mask.parent)
        page = domain.read(case)
        np.testing.assert_array_equal(page.image, image)
        np.testing.assert_array_equal(page.label, label)
        frames = [domain.frame(page, index) for index in range(domain.frame_count(page))]
        for frame in frames:
            row, column = frame.location.origin
            part = np.s_[row : row + frame.size[0], column : column + frame.size[1]]
            np.testing.assert_array_equal(frame.image, image[part])
        merged = domain.merge(page, {f.location.index: f.label for f in frames})
        np.testing.assert_array_equal(merged, label)

        merger = domain.merger(page)
        for frame in frames:
            scores = np.where(frame.label == np.array([1, 2, 3])[:, None, None], 5.0, -5.0)
            boxes = np.full((3, 4), np.nan, np.float32)
            merger.add(frame, scores.astype(np.float32), FramePrompts(boxes, np.array([1, 2, 3])))
        written = domain.write(page, merger.finish(), Path(folder) / "out" / "page.label")
        np.testing.assert_array_equal(domain.read_back(written), label)
        with Image.open(written) as opened:
            stored = opened.info.get("dpi")
        assert (stored is None) == (dpi is None)
        if dpi is not None:
            np.testing.assert_allclose(stored, (dpi, dpi), rtol=1e-3)


def test_long_pages_are_cut_along_their_long_side_with_overlap() -> None:
    domain = DocumentsDomain(overlap=0.25)
    receipt = domain.grid(_page(np.zeros((900, 100, 3), np.uint8)))
    windows = [receipt.window(n) for n in range(len(receipt))]
    assert {(w.height, w.width) for w in windows} == {(142, 100)}
    assert (windows[0].row, windows[-1].bottom) == (0, 900)
    shared = [a.bottom - b.row for a, b in pairwise(windows)]
    assert min(shared) >= 35
    assert len(domain.grid(_page(np.zeros((1754, 1240, 3), np.uint8)))) == 1


def test_objects_of_several_pieces_are_one_region() -> None:
    domain = DocumentsDomain(overlap=0.25)
    page = _page(np.zeros((300, 60, 3), np.uint8))
    truth = np.zeros((2, 300, 60), bool)
    truth[0, 10:200, 5:25], truth[1, 10:200, 25:50] = True, True
    merger = domain.merger(page)
    for index in range(domain.frame_count(page)):
        frame = domain.frame(page, index)
        row = frame.location.origin[0]
        scores = np.where(truth[:, row : row + frame.size[0]], 3.0, -3.0).astype(np.float32)
        boxes = np.full((2, 4), np.nan, np.float32)
        merger.add(frame, scores, FramePrompts(boxes, np.array([1, 1]), np.array([7, 9])))
    prediction = merger.finish()
    assert prediction.classes.tolist() == [1, 1]
    for number in (1, 2):
        np.testing.assert_array_equal(prediction.instances == number, truth[number - 1])
    np.testing.assert_allclose(prediction.scores, 1 / (1 + np.exp(-3)), rtol=1e-5)
    assert [region.box for region in prediction.regions()] == [(5, 10, 25, 200), (25, 10, 50, 200)]


def test_specks_are_regions_where_they_were_asked_for_only() -> None:
    page = _page(np.zeros((200, 150, 3), np.uint8))  # a speck has less than three pixels
    scores = np.full((2, 200, 150), -3.0, np.float32)
    scores[0, 10:60, 5:90], scores[1, 100, 70:72] = 3.0, 3.0
    boxes = np.full((2, 4), np.nan, np.float32)
    for ids, count in (([UNKNOWN_ID] * 2, 1), ([4, 2], 2)):
        domain = DocumentsDomain()
        merger = domain.merger(page)
        merger.add(
            domain.frame(page, 0), scores, FramePrompts(boxes, np.ones(2, int), np.array(ids))
        )
        regions = merger.finish().regions()
        assert len(regions) == count
        assert [region.asked for region in regions] == ([None] if count == 1 else [4, 2])


@pytest.mark.parametrize("kind", ["cmyk", "16 bit", "1 bit", "transparent", "palette"])
def test_every_kind_of_pixel_becomes_rgb_on_white(kind: str, tmp_path: Path) -> None:
    ink = np.zeros((8, 6), bool)
    ink[2:5, 1:4] = True
    grey = np.where(ink, 0, 255).astype(np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    path = tmp_path / "page.tif"
    if kind == "cmyk":
        black = np.zeros((8, 6, 4), np.uint8)
        black[ink] = (0, 0, 0, 255)
        Image.fromarray(black, mode="CMYK").save(path)
    elif kind == "16 bit":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif kind == "1 bit":
        Image.fromarray(~ink).save(path)
    elif kind == "transparent":
        path = tmp_path / "page.webp"
        pixels = np.zeros((8, 6, 4), np.uint8)
        pixels[ink, 3] = 255
        Image.fromarray(pixels, mode="RGBA").save(path, lossless=True)
    else:
        path = tmp_path / "page.png"
        paletted = Image.fromarray(ink.astype(np.uint8), mode="P")
        paletted.putpalette([9, 9, 9, 0, 0, 0])
        paletted.save(path, transparency=0)
    np.testing.assert_array_equal(DocumentsDomain().read(Case("page", path)).image, expected)


def test_pages_of_a_tiff_and_of_a_pdf_are_cases_of_one_document(tmp_path: Path) -> None:
    images = [Image.fromarray(block_page(40, 30, seed)[0]) for seed in range(3)]
    images[0].save(tmp_path / "fax.tif", save_all=True, append_images=images[1:])
    text_pdf(tmp_path / "report.pdf", pages=2)
    domain = DocumentsDomain()
    cases = domain.find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["fax@1", "fax@2", "fax@3", "report@1", "report@2"]
    assert [case.group for case in cases] == ["fax"] * 3 + ["report"] * 2
    for case, image in zip(cases[:3], images, strict=True):
        np.testing.assert_array_equal(domain.read(case).image, np.asarray(image))
    chosen = DocumentsDomain(pages="2-3").find_cases(tmp_path)
    assert [case.case_id for case in chosen] == ["fax@2", "fax@3", "report@2"]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_words_of_a_pdf_lie_on_their_ink(rotation: int, tmp_path: Path) -> None:
    blocks = text_pdf(tmp_path / "flat.pdf")[0]
    document = pypdfium2.PdfDocument(tmp_path / "flat.pdf")
    document[0].set_rotation(rotation)
    document[0].set_cropbox(20, 30, 580, 830)
    document.save(tmp_path / "page.pdf")
    document.close()
    page = DocumentsDomain(dpi=100).read(Case("page", tmp_path / "page.pdf"))
    assert page.points == ((800, 560) if rotation % 180 == 0 else (560, 800))
    # PDFium's order follows the page as it is seen.
    written = [word for block in blocks for word in block.words]
    assert sorted(word.text for word in page.words) == sorted(written)
    ink = (page.image < 128).all(2)
    for word in page.words:
        x0, y0, x1, y1 = (round(v) for v in word.box)
        assert ink[y0:y1, x0:x1].any(), word
    covered = np.zeros(page.size, bool)
    for word in page.words:
        x0, y0, x1, y1 = word.box
        covered[int(y0) - 1 : int(y1) + 2, int(x0) - 1 : int(x1) + 2] = True
    if rotation == 0:
        assert [word.text for word in page.words] == written
        assert {word.line for word in page.words[: len(blocks[0].words)]} == {0}
    # Besides words there are the lines of the table only: the figure is light.
    assert (ink & ~covered).sum() < 0.01 * ink.size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"<!DOCTYPE html><html><body>log in</body></html>", "HTML inside"),
        ("a.pdf", b"%PDF-1.7\nnothing else", "damaged"),
        ("a.png", b"\x89PNG\r\n\x1a\nbroken", "not a PNG"),
        ("a.jpg", b"", "not a PNG, JPEG"),
    ],
)
def test_what_is_no_page_is_refused_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    domain = DocumentsDomain()
    with pytest.raises(InputError, match=message) as caught:
        domain.read(domain.find_cases(path)[0])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "LARGEST_PICTURE", 5000)
    path = save_picture(tmp_path / "bomb.png", np.zeros((100, 60, 3), np.uint8))
    with pytest.raises(InputError, match="60 x 100 pixels"):
        DocumentsDomain().read(Case("bomb", path))
    text_pdf(tmp_path / "poster.pdf")
    monkeypatch.setattr(pictures_module, "LARGEST_PICTURE", 300_000)
    with pytest.raises(InputError, match=r"124\d x 1754 .*; dpi=55 fits"):
        DocumentsDomain().read(Case("poster", tmp_path / "poster.pdf"))
    assert DocumentsDomain(dpi=55).read(Case("poster", tmp_path / "poster.pdf")).size == (644, 455)


def test_encrypted_pdfs_are_refused(tmp_path: Path) -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "secret.pdf"), encrypt=StandardEncryption("user", "owner"))
    canvas.drawString(72, 72, "secret")
    canvas.save()
    with pytest.raises(InputError, match="encrypted"):
        DocumentsDomain().find_cases(tmp_path)


def test_thousands_of_pages_are_capped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samonai.domains.documents import dataset

    monkeypatch.setattr(dataset, "MOST_PAGES", 2)
    text_pdf(tmp_path / "book.pdf", pages=3)
    assert len(DocumentsDomain().find_cases(tmp_path)) == 2
    assert "the first 2 are used" in caplog.text
    assert len(DocumentsDomain(pages="1-3").find_cases(tmp_path)) == 3


def _page(image: np.ndarray) -> object:
    from samonai.domains.documents import Page

    return Page("page", Path("page.png"), 1, image)
