"""The generated pages of the benchmark: their words and labels are true, and made only once."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import documents as benchmark
from benchmarks import page_classes
from benchmarks.page_blocks import CLASSES
from benchmarks.pages import LABELS, MadePage, read_pages, write_pages
from samonai.domains.coco_masks import encode_rle
from samonai.domains.documents import DocumentsDomain, Page
from samonai.domains.documents.layout.prediction import from_label
from samonai.domains.documents.text.query_result import Hit, ResultRegion

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("made") / "pages"
    assert len(write_pages(found, COUNT, seed=4)) == COUNT
    return found


@pytest.fixture(scope="module")
def pages(folder: Path) -> list[tuple[MadePage, Page]]:
    domain = DocumentsDomain()
    cases = domain.find_cases(folder, folder / LABELS)
    domain.fit(cases)
    assert domain.classes == CLASSES
    read = {(case.image.name, int(case.part or 1)): domain.read(case) for case in cases}
    return [(made, read[made.file, made.number]) for made in read_pages(folder)]


def test_pages_differ_and_have_every_class(pages: list[tuple[MadePage, Page]]) -> None:
    names = {block.name for made, _ in pages for block in made.blocks}
    assert names == set(CLASSES)
    assert len({len(made.blocks) for made, _ in pages}) > 1
    assert all(made.size == page.size for made, page in pages)


def test_the_text_layer_has_every_word_in_its_region(pages: list[tuple[MadePage, Page]]) -> None:
    for made, page in pages:
        for block in made.blocks:
            if block.name == "figure":
                continue
            x0, y0, x1, y1 = block.box
            inside = [
                word.text
                for word in page.words
                if x0 <= word.centre[0] < x1 and y0 <= word.centre[1] < y1
            ]
            wanted = [word for run in block.runs for word in run]
            assert sorted(w for w in inside if w != "\u2022" and w not in _counts(made)) == sorted(
                w for w in wanted if w not in _counts(made)
            )


def _counts(made: MadePage) -> set[str]:
    """Return what stands before the items of lists that count."""
    return {f"{n}." for n in range(1, 9)} | {str(n) for n in range(1, 9)}


def test_labels_hold_the_ink_and_nothing_else_does(pages: list[tuple[MadePage, Page]]) -> None:
    for made, page in pages:
        assert page.label is not None
        ink = page.image.min(-1) < 200
        outside = ink & (page.label == 0)
        # Running head and page number.
        height = page.size[0]
        assert not outside[int(0.07 * height) : int(0.94 * height)].any()
        for block in made.blocks:
            x0, y0, x1, y1 = map(int, block.box)
            assert ink[y0:y1, x0:x1].any()


def test_the_same_seed_writes_the_same_and_nothing_twice(folder: Path, tmp_path: Path) -> None:
    write_pages(tmp_path / "again", COUNT, seed=4)
    for path in sorted(folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_pages(folder, COUNT, seed=4) == read_pages(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    write_pages(tmp_path / "other", 1, seed=5)
    first = (tmp_path / "other" / "document_0000.pdf").read_bytes()
    assert first != (folder / "document_0000.pdf").read_bytes()


def test_queries_are_found_in_the_regions_that_have_them(
    pages: list[tuple[MadePage, Page]],
) -> None:
    made, page = pages[0]
    assert page.label is not None
    names = dict(enumerate(CLASSES, 1))
    perfect = from_label(page, page.label)
    for length in (1, 3):
        queries = list(benchmark.draw_queries(made, 10, length, np.random.default_rng(length)))
        assert len(queries) == 10
        for query in queries:
            found = benchmark.count(perfect, made, query, names)
            assert found["found"] == 1
            assert found["right"] == found["right_class"] == found["hits"] >= 1
            assert found["iou"] > 0.9 * found["hits"]
    # All in one region: words are found, and their region is right for one block at most.
    merged = from_label(page, np.where(page.label > 0, 1, 0) | np.ones_like(page.label))
    totals = [
        benchmark.count(merged, made, query, names)
        for query in benchmark.draw_queries(made, 10, 1, np.random.default_rng(0))
    ]
    assert sum(row["found"] for row in totals) == 10
    assert sum(row["right"] for row in totals) < sum(row["hits"] for row in totals)


def test_a_hit_without_a_region_is_found_and_not_right(
    pages: list[tuple[MadePage, Page]],
) -> None:
    made, page = pages[0]
    nothing = from_label(page, np.zeros(page.size, np.int32))
    (query,) = benchmark.draw_queries(made, 1, 1, np.random.default_rng(0))
    found = benchmark.count(nothing, made, query, dict(enumerate(CLASSES, 1)))
    assert (found["found"], found.get("right", 0)) == (1, 0)
    box = made.blocks[0].box
    mask = np.zeros(page.size, bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    region = ResultRegion(1, "title", 2, 1.0, box, "", encode_rle(mask))
    assert page_classes.overlaps(made, region)[0] == 1.0
    assert benchmark.block_at(made, Hit("", "exact", 1.0, box, (box,), None)) == 0


def test_classes_are_answered_by_all_their_regions(pages: list[tuple[MadePage, Page]]) -> None:
    names = dict(enumerate(CLASSES, 1))
    asked = []
    for made, page in pages:
        assert page.label is not None
        nothing = from_label(page, np.zeros(page.size, np.int32))
        asked.append(dict(page_classes.class_rows({"x": nothing}, made, names)))
        texts = [block for block in made.blocks if block.name == "text"]
        counts = page_classes.count_class(nothing, made, "text", names)
        assert (counts["regions"], counts["found"], counts["hits"]) == (len(texts), 0, 0)
        # Boxes around ink do not touch, so that each block is a region of its label.
        counts = page_classes.count_class(from_label(page, page.label), made, "text", names)
        assert counts["found"] == counts["right"] == counts["hits"] == len(texts)
        assert counts["iou"] > 0.95 * len(texts)
    table = page_classes.class_table(asked)
    assert len(table.splitlines()) == 2 + len(CLASSES)
    assert "| text | x |" in table


def test_tables_say_what_was_counted() -> None:
    row = {"text layer|word|x": {"asked": 4, "found": 3, "hits": 2, "right": 1, "iou": 1.5}}
    table = benchmark.query_table([row, row])
    assert table.splitlines()[-1] == (
        "| text layer | word | x | 2 | 8 | 0.750 | 0.500 | 0.000 | 0.750 |"
    )
