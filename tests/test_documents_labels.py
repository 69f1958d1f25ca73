"""Labels of pages: COCO as published, PAGE-XML, ALTO, masks; what does not fit is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_factory import CLASSES, block_page, save_picture, text_pdf, write_coco
from pycocotools import mask as coco_mask

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.documents import DocumentsDomain
from samonai.domains.documents import prompts as prompts_module
from samonai.training.data.split import split_cases

SIZE = (40, 30)
SQUARE = [5, 4, 15, 4, 15, 14, 5, 14]


def coco(folder: Path, annotations: list[dict[str, Any]], **image: Any) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "page.png", "height": 40, "width": 30} | image],
        "categories": [{"id": 3, "name": "table"}, {"id": 1, "name": "text"}],
        "annotations": [{"id": n, "image_id": 7, "category_id": 3} | row
                        for n, row in enumerate(annotations)],
    }  # fmt: skip
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    return save_picture(tmp_path / "pages" / "page.png", block_page(*SIZE)[0])


def read(page_file: Path, labels: Path, **settings: Any) -> Any:
    domain = DocumentsDomain(**settings)
    cases = domain.find_cases(page_file.parent, labels)
    domain.fit(cases)
    return domain.read(cases[0])


def square(value: int = 1) -> np.ndarray:
    expected = np.zeros(SIZE, np.int32)
    expected[4:14, 5:15] = value
    return expected


def test_coco_polygons_boxes_and_run_lengths_say_the_same(tmp_path: Path, page_file: Path) -> None:
    mask = square().astype(bool)
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2])))
    for row in (
        {"segmentation": [SQUARE]},
        {"bbox": [5, 4, 10, 10]},
        {"segmentation": {"size": [40, 30], "counts": encoded["counts"].decode()}},
        {"segmentation": {"size": [40, 30], "counts": counts.tolist()}},
        {"segmentation": [SQUARE, [8, 6, 12, 6, 12, 9, 8, 9]]},
    ):
        page = read(page_file, coco(tmp_path, [row]))
        np.testing.assert_array_equal(page.label, square(2), err_msg=str(row))
    assert DocumentsDomain().class_names(page_file.parent, tmp_path / "labels.json") == {
        1: "text", 2: "table",
    }  # fmt: skip


def test_small_regions_lie_on_large_ones_and_crowds_are_unknown(
    tmp_path: Path, page_file: Path
) -> None:
    rows = [
        {"bbox": [8, 6, 4, 4], "category_id": 1},
        {"segmentation": [SQUARE]},
        {"bbox": [0, 30, 30, 10], "iscrowd": 1},
    ]
    page = read(page_file, coco(tmp_path, rows))
    expected = square(2)
    expected[6:10, 8:12] = 1
    np.testing.assert_array_equal(page.label, expected)
    assert np.unique(page.labelled.instances).tolist() == [0, 1, 2]
    frame = DocumentsDomain().frame(page, 0)
    np.testing.assert_array_equal(frame.valid, np.arange(40)[:, None] < np.full((1, 30), 30))


def test_coco_of_the_stored_pixels_is_turned_with_them(tmp_path: Path) -> None:
    image = block_page(40, 30)[0]
    (tmp_path / "pages").mkdir()
    save_picture(tmp_path / "pages" / "page.png", image, orientation=6)
    # Stored lying on its side: 30 high and 40 wide; the square stands at the stored upper left.
    labels = coco(tmp_path, [{"bbox": [0, 0, 4, 2]}], height=30, width=40)
    page = read(tmp_path / "pages" / "page.png", labels)
    expected = np.zeros(SIZE, np.int32)
    expected[0:4, 28:30] = 2
    np.testing.assert_array_equal(page.label, expected)


def test_labels_of_a_pdf_are_scaled_to_the_resolution_it_is_drawn_at(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    blocks = text_pdf(tmp_path / "pages" / "report.pdf", pages=2)
    labels = write_coco(tmp_path / "labels.json", blocks, "report.pdf", dpi=150)
    domain = DocumentsDomain(dpi=60)
    cases = domain.find_cases(tmp_path / "pages", labels)
    domain.fit(cases)
    assert [case.case_id for case in cases] == ["report@1", "report@2"]
    page = domain.read(cases[1])
    for block in blocks[1]:
        x0, y0, x1, y1 = (round(v * 60 / 72) for v in block.box)
        part = page.label[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
        assert (part == CLASSES.index(block.name) + 1).all(), block


PAGE_XML = """<?xml version="1.0"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
<Page imageFilename="page.png" imageWidth="30" imageHeight="40">
<TextRegion id="r1" type="heading"><Coords points="5,4 15,4 15,14 5,14"/>
<TextEquiv><Unicode>Title</Unicode></TextEquiv></TextRegion>
<TableRegion id="r2"><Coords points="0,20 30,20 30,30 0,30"/></TableRegion>
</Page></PcGts>"""

ALTO = """<?xml version="1.0"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
<Description><MeasurementUnit>pixel</MeasurementUnit></Description>
<Tags><OtherTag ID="T1" LABEL="MainZone#2"/></Tags>
<Layout><Page WIDTH="30" HEIGHT="40"><PrintSpace>
<TextBlock ID="b1" TAGREFS="T1"><Shape><Polygon POINTS="5 4 15 4 15 14 5 14"/></Shape></TextBlock>
<Illustration ID="b2" HPOS="0" VPOS="20" WIDTH="30" HEIGHT="10"/>
</PrintSpace></Page></Layout></alto>"""


@pytest.mark.parametrize(
    ("content", "names"),
    [(PAGE_XML, ("heading", "table")), (ALTO, ("MainZone", "figure"))],
)
def test_page_xml_and_alto_beside_their_pages(
    content: str, names: tuple[str, str], page_file: Path
) -> None:
    page_file.with_suffix(".xml").write_text(content)
    domain = DocumentsDomain()
    cases = domain.find_cases(page_file.parent, page_file.parent)
    domain.fit(cases)
    assert domain.classes == tuple(sorted(names))
    values = {name: value for value, name in enumerate(domain.classes, 1)}
    expected = square(values[names[0]])
    expected[20:30] = values[names[1]]
    np.testing.assert_array_equal(domain.read(cases[0]).label, expected)


def test_classes_can_be_renamed_dropped_and_fixed(page_file: Path) -> None:
    page_file.with_suffix(".xml").write_text(PAGE_XML)
    renamed = read(page_file, page_file.parent, rename="heading:title,table:")
    np.testing.assert_array_equal(renamed.label, square(1))
    fixed = read(page_file, page_file.parent, classes="figure,heading")
    np.testing.assert_array_equal(fixed.label, square(2))


ENTITY = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<alto><Layout><Page>&e;</Page></Layout></alto>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ENTITY, "not followed"),
        ("<alto><Layout>", "cannot be read as XML"),
        ("<html/>", "neither PAGE-XML"),
        (PAGE_XML.replace('imageWidth="30"', 'imageWidth="31"'), "31 x 40 pixels, but"),
        (re.sub('points="[^"]*"', 'points="5,4 15,4"', PAGE_XML), r"\(r1, r2\).*three points"),
    ],
)
def test_xml_that_does_not_fit_is_refused_in_one_line(
    content: str, message: str, page_file: Path
) -> None:
    page_file.with_suffix(".xml").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read(page_file, page_file.parent)
    assert "\n" not in str(caught.value)


def test_coco_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, page_file: Path) -> None:
    box = {"bbox": [5, 4, 10, 10]}
    short = {"size": [40, 30], "counts": [3]}
    for rows, image, message in (
        ([box], {"file_name": "gone.png"}, "1 are not in"),
        ([box], {"file_name": "../page.png"}, "outside the folder"),
        ([box], {"width": 31}, "31 x 40 pixels, but"),
        ([box | {"category_id": 9}], {}, "category 9 is used and not defined"),
        ([box | {"image_id": 8}], {}, "image 8, which is not listed"),
        ([{"segmentation": short}], {}, "do not add up"),
    ):
        labels = coco(tmp_path, rows, **image)
        with pytest.raises(InputError, match=message) as caught:
            read(page_file, labels)
        assert "\n" not in str(caught.value)


def test_missing_images_can_be_skipped(tmp_path: Path, page_file: Path) -> None:
    labels = coco(tmp_path, [{"bbox": [5, 4, 10, 10]}])
    content = json.loads(labels.read_text())
    content["images"].append({"id": 8, "file_name": "gone.png", "height": 4, "width": 4})
    labels.write_text(json.dumps(content))
    with pytest.raises(InputError, match="missing_images=skip"):
        read(page_file, labels)
    np.testing.assert_array_equal(read(page_file, labels, missing_images="skip").label, square(2))


def test_prompts_reach_the_pieces_that_show_them(tmp_path: Path) -> None:
    page = DocumentsDomain().read(
        Case("page", save_picture(tmp_path / "page.png", np.zeros((300, 60, 3), np.uint8)))
    )
    path = tmp_path / "asked.json"
    path.write_text(
        json.dumps(
            {
                "boxes": [[5, 10, 25, 250]],
                "points": [[30, 40], [31, 42]],
                "labels": [1, 0],
                "polygons": [[10, 280, 20, 280, 20, 295]],
                "classes": ["table", 1, "text"],
            }
        )
    )
    domain = DocumentsDomain()
    grid = domain.grid(page)
    found = domain.read_boxes(page, path, class_names={1: "text", 2: "table"})
    asked = {
        number: [index for index, p in found.items() if number in p.object_ids.tolist()]
        for number in (1, 2, 3)
    }
    assert asked[1] == list(range(len(grid)))  # the last piece shows a part too
    assert (asked[2], asked[3]) == ([0], [len(grid) - 1])
    first = found[0]
    assert first.classes.tolist() == [2, 1]
    np.testing.assert_array_equal(first.boxes[0], [5, 10, 25, grid.window(0).height])
    np.testing.assert_array_equal(first.point_coords[1], [[30, 40], [31, 42]])
    assert first.point_labels.tolist() == [[-1, -1], [1, 0]]
    last = found[len(grid) - 1]
    row = grid.window(len(grid) - 1).row
    np.testing.assert_array_equal(last.boxes[-1], [10, 280 - row, 20, 295 - row])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": [[5, 5, 1, 9]]}, "x0 < x1"),
        ({"boxes": [["5", "5", "9", "9"]]}, r"lists of 4 numbers; number 1 is \['5'"),
        ({"boxes": [[5, 5, 9, 10**400]]}, "lists of 4 numbers"),
        ({"boxes": 3}, "boxes must be a list, got '3'"),
        ({"points": [[5, 5]], "labels": [[1]]}, "as many labels"),
        ({"points": [[5, 5]], "labels": "1"}, "labels must be a list"),
        ({"polygons": [["1", "2", "3", "4", "5", "6"]]}, "a polygon is"),
        ({"polygons": 3}, "polygons must be a list"),
        ({"boxes": [[500, 5, 510, 9]]}, "beside the page"),
        ({"boxes": [[1, 2, 3, 4]], "classes": ["chart"]}, "is not one of text"),
        ({"points": [[1, 2]], "labels": [0]}, "needs a point inside"),
        ({"boxs": []}, "expected boxes"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(content))
    domain = DocumentsDomain()
    page = domain.read(Case("page", save_picture(tmp_path / "p.png", block_page(*SIZE)[0])))
    with pytest.raises(InputError, match=message):
        domain.read_boxes(page, path, class_names={1: "text", 2: "table"})
    assert domain.prompt_endings == prompts_module.PROMPT_ENDINGS


def test_pages_of_one_document_stay_together_in_a_split() -> None:
    cases = [
        Case(f"{book}{page}", Path(), Path(), group=book) for book in "abcde" for page in range(4)
    ]
    for seed in range(8):
        split = split_cases(cases, val_fraction=0.3, seed=seed)
        assert len(split.val) in (4, 8)
        assert not {case.group for case in split.train} & {case.group for case in split.val}
    with pytest.raises(InputError, match="belong together"):
        split_cases(cases[:4])


def test_published_sets_keep_the_pages_of_a_document_together(tmp_path: Path) -> None:
    names = ["PMC12_00001", "PMC12_00004", "PMC3_00001", "aa", "bb", "holiday_1", "holiday_2"]
    for name in names:
        save_picture(tmp_path / f"{name}.png", block_page(*SIZE)[0])
    images = [
        {"id": n, "file_name": f"{name}.png", "height": 40, "width": 30, "page_no": 7}
        | ({"doc_name": "report.pdf"} if len(name) == 2 else {})  # as DocLayNet says it
        for n, name in enumerate(names)
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "Text"}]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    cases = DocumentsDomain().find_cases(tmp_path, tmp_path / "labels.json")
    groups = {case.case_id: case.group for case in cases}
    assert groups == {
        "PMC12_00001": "PMC12", "PMC12_00004": "PMC12", "PMC3_00001": "PMC3",
        "aa": "report.pdf", "bb": "report.pdf", "holiday_1": None, "holiday_2": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "labels", "count", "some"),
    [
        ("publaynet", "samples.json", 13, {"text", "title", "list", "table", "figure"}),
        ("gallicorpora-17e", "", 20, {"MainZone", "DropCapitalZone"}),
        ("ocrd-gt-structure-text", "", 10, {"paragraph", "table", "separator"}),
        ("docbank", "", 18, {"paragraph", "figure", "table", "reference", "caption"}),
    ],
)
def test_published_labels_lie_on_their_pages(
    shared_data: Path, folder: str, labels: str, count: int, some: set[str]
) -> None:
    pages = shared_data / "documents" / folder
    domain = DocumentsDomain()
    cases = domain.find_cases(pages, pages / labels)
    domain.fit(cases)
    assert len(cases) == count
    assert domain.classes is not None
    assert some <= set(domain.classes)
    page = domain.read(cases[0])
    ink = page.image.mean(2) < 128
    # Print lies in regions, and not between them.
    assert ink[page.label > 0].mean() > 2 * ink[page.label == 0].mean()


def docbank_page(folder: Path, rows: list[tuple[Any, ...]], name: str = "4.tar_paper_3") -> Path:
    """Write a page of DocBank: a picture of 200 x 100 pixels, and its tokens."""
    folder.mkdir(exist_ok=True)
    lines = ["\t".join(map(str, (*row[:5], 0, 0, 0, "Font", row[5]))) for row in rows]
    (folder / f"{name}.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return save_picture(folder / f"{name}_ori.jpg", np.full((100, 200, 3), 255, np.uint8))


def test_tokens_of_docbank_are_grouped_into_regions(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    for column in (100, 550):  # two columns of two paragraphs, 4 lines of 5 words each
        for top in (100, 300):
            for line in range(4):
                for word in range(5):
                    x, y = column + word * 70, top + line * 26
                    rows.append((f"w{word}", x, y, x + 62, y + 20, "paragraph"))
    rows.append(("##LTFigure##", 100, 600, 480, 800, "figure"))
    rows.append(("##LTFigure##", 500, 600, 900, 800, "figure"))  # touches when grown
    rows.append(("##LTLine##", 0, 500, 1000, 501, "paragraph"))
    page_file = docbank_page(tmp_path / "docbank", rows)
    (tmp_path / "docbank" / "README.txt").write_text("no tokens")
    domain = DocumentsDomain()
    (case,) = domain.find_cases(tmp_path / "docbank", tmp_path / "docbank")
    assert case.group == "4.tar_paper"
    domain.fit([case])
    assert domain.classes == ("figure", "paragraph")
    labelled = domain.read(case).labelled
    assert labelled is not None
    assert labelled.instances is not None
    assert len(np.unique(labelled.instances)) == 1 + 4 + 2
    expected = np.zeros((100, 200), np.int32)
    for x0, x1 in ((20, 88), (110, 178)):
        for y0 in (10, 30):
            expected[y0 : y0 + 10, x0:x1] = 2
    expected[60:80, 20:96] = expected[60:80, 100:180] = 1
    np.testing.assert_array_equal(labelled.label, expected)
    one = DocumentsDomain().find_cases(page_file, tmp_path / "docbank" / "4.tar_paper_3.txt")
    assert one[0].label is not None


def test_a_transcript_is_no_docbank_label(tmp_path: Path, page_file: Path) -> None:
    label = save_picture(tmp_path / "page.png", square()[..., None].repeat(3, 2).astype(np.uint8))
    (tmp_path / "page.txt").write_text("What the page says.")
    (case,) = DocumentsDomain().find_cases(page_file.parent, tmp_path)
    assert case.label == label
    docbank_page(tmp_path / "other", [("a", 1, 2, 3, 4, "title")])
    (tmp_path / "other" / "4.tar_paper_3.txt").write_text("What the page says.")
    domain = DocumentsDomain()
    (case,) = domain.find_cases(tmp_path / "other", tmp_path / "other")
    with pytest.raises(InputError, match="no DocBank label: line 1 has 1 columns, not 10"):
        domain.read(case)
