"""Pages and pictures in the states that real ones are in: text layers, EXIF, grey, PAGE, ALTO."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from samonai.core.errors import InputError
from samonai.domains.documents.domain import DocumentsDomain
from samonai.domains.documents.formats.pdf import read_pdf_page
from samonai.domains.documents.text.page_text import page_text
from samonai.domains.documents.text.text_matching import exact_matches, regex_matches
from samonai.domains.documents.text.words import Word, text_of
from samonai.domains.pictures import read_picture

LEFT = ["The left column speaks", "of many things that", "have a place and infor-"]
RIGHT = ["mation about the right", "column, well-known words", "until the page ends"]
DPI = 144


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    """Two columns; a word breaks at the foot of the left one."""
    path = tmp_path / "columns.pdf"
    canvas = Canvas(str(path), pagesize=(595, 400), invariant=1)
    canvas.setFont("Helvetica", 12)
    for x, lines in ((60, LEFT), (330, RIGHT)):
        for row, line in enumerate(lines):
            canvas.drawString(x, 340 - 16 * row, line)
    canvas.save()
    return path


@pytest.mark.conformance(
    domain="documents",
    condition="A word broken by a hyphen at the foot of a column of a PDF",
    source="PDFium, FPDFText_IsHyphen: U+0002 stands for such a hyphen",
    right="two lines, a box on each, found as one word with the hyphen or without",
    reader="reportlab's own coordinates",
    severity=1,
)
def test_words_broken_by_a_hyphen(columns: Path) -> None:
    words = read_pdf_page(columns, 1, DPI).words
    assert text_of(words).split("\n") == LEFT + RIGHT
    scale, height = DPI / 72, 400
    for query in ("information", "infor-mation"):
        (match,) = exact_matches(words, query)
        assert match.text == "information"
        left, right = match.boxes
        start = 60 + pdfmetrics.stringWidth("have a place and ", "Helvetica", 12)
        end = 330 + pdfmetrics.stringWidth("mation", "Helvetica", 12)
        assert left[0] == pytest.approx(start * scale, abs=3)
        assert right[2] == pytest.approx(end * scale, abs=3)
        assert left[1] > (height - 340 + 16) * scale
        assert right[3] < (height - 340 + 6) * scale
    assert [match.text for match in exact_matches(words, "well-known")] == ["well-known"]
    assert len(regex_matches(words, r"\binformation about\b")) == 1


@pytest.mark.conformance(
    domain="documents",
    condition="Chinese in a PDF: a line has no spaces",
    source="UAX 29",
    right="found inside the line, with the box of its characters",
    reader="reportlab's own coordinates",
    severity=1,
)
def test_words_inside_a_line_without_spaces(tmp_path: Path) -> None:
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    path = tmp_path / "cjk.pdf"
    canvas = Canvas(str(path), pagesize=(400, 200), invariant=1)
    canvas.setFont("STSong-Light", 20)
    canvas.drawString(40, 140, "本公司年度會議記錄如下")
    canvas.drawString(40, 100, "利潤增長2024年十分明顯")
    canvas.save()
    words = read_pdf_page(path, 1, DPI).words
    (match,) = exact_matches(words, "會議記錄")
    x0, y0, x1, y1 = match.box
    assert match.text == "會議記錄"
    # Characters 5 to 8 of 20 points each.
    assert x0 == pytest.approx((40 + 5 * 20) * 2, abs=6)
    assert x1 == pytest.approx((40 + 9 * 20) * 2, abs=6)
    assert y0 < (200 - 140) * 2 < y1 + 4
    assert [match.text for match in exact_matches(words, "2024年")] == ["2024年"]
    assert [match.text for match in regex_matches(words, "增長20..年")] == ["增長2024年"]
    assert exact_matches(words, "記會") == []


@pytest.mark.conformance(
    domain="documents",
    condition="Japanese and Thai words inside a line without spaces",
    source="UAX 29",
    right="found, with the box of their characters; spaces and half-width forms do not count",
    reader="boxes of the generated words",
    severity=1,
)
@pytest.mark.parametrize(
    ("line", "query", "start", "end"),
    [
        ("東京都の会議を開く", "会議", 4, 6),
        ("東京都の会議を開く", "会 議を", 4, 7),
        ("データをグラフで示す", "ｸﾞﾗﾌ", 4, 7),
        ("รายงานประจำปีของบริษัท", "ประจำปี", 6, 13),
    ],
)
def test_words_of_generated_lines(line: str, query: str, start: int, end: int) -> None:
    letters = tuple((10.0 * n, 0.0, 10.0 * n + 10, 12.0) for n in range(len(line)))
    word = Word(line, (0.0, 0.0, 10.0 * len(line), 12.0), 0, letters=letters)
    (match,) = exact_matches([Word("before", (0, 0, 1, 1), 0), word], query)
    assert match.text == line[start:end]
    assert match.box == (10.0 * start, 0.0, 10.0 * end, 12.0)


def scan_like(path: Path, layer: str | None, lines: list[str]) -> Path:
    """A PDF whose page is a picture of text, with an invisible layer that reads otherwise."""
    drawn = path.with_suffix(".drawn.pdf")
    canvas = Canvas(str(drawn), pagesize=(400, 200), invariant=1)
    canvas.setFont("Helvetica", 14)
    for row, line in enumerate(lines):
        canvas.drawString(30, 160 - 24 * row, line)
    canvas.save()
    picture = pypdfium2.PdfDocument(drawn)[0].render(scale=2).to_pil()
    canvas = Canvas(str(path), pagesize=(400, 200), invariant=1)
    canvas.drawImage(ImageReader(picture), 0, 0, 400, 200)
    if layer is not None:
        text = canvas.beginText()
        text.setTextRenderMode(3)
        text.setFont("Helvetica", 14)
        for row, line in enumerate(layer.split("\n")):
            text.setTextOrigin(30, 160 - 24 * row)
            text.textOut(line)
        canvas.drawText(text)
    canvas.save()
    return path


SEEN = ["Quarterly report of the harbour", "Income rose in every month", "and the costs fell again"]
SEEN_WORDS = tuple(
    Word(word, (60.0 + 60 * n, 60.0 + 48 * row, 118.0 + 60 * n, 84.0 + 48 * row), row, 0.9)
    for row, line in enumerate(SEEN)
    for n, word in enumerate(line.split())
)


@pytest.mark.conformance(
    domain="documents",
    condition="A text layer that is a stamp on a scan, a cipher, or signs without meaning",
    source="reports gathered in issue 17, C.2",
    right="OCR, and a line that says so; a layer that is the page's text is believed",
    reader="none (a reader of fixed words stands for OCR)",
    severity=1,
)
@pytest.mark.parametrize(
    ("layer", "mode", "source", "found"),
    [
        ("\n".join(SEEN), "query", "text layer", "Income"),
        ("\n".join(SEEN), "always", "ocr", "Income"),
        ("\n".join(SEEN), "never", "text layer", "Income"),
        (None, "query", "ocr", "Income"),
        ("X", "query", "text layer and ocr", "Income"),
        ("\n".join(line.translate({n: n + 1 for n in range(97, 122)}) for line in SEEN),
         "query", "ocr", "Income"),
    ],
)  # fmt: skip
def test_layers_are_believed_where_they_are_the_text(
    layer: str | None,
    mode: str,
    source: str,
    found: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    page = read_pdf_page(scan_like(tmp_path / "scan.pdf", layer, SEEN), 1, DPI)
    text = page_text(
        page.image,
        page.words,
        None if mode == "never" else lambda image: SEEN_WORDS,
        always=mode == "always",
        name="scan",
    )
    assert text.source == source
    assert exact_matches(text.words, found)
    assert f"words from {source}" in caplog.text


def turned_photo(path: Path, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Save a photograph with an object, and return where that is in the stored pixels."""
    stored = np.full((*size, 3), 230, np.uint8)
    mask = np.zeros(size, bool)
    mask[4:10, 6:20] = True
    stored[mask] = (30, 60, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    return mask


@pytest.mark.conformance(
    domain="documents",
    condition="EXIF orientation 2 to 8 of a photograph whose labels are of its stored pixels",
    source="Exif (CIPA DC-008), Orientation",
    right="label_orientation says which; where nothing tells, upright and a warning",
    reader="none (the object's colour in the picture)",
    severity=1,
)
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [(24, 32), (32, 32)])
def test_labels_of_turned_photographs(
    orientation: int, size: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = tmp_path / "photo.png"
    mask = turned_photo(photo, orientation, size)
    labels = tmp_path / "labels.json"
    entry = {"id": 1, "file_name": "photo.png", "height": size[0], "width": size[1]}
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [6, 4, 14, 6]}
    content = {"images": [entry], "annotations": [one], "categories": [{"id": 1, "name": "car"}]}
    labels.write_text(json.dumps(content))
    said = DocumentsDomain(label_orientation="stored")
    (case,) = said.find_cases(photo, labels)
    page = said.read(case)
    blue = page.image[..., 2].astype(int) - page.image[..., 0] > 80
    np.testing.assert_array_equal(page.label > 0, blue)
    assert blue.sum() == mask.sum()

    caplog.clear()
    assumed = DocumentsDomain().read(case).label
    told = orientation >= 5 and size[0] != size[1]
    assert ("label_orientation=stored" in caplog.text) is not told
    np.testing.assert_array_equal(assumed > 0, blue if told else mask)


