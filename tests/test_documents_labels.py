"""Labels of pages: COCO as published, PAGE-XML, ALTO, masks; what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_factory import CLASSES, block_page, save_picture, text_pdf, write_coco
from pycocotools import mask as coco_mask

from samonai.domains import Case
from samonai.domains.documents import DocumentsDomain
from samonai.domains.documents import prompts as prompts_module
from samonai.errors import InputError
from samonai.training.split import split_cases

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
        (PAGE_XML.replace("5,4 15,4 15,14 5,14", "5,4 15,4"), "at least three points"),
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


@pytest.mark.parametrize(
    ("folder", "labels", "count", "some"),
    [
        ("publaynet", "samples.json", 13, {"text", "title", "list", "table", "figure"}),
        ("gallicorpora-17e", "", 20, {"MainZone", "DropCapitalZone"}),
        ("ocrd-gt-structure-text", "", 10, {"paragraph", "table", "separator"}),
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
