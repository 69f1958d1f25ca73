"""Queries on generated pages, whose text layer is the truth; and every format that is written."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from document_factory import CLASSES, WORDS, Block, text_pdf, write_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from schema_rules import ALTO, PAGE, violations

from samonai.core.errors import InputError
from samonai.domains.base import LabelFacts
from samonai.domains.documents import DocumentsDomain, Page
from samonai.domains.documents.formats import alto_out, page_xml_out
from samonai.domains.documents.formats.outputs import FORMATS
from samonai.domains.documents.layout.prediction import PagePrediction, from_label
from samonai.domains.documents.layout.reading_order import reading_order
from samonai.domains.documents.text import query as query_module
from samonai.domains.documents.text import retrieval
from samonai.domains.documents.text.query import all_regions, run_query
from samonai.domains.documents.text.query_result import QueryResult, read_query_result
from samonai.domains.documents.text.retrieval import by_terms, retriever
from samonai.domains.documents.text.text_matching import exact_matches, fuzzy_matches, regex_matches
from samonai.domains.documents.text.words import Word

NAMES = dict(enumerate(CLASSES, 1))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Block], PagePrediction]:
    """A generated page, and its own label as the prediction."""
    folder = tmp_path_factory.mktemp("generated")
    blocks = text_pdf(folder / "report.pdf", seed=3)
    labels = write_coco(folder / "labels.json", blocks, "report.pdf")
    domain = DocumentsDomain()
    (case,) = domain.find_cases(folder / "report.pdf", labels)
    domain.fit([case])
    page = domain.read(case)
    assert page.label is not None
    return blocks[0], from_label(page, page.label)


def phrases(blocks: list[Block], count: int, length: int) -> list[tuple[str, list[Block]]]:
    """Return phrases of the page, and all blocks that have them."""
    rng = np.random.default_rng(length)
    spans = [
        " ".join(block.words[start : start + length])
        for block in blocks
        for start in range(len(block.words) - length + 1)
    ]
    chosen = [spans[n] for n in rng.permutation(len(spans))[:count]]
    return [(c, [b for b in blocks if f" {c} " in f" {' '.join(b.words)} "]) for c in chosen]


def block_of(blocks: list[Block], box: Any, scale: float = 150 / 72) -> Block | None:
    """Return the block of the page that a box on it lies in."""
    x, y = (box[0] + box[2]) / 2 / scale, (box[1] + box[3]) / 2 / scale
    around = [b for b in blocks if b.box[0] <= x <= b.box[2] and b.box[1] <= y <= b.box[3]]
    return around[0] if around else None


@pytest.mark.parametrize("length", [1, 3])
def test_words_and_phrases_are_found_in_their_regions(
    length: int, generated: tuple[list[Block], PagePrediction]
) -> None:
    blocks, prediction = generated
    asked = phrases(blocks, 50, length)
    hits = right = total = 0
    for phrase, owners in asked:
        answer = run_query(prediction, f"words:{phrase}", NAMES)
        found = [block_of(blocks, hit.box) for hit in answer.hits]
        hits += all(owner in found for owner in owners)
        for hit in answer.hits:
            total += 1
            inside = block_of(blocks, hit.box)
            assert hit.region is not None
            region = block_of(blocks, hit.region.box)
            right += inside is not None and inside == region
            assert hit.region.class_name == (inside.name if inside else None)
    assert hits / len(asked) >= 0.99
    assert right / total >= 0.99


def test_what_is_not_on_the_page_is_not_found(
    generated: tuple[list[Block], PagePrediction],
) -> None:
    _, prediction = generated
    for query in (
        "platypus",
        "words:harbour platypus",
        "regex:plat+ypus",
        "Where is the platypus mentioned?",
        "question: how much does a platypus weigh on average",
    ):
        answer = run_query(prediction, query, NAMES)
        assert not answer.found, query
        assert answer.to_json()["hits"] == []


def test_a_class_gives_all_its_regions_in_reading_order(
    generated: tuple[list[Block], PagePrediction],
) -> None:
    blocks, prediction = generated
    answer = run_query(prediction, "Text", NAMES)
    assert answer.kind == "class"
    wanted = [block for block in blocks if block.name == "text"]
    assert [block_of(blocks, hit.box) for hit in answer.hits] == wanted
    for hit, block in zip(answer.hits, wanted, strict=True):
        assert hit.text.split() == list(block.words)
        assert hit.region is not None
        area = np.prod([(block.box[n + 2] - block.box[n]) * 150 / 72 for n in (0, 1)])
        assert hit.region.mask.sum() == pytest.approx(area, rel=0.05)
    with pytest.raises(InputError, match="has text, title, table, figure"):
        run_query(prediction, "class:chart", NAMES)


TEXTS = [
    "The invoice is due within thirty days of receipt.",
    "Harbour fees are charged per ton and per night.",
    "",
]


def test_questions_find_the_region_whose_text_fits() -> None:
    assert by_terms(TEXTS, "When is the invoice due?")[0][0] == 0
    assert by_terms(TEXTS, "What are the harbour fees per night?")[0][0] == 1
    assert by_terms(TEXTS, "What is the airspeed of a swallow?") == []
    assert by_terms(["", ""], "anything?") == []


class Meaning:
    """Stands for a model of sentence-transformers: two topics are all that it understands."""

    topics = ({"invoice", "due", "pay"}, {"harbour", "fees", "ship"}, {"swallow", "airspeed"})

    def __init__(self, folder: str, **options: Any) -> None:
        assert options["local_files_only"]
        assert not options["trust_remote_code"]
        if not (Path(folder) / "model.safetensors").is_file():
            raise OSError("no model.safetensors\nand more")

    def encode_query(self, texts: list[str], **_: Any) -> np.ndarray:
        words = [set(text.lower().strip(".?").split()) for text in texts]
        return np.array([[float(bool(topic & own)) for topic in self.topics] for own in words])

    encode_document = encode_query


def test_a_model_ranks_regions_by_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="expected bm25, or the folder of"):
        DocumentsDomain(prompt="What?", retrieval=str(tmp_path))
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setattr(retrieval, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'samonai\[retrieval\]'"):
        DocumentsDomain(prompt="What?", retrieval=str(tmp_path))
    monkeypatch.setattr(retrieval, "find_spec", lambda name: name)
    library = SimpleNamespace(SentenceTransformer=Meaning, disable_progress_bar=lambda: None)
    monkeypatch.setattr(retrieval, "import_module", lambda name: library)
    rank = retriever(str(tmp_path))
    with pytest.raises(InputError, match=r"no model that can be loaded: no model.safetensors$"):
        rank(TEXTS, "When do I have to pay?")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert rank(TEXTS, "When do I have to pay?") == [(0, 1.0)]
    assert rank(TEXTS[::-1], "What does it cost to moor a ship?") == [(1, 1.0)]
    assert rank(TEXTS, "What is the airspeed of a swallow?") == []
    assert rank(["", " "], "pay?") == []


def test_answers_to_questions_come_from_the_chosen_ranking(
    generated: tuple[list[Block], PagePrediction],
) -> None:
    asked: list[str] = []

    def last(texts: Any, question: str) -> list[tuple[int, float]]:
        asked.append(question)
        return [(len(texts) - 1, 0.4)]

    answer = run_query(generated[1], "question: what is it", NAMES, last)
    assert asked == ["what is it"]
    (hit,) = answer.hits
    assert (hit.how, hit.score) == ("retrieved", 0.4)
    assert hit.region is not None
    assert hit.region.number == len(generated[0])


def words_of(text: str) -> list[Word]:
    return [
        Word(word, (x * 10.0, y * 10.0, x * 10 + 9.0, y * 10 + 9.0), y)
        for y, line in enumerate(text.splitlines())
        for x, word in enumerate(line.split())
    ]


@pytest.mark.parametrize(
    ("find", "query", "expected"),
    [
        (exact_matches, "annual REPORT", ["(Annual report,"]),
        (exact_matches, "cooperation", ["cooperation"]),
        (exact_matches, "co-operation", ["cooperation"]),
        (exact_matches, "ﬁnancial", ["financial"]),
        (exact_matches, "nual rep", []),
        (fuzzy_matches, "anual reprt", ["(Annual report,"]),
        (fuzzy_matches, "elephants", []),
        (regex_matches, r"\b20\d\d\b", ["2024", "2031."]),
        (regex_matches, r"report, 2024", ["report, 2024"]),
    ],
)
def test_matching(find: Callable[..., Any], query: str, expected: list[str]) -> None:
    words = words_of("the (Annual report, 2024 on co-\noperation and financial aid in 2031.")
    assert [match.text for match in find(words, query)] == expected


def test_a_match_over_two_lines_has_a_box_for_each() -> None:
    (match,) = exact_matches(words_of("one two\nthree four"), "two three")
    assert match.boxes == [(10, 0, 19, 9), (0, 10, 9, 19)]
    assert match.box == (0, 0, 19, 19)


def test_bad_queries_are_refused() -> None:
    with pytest.raises(InputError, match="is empty: name a class"):
        DocumentsDomain(prompt="words: ")
    with pytest.raises(InputError, match="no regular expression"):
        regex_matches([], "(")


def test_columns_are_read_one_after_the_other_between_what_spans_them() -> None:
    boxes = [
        (55, 20, 100, 40),  # right column, first
        (0, 0, 100, 10),  # title
        (0, 20, 45, 30),  # left column, first
        (0, 35, 45, 60),  # left column, second
        (55, 45, 100, 60),  # right column, second
        (0, 70, 100, 80),  # a figure over both
        (55, 85, 100, 99),
        (0, 85, 45, 99),
    ]
    assert reading_order(boxes) == [1, 2, 3, 0, 4, 5, 7, 6]


def test_answers_are_read_as_they_were_written(
    tmp_path: Path, generated: tuple[list[Block], PagePrediction]
) -> None:
    _, prediction = generated
    answer = run_query(prediction, f"words:{WORDS[0]}", NAMES)
    assert answer.found
    content = json.loads(answer.write(tmp_path / "a.json").read_text())
    assert content["schema"] == "samonai.answer/1"
    assert content.keys() >= {"query", "kind", "found", "page", "size", "points", "hits"}
    again = read_query_result(tmp_path / "a.json")
    assert again.to_json() == answer.to_json()
    (tmp_path / "a.json").write_text(json.dumps(content | {"schema": "samonai.answer/9"}))
    with pytest.raises(InputError, match=r"expected samonai\.answer/1"):
        read_query_result(tmp_path / "a.json")


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, generated: tuple[list[Block], PagePrediction]
) -> Path:
    folder = tmp_path_factory.mktemp("written")
    page = generated[1].page
    facts = LabelFacts(NAMES)
    paths = DocumentsDomain().export(page, generated[1], folder / "report", FORMATS, facts=facts)
    assert len(paths) == len(FORMATS)
    assert all(path.is_file() for path in paths)
    return folder


def test_coco_loads_in_pycocotools_and_scores_one_against_itself(written: Path) -> None:
    truth = COCO(str(written / "report.coco.json"))
    rows = [
        {key: row[key] for key in ("image_id", "category_id", "segmentation", "score")}
        for row in truth.dataset["annotations"]
    ]
    assert len(rows) > 8
    evaluation = COCOeval(truth, truth.loadRes(rows), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["page", "alto"])
def test_page_xml_and_alto_give_back_the_same_regions(
    kind: str, written: Path, generated: tuple[list[Block], PagePrediction]
) -> None:
    blocks, prediction = generated
    domain = DocumentsDomain(classes=CLASSES)
    page = domain.with_label(prediction.page, written / f"report.{kind}.xml")
    np.testing.assert_array_equal(page.label, prediction.label)
    text = (written / f"report.{kind}.xml").read_text()
    for word in blocks[0].words:
        assert word in text


SCHEMAS = {
    "page": (PAGE, page_xml_out.NAMESPACE, "PcGts"),
    "alto": (ALTO, alto_out.NAMESPACE, "alto"),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_page_xml_and_alto_have_the_published_structure(kind: str, written: Path) -> None:
    root = ElementTree.parse(written / f"report.{kind}.xml").getroot()
    assert violations(root, *SCHEMAS[kind]) == []
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    tables = {"page": "TableRegion", "alto": "TextBlock"}
    assert names >= {tables[kind], "TextLine"}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_class_and_odd_word_fits_the_schemas(
    kind: str, tmp_path: Path, generated: tuple[list[Block], PagePrediction]
) -> None:
    names = {1: "Page-Header", 2: "chart", 3: "separator", 4: "<&\"'> é 表"}
    odd = [Word('<"&> ', (70.0 * n, 260.0, 70.0 * n + 60, 290.0), n, 0.5) for n in range(2, 9)]
    page = replace(generated[1].page, words=tuple(odd), read_words=None)
    prediction = replace(generated[1], page=page)
    (path,) = DocumentsDomain().export(
        page, prediction, tmp_path / "x", [kind], facts=LabelFacts(names)
    )
    assert violations(ElementTree.parse(path).getroot(), *SCHEMAS[kind]) == []
    nothing = from_label(page, np.zeros(page.size, np.int32))
    (path,) = DocumentsDomain().export(
        page, nothing, tmp_path / "y", [kind], facts=LabelFacts(names)
    )
    assert violations(ElementTree.parse(path).getroot(), *SCHEMAS[kind]) == []


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("page", "<Created>", "<Comments/><Created>", "Metadata holds"),
        ("page", 'type="heading"', 'type="title"', "TextRegion has type='title'"),
        ("page", 'regionRef="r1"', 'regionRef="r99"', "r99 refers to nothing"),
        ("page", '<TextRegion id="r1"', '<TextRegion id="r2"', "id r2 is given twice"),
        ("page", 'conf="1.0000"', 'conf="1.1"', "Coords has conf='1.1'"),
        ("alto", 'PHYSICAL_IMG_NR="1"', "", "Page lacks PHYSICAL_IMG_NR"),
        ("alto", ">pixel<", ">points<", "MeasurementUnit says 'points'"),
        ("alto", 'TAGREFS="T1"', 'TAGREFS="T77"', "T77 refers to nothing"),
    ],
)
def test_the_check_of_the_structure_sees_what_is_wrong(
    kind: str, old: str, new: str, message: str, written: Path
) -> None:
    text = (written / f"report.{kind}.xml").read_text()
    assert old in text
    root = ElementTree.fromstring(text.replace(old, new, 1))
    assert any(message in one for one in violations(root, *SCHEMAS[kind]))


def test_docling_reads_its_document(
    written: Path, generated: tuple[list[Block], PagePrediction]
) -> None:
    from docling_core.types.doc.document import DoclingDocument

    content = json.loads((written / "report.docling.json").read_text())
    document = DoclingDocument.model_validate(content)
    blocks = generated[0]
    assert len(document.tables) == 1
    assert len(document.pictures) == 1
    assert document.texts[0].text.split() == list(blocks[0].words)
    box = document.tables[0].prov[0].bbox.to_top_left_origin(document.pages[1].size.height)
    table = next(block for block in blocks if block.name == "table")
    assert (box.l, box.t, box.r, box.b) == pytest.approx(table.box, abs=1)


def test_a_query_leaves_only_what_answers_it(
    tmp_path: Path, generated: tuple[list[Block], PagePrediction]
) -> None:
    _, prediction = generated
    domain = DocumentsDomain(prompt="table")
    paths = domain.export(prediction.page, prediction, tmp_path / "p", facts=LabelFacts(NAMES))
    assert [path.name for path in paths] == ["p.png", "p.json"]
    expected = np.where(prediction.label == 3, 3, 0)
    np.testing.assert_array_equal(domain.read_back(paths[0]), expected)
    answer = read_query_result(paths[1])
    in_memory = domain.query_result(prediction.page, prediction, LabelFacts(NAMES))
    assert isinstance(in_memory, QueryResult)
    assert in_memory.to_json() == answer.to_json()
    assert [hit.region.class_name for hit in answer.hits if hit.region] == ["table"]
    nothing = DocumentsDomain(prompt="platypus")
    paths = nothing.export(prediction.page, prediction, tmp_path / "n", facts=LabelFacts(NAMES))
    assert not nothing.read_back(paths[0]).any()
    assert not read_query_result(paths[1]).found


@pytest.mark.slow
def test_words_of_a_scan_are_read_off_it(
    generated: tuple[list[Block], PagePrediction],
) -> None:
    from samonai.domains.documents.text.ocr import read_words

    blocks, prediction = generated
    scan = replace(prediction.page, words=(), read_words=read_words)
    of_scan = replace(prediction, page=scan)
    asked = [*phrases(blocks, 50, 1), *phrases(blocks, 50, 3)]
    hits = right = total = 0
    for phrase, owners in asked:
        answer = run_query(of_scan, phrase, NAMES)
        found = [block_of(blocks, hit.box) for hit in answer.hits]
        hits += any(owner in found for owner in owners)
        for hit in answer.hits:
            total += 1
            right += hit.region is not None and (
                block_of(blocks, hit.box) == block_of(blocks, hit.region.box)
            )
    assert hits / len(asked) >= 0.9
    assert right / total >= 0.9


def test_unsure_regions_answer_words_but_not_the_name_of_a_class(
    generated: tuple[list[Block], PagePrediction],
) -> None:
    blocks, prediction = generated
    sure = run_query(prediction, "class:text", NAMES)
    unsure = replace(prediction, scores=np.full(len(prediction.scores), 0.2))
    assert sure.hits
    assert not run_query(unsure, "class:text", NAMES).found
    word = next(block for block in blocks if block.words).words[0]
    assert all(hit.region is not None for hit in run_query(unsure, word, NAMES).hits)
    assert run_query(unsure, word, NAMES).found


def test_without_ocr_a_scan_has_no_words(generated: tuple[list[Block], PagePrediction]) -> None:
    prediction = generated[1]
    page = Page("scan", Path("scan.png"), 1, prediction.page.image)
    bare = PagePrediction(
        page, prediction.label, prediction.instances, prediction.classes, prediction.scores
    )
    assert not run_query(bare, f"words:{WORDS[0]}", NAMES).found
    assert len(all_regions(bare, NAMES, with_text=True).hits) == len(prediction.classes)
    assert query_module.KINDS[0] == "class"