@pytest.mark.conformance(
    domain="documents",
    condition="A turned photograph beside upright outlines and the size of its stored pixels, as "
    "Label Studio exports them",
    source="github.com/HumanSignal/label-studio/issues/6608",
    right="label_orientation=upright reads them; refused where outlines fit the upright picture "
    "alone; else taken for stored pixels, with a warning",
    reader="none (the object's colour in the picture)",
    severity=1,
)
@pytest.mark.parametrize("orientation", [6, 8])
def test_upright_outlines_beside_the_stored_size(
    orientation: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo, labels = tmp_path / "photo.png", tmp_path / "labels.json"
    turned_photo(photo, orientation, (24, 32))
    (unlabelled,) = DocumentsDomain().find_cases(photo)
    page = DocumentsDomain().read(unlabelled)
    seen = page.image[..., 2].astype(int) - page.image[..., 0] > 80  # (32, 24)
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    box = [int(v) for v in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]
    low = [1, 26, 4, 5]  # beyond the 24 rows of the stored pixels
    entry = {"id": 1, "file_name": "photo.png", "height": 24, "width": 32}
    for boxes in ([box], [box, low]):
        rows_of = [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": b} for n, b in enumerate(boxes)
        ]
        content = {
            "images": [entry],
            "annotations": rows_of,
            "categories": [{"id": 1, "name": "a"}],
        }
        labels.write_text(json.dumps(content))
        said = DocumentsDomain(label_orientation="upright")
        expected = seen.copy()
        expected[26:31, 1:5] |= len(boxes) > 1
        (case,) = said.find_cases(photo, labels)
        np.testing.assert_array_equal(said.read(case).label > 0, expected)
        if box[1] + box[3] > 24 or len(boxes) > 1:
            with pytest.raises(InputError, match=r"fit the upright picture of 24 x 32 alone"):
                DocumentsDomain().read(case)
        else:
            DocumentsDomain().read(case)
            assert "label_orientation=upright says otherwise" in caplog.text


def write_grey(path: Path, values: np.ndarray, significant: int | None = None) -> Path:
    """Write a PNG of 16 bit grey, with its sBIT chunk."""
    Image.fromarray(values.astype(np.uint16)).save(path)
    if significant is not None:
        data = path.read_bytes()
        body = b"sBIT" + bytes([significant])
        chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
        path.write_bytes(data[:33] + chunk + data[33:])  # behind IHDR
    return path


@pytest.mark.conformance(
    domain="documents",
    condition="Grey of 8 to 14 bits stored in a PNG of 16",
    source="PNG (third edition), 11.3.2.4, sBIT",
    right="white is white: scaled by the bits that the values need, or that sBIT states; a line",
    reader="Pillow 13.0.0, the stored values over the white of that depth",
    severity=1,
)
@pytest.mark.parametrize(
    ("bits", "significant", "white"),
    [(8, None, 255), (12, None, 4095), (14, None, 16383), (16, None, 65535), (12, 12, 4095),
     (12, 16, 65535), (16, 12, 65535)],
)  # fmt: skip
def test_grey_of_fewer_bits(bits: int, significant: int | None, white: int, tmp_path: Path) -> None:
    values = np.linspace(0, (1 << bits) - 1, 48).round().astype(np.uint16).reshape(6, 8)
    image = read_picture(write_grey(tmp_path / "grey.png", values, significant)).image
    expected = np.round(values / white * 255)
    np.testing.assert_allclose(image[..., 0], expected, atol=1)
    assert (image[..., 0] == image[..., 2]).all()


@pytest.mark.conformance(
    domain="documents",
    condition="JPEG files whose first segment is neither JFIF nor EXIF (FFD8FFDB, FFD8FFEE)",
    source="ITU-T T.81, Table B.1; JFIF is a document of its own, T.871",
    right="read, as a page and as a raster",
    reader="Pillow 13.0.0",
    severity=2,
)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpegs_without_jfif(mode: str, tmp_path: Path) -> None:
    from samonai.domains.satellite.access import open_raster

    path = tmp_path / "photo.jpg"
    colours = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    Image.fromarray(colours).convert(mode).save(path)
    data = path.read_bytes()
    while data[2:4] == b"\xff\xe0":  # JFIF
        data = data[:2] + data[4 + struct.unpack(">H", data[4:6])[0] :]
    path.write_bytes(data)
    assert data[2:4] in (b"\xff\xdb", b"\xff\xee")
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(read_picture(path).image, expected)
    with open_raster(path) as raster:
        assert (raster.height, raster.width) == (16, 24)


def page_xml(regions: str) -> str:
    return (
        '<?xml version="1.0"?><PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/'
        '2019-07-15"><Page imageFilename="p.png" imageWidth="30" imageHeight="40">'
        f"{regions}</Page></PcGts>"
    )


GOOD = '<TableRegion id="good"><Coords points="0,20 30,20 30,30 0,30"/></TableRegion>'
LINES = (
    '<TextRegion id="r7">{}<TextLine id="l1"><Coords points="5,4 15,4 15,9 5,9"/></TextLine>'
    '<TextLine id="l2"><Coords points="5,8 15,8 15,14 5,14"/></TextLine></TextRegion>'
)


def labelled(folder: Path, content: str, size: tuple[int, int] = (40, 30), **picture: Any) -> Any:
    Image.fromarray(np.full((*size, 3), 255, np.uint8)).save(folder / "p.png", **picture)
    (folder / "p.xml").write_text(content)
    domain = DocumentsDomain()
    (case,) = domain.find_cases(folder / "p.png", folder / "p.xml")
    domain.fit([case])
    return domain.read(case)


@pytest.mark.conformance(
    domain="documents",
    condition="A PAGE region without Coords, or with fewer than three points",
    source="github.com/DCGM/pero-ocr/issues/79; github.com/OCR-D/ocrd_segment/issues/60; "
    "github.com/kba/transkribus-to-prima/issues/19",
    right="the union of its lines; without lines a warning with its id, and what lies outside the "
    "other regions counts for nothing",
    reader="none (arithmetic)",
    severity=1,
)
@pytest.mark.parametrize("coords", ["", '<Coords points="5,4 15,14"/>', '<Coords points="a,b"/>'])
def test_page_regions_without_a_place(
    coords: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = labelled(tmp_path, page_xml(LINES.format(coords) + GOOD))
    expected = np.zeros((40, 30), int)
    expected[20:30], expected[4:14, 5:15] = 1, 2
    np.testing.assert_array_equal(page.label, expected)
    assert page.labelled.known is None

    page = labelled(tmp_path, page_xml(f'<TextRegion id="r9">{coords}</TextRegion>' + GOOD))
    np.testing.assert_array_equal(page.label > 0, page.labelled.known)
    assert np.count_nonzero(page.label) == 300
    assert "r9: no usable outline" in caplog.text
    with pytest.raises(InputError, match=r"no region has a usable outline \(r9\)"):
        labelled(tmp_path, page_xml(f'<TextRegion id="r9">{coords}</TextRegion>'))


def alto(unit: str, page: str, block: str) -> str:
    return (
        '<?xml version="1.0"?><alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description>'
        f"<MeasurementUnit>{unit}</MeasurementUnit></Description><Layout><Page {page}><PrintSpace>"
        f'<TextBlock ID="b1" {block}/></PrintSpace></Page></Layout></alto>'
    )


@pytest.mark.conformance(
    domain="documents",
    condition="ALTO in tenths of millimetres and in 1/1200 inch",
    source="ALTO, MeasurementUnit",
    right="scaled along each axis by the picture's side over the page's; without sides by the "
    "picture's resolution; of another shape refused",
    reader="none (arithmetic)",
    severity=2,
)
def test_alto_units(tmp_path: Path) -> None:
    expected = np.zeros((40, 30), int)
    expected[10:20, 6:15] = 1
    for unit, page, block, dpi in (
        ("mm10", (300, 400), (60, 100, 90, 100), None),
        ("inch1200", (3000, 4000), (600, 1000, 900, 1000), 72),
        ("mm10", (301, 401), (60.2, 100.25, 90.3, 100.25), None),
        ("inch1200", (3000, 2000), (600, 500, 900, 500), (200, 400)),
        ("mm10", None, (152.4, 254, 228.6, 254), 10),
        ("inch1200", None, (720, 1200, 1080, 1200), 10),
    ):
        sides = "" if page is None else f'WIDTH="{page[0]}" HEIGHT="{page[1]}"'
        names = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
        place = " ".join(f'{n}="{v}"' for n, v in zip(names, block, strict=True))
        more = {} if dpi is None else {"dpi": dpi if isinstance(dpi, tuple) else (dpi, dpi)}
        page_read = labelled(tmp_path, alto(unit, sides, place), **more)
        np.testing.assert_array_equal(page_read.label, expected, err_msg=f"{unit} {page}")
    for unit, sides, message in (
        ("mm10", 'WIDTH="300" HEIGHT="900"', "has not the shape"),
        ("mm10", "", "add one of them"),
        ("furlong", 'WIDTH="30" HEIGHT="40"', "expected pixel, mm10, inch1200"),
        ("mm10", 'WIDTH="0" HEIGHT="40"', "expected lengths above 0"),
    ):
        with pytest.raises(InputError, match=message):
            labelled(tmp_path, alto(unit, sides, 'HPOS="1" VPOS="1" WIDTH="5" HEIGHT="5"'))
    with pytest.raises(InputError, match=r"no block says where it is \(b1\)"):
        labelled(tmp_path, alto("pixel", 'WIDTH="30" HEIGHT="40"', 'HPOS="1"'))


@pytest.mark.conformance(
    domain="documents",
    condition="Page headers and footers in a DoclingDocument",
    source="docling-core, NodeItem.content_layer",
    right="content_layer furniture, so that they are no body text",
    reader="docling-core 2.104.0, export_to_text",
    severity=3,
)
def test_headers_and_footers_are_furniture(tmp_path: Path) -> None:
    document = pytest.importorskip("docling_core.types.doc")
    from samonai.domains.documents.formats.docling_out import write_docling
    from samonai.domains.documents.layout.prediction import Region
    from samonai.domains.documents.page import Page

    page = Page("p", tmp_path / "p.png", 1, np.full((40, 30, 3), 255, np.uint8))
    regions = []
    for number, name in enumerate(("page-header", "text", "page-footer"), 1):
        box = (1.0, 10.0 * number, 20.0, 10.0 * number + 5)
        word = Word(f"a{name}", box, 0)
        mask = np.zeros((40, 30), bool)
        regions.append(Region(number, number, name, 1.0, box, mask, (word,)))
    written = write_docling(page, regions, tmp_path / "p.json")
    read = document.DoclingDocument.load_from_json(written)
    layers = {text.text: text.content_layer.value for text in read.texts}
    assert layers == {"apage-header": "furniture", "atext": "body", "apage-footer": "furniture"}
    assert read.export_to_text().strip() == "atext"
