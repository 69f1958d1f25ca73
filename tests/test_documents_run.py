"""Train, measure and predict on tiny pages, by the functions that the command line calls."""

import json
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from bundle_factory import write_pages
from document_factory import text_pdf
from PIL import Image

import samonai as api
from samonai.core.errors import InputError
from samonai.domains.base import LabelMaps
from samonai.domains.documents.text.query_result import QueryResult, read_query_result
from samonai.engine.processes import gather_rows
from samonai.evaluation.measures import DetectionMeasure
from samonai.inference import suitable_finding, trained_domain
from samonai.metrics.average_precision import average_precision, detected_objects
from samonai.workflows.run import Run
from samonai.workflows.session import Session

NAMES = {1: "text", 2: "table"}
BOTH = "box_and_proposed"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def run(pages: Path) -> Run:
    return api.finetune(
        "micro",
        pages / "images",
        pages / "labels",
        domain="documents",
        out=pages / "run",
        epochs=2,
        device="cpu",
        progress=False,
        classes="text,table",
        learning_rate=0.001,
    )


def test_a_page_answers_classes_and_boxes(run: Run, pages: Path) -> None:
    page = pages / "images" / "page_0.png"
    answer = run.predict(page, prompt="class:table", device="cpu", progress=False)
    assert isinstance(answer, QueryResult)
    assert (answer.query, answer.kind, answer.size) == ("class:table", "class", (48, 36))
    for hit in answer.hits:
        assert hit.region is not None
        assert hit.region.class_name == "table"
        assert 0.5 <= hit.region.score <= 1
    boxes = {"boxes": [[5, 6, 30, 18], [5, 26, 20, 40]], "classes": ["text", "table"]}
    asked = run.predict(page, prompt=boxes, device="cpu", progress=False)
    assert {hit.region.class_name for hit in asked.hits if hit.region} <= {"text", "table"}
    assert asked.hits
    assert (asked.query, asked.kind) == (None, "prompts")
    assert {hit.how for hit in asked.hits} == {"prompted"}
    # Which prompt asked for what: the second box lies below the first.
    by_prompt = {hit.prompt: hit.box for hit in asked.hits}
    assert set(by_prompt) <= {1, 2}
    assert len(by_prompt) == len(asked.hits)
    found = run.predict(page, prompt="class:table", device="cpu", progress=False)
    assert {hit.prompt for hit in found.hits} <= {None}


@pytest.mark.parametrize("query", [None, "class:table"])
def test_a_prediction_in_memory_holds_what_is_written(
    query: str | None, run: Run, pages: Path, tmp_path: Path
) -> None:
    found = Session(run, device="cpu").predict(pages / "images" / "page_0.png", query)
    label, answer = found.write(tmp_path)
    assert read_query_result(answer) == found.query_result
    assert found.query_result.hits
    written = np.asarray(Image.open(label))
    assert np.array_equal(written, found.label)
    assert set(np.unique(written)) == ({0, 1, 2} if query is None else {0, 2})
    assert np.array_equal(found.instances > 0, found.label > 0)


def test_a_pdf_is_drawn_at_any_resolution(run: Run, tmp_path: Path) -> None:
    text_pdf(tmp_path / "report.pdf")
    boxes = {"boxes": [[60, 60, 535, 92], [305, 120, 535, 200]], "classes": ["text", "text"]}
    said = {}
    for dpi in (72, 144):
        scaled = {**boxes, "boxes": [[x * dpi / 72 for x in box] for box in boxes["boxes"]]}
        answer = run.predict(
            tmp_path / "report.pdf", prompt=scaled, dpi=dpi, device="cpu", progress=False
        )
        assert answer.dpi == (dpi, dpi)
        assert answer.size == tuple(math.ceil(side * dpi / 72) for side in answer.points)
        said[dpi] = {hit.prompt: np.array(hit.box) * 72 / dpi for hit in answer.hits}
    assert said[72].keys() == said[144].keys()
    for prompt, box in said[72].items():
        # The model sees the same page; its pixels are 842 / 1024 points.
        np.testing.assert_allclose(box, said[144][prompt], atol=6)


def test_files_are_written_or_refused_in_one_line(run: Run, pages: Path, tmp_path: Path) -> None:
    page = pages / "images" / "page_0.png"
    formats = ("png", "coco", "page", "overlay")
    paths = api.predict(
        run, page, None, tmp_path / "out", formats=formats, device="cpu", progress=False
    )
    assert sorted(path.name for path in paths) == [
        "page_0.coco.json", "page_0.overlay.png", "page_0.page.xml", "page_0.png",
    ]  # fmt: skip
    names = json.loads((tmp_path / "out" / "page_0.coco.json").read_text())["categories"]
    assert names == [{"id": 1, "name": "text"}, {"id": 2, "name": "table"}]
    with pytest.raises(InputError, match="has text, table"):
        run.predict(page, prompt="class:chart", out=tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def test_regions_are_refined_by_the_promptable_head(run: Run, pages: Path, tmp_path: Path) -> None:
    page = pages / "images" / "page_0.png"
    whole = run.predict(page, automatic="classes", device="cpu", progress=False)
    refined = run.predict(page, automatic="box", device="cpu", progress=False)
    assert whole.hits
    assert refined.hits
    for hit in refined.hits:
        assert hit.region is not None
        assert hit.region.class_name in NAMES.values()
        assert 0 < hit.region.score <= 1
    # The decoder's own estimate of its masks counts; plain blocks look the same to both heads.
    scores = [{hit.region.score for hit in a.hits if hit.region} for a in (whole, refined)]
    assert scores[0].isdisjoint(scores[1])
    # Of regions that overlap one stays: no pixel has two.
    assert sum(hit.region.mask.astype(int) for hit in refined.hits if hit.region).max() == 1
    with pytest.raises(InputError, match="automatic='lines': use one of classes, box"):
        run.predict(page, automatic="lines", device="cpu", progress=False)
    metrics = run.evaluate(
        pages / "images", pages / "labels", tmp_path / "eval",
        prompts="none", automatic="box", progress=False, report=False,
    )  # fmt: skip
    assert 0 <= metrics["average_precision"]["finetuned"]["map"] <= 1


@pytest.mark.parametrize(
    ("query", "way"),
    [
        (None, BOTH), ("Table", "proposed"), ("class:text", "proposed"),
        ("net income", "proposed"), ("words:table", "proposed"), ("What is due?", "proposed"),
    ],
)  # fmt: skip
def test_words_are_looked_for_in_regions_apart(query: str | None, way: str, run: Run) -> None:
    decoder = run.folder.decoder
    domain = trained_domain(decoder, "documents", prompt=query)
    assert suitable_finding(None, domain, None, decoder) == way
    assert suitable_finding("box", domain, None, decoder) == "box"
    assert suitable_finding(None, domain, "boxes.json", decoder) == "classes"
    assert suitable_finding(None, domain, None, None) == "classes"


@pytest.mark.parametrize("automatic", ["proposed", "box_and_proposed"])
def test_blocks_of_ink_are_asked_one_by_one(automatic: str, run: Run, pages: Path) -> None:
    page = pages / "images" / "page_0.png"
    found = run.predict(page, automatic=automatic, device="cpu", progress=False)
    assert found.hits
    assert all(hit.region.class_name in NAMES.values() for hit in found.hits if hit.region)
    assert sum(hit.region.mask.astype(int) for hit in found.hits if hit.region).max() == 1


@pytest.mark.parametrize("prompts", ["none", "slices"])
def test_pages_are_measured_by_average_precision(
    prompts: str, run: Run, pages: Path, tmp_path: Path
) -> None:
    metrics = run.evaluate(
        pages / "images", pages / "labels", tmp_path / "eval", prompts=prompts, progress=False
    )
    found = metrics["average_precision"]
    expected = {"finetuned"} if prompts == "none" else {"finetuned", "zero_shot", "box"}
    assert set(found) == expected
    assert set(found["finetuned"]["per_class"]) == {"text", "table"}
    assert 0 <= found["finetuned"]["map"] <= 1
    if prompts == "slices":  # the blocks are boxes
        assert found["box"]["map_50"] == pytest.approx(1.0)
    assert (tmp_path / "eval" / "index.html").is_file()


def test_average_precision_counts_what_pycocotools_counts() -> None:
    label = np.zeros((40, 40), np.int32)
    instances = np.zeros_like(label)
    for number, (row, column) in enumerate([(2, 2), (2, 22), (22, 2)], 1):
        label[row : row + 10, column : column + 10] = 1 if number < 3 else 2
        instances[row : row + 10, column : column + 10] = number
    truth = LabelMaps(label, instances)
    reference = detected_objects(truth, NAMES, "a")
    assert len(reference) == 3
    perfect = average_precision(reference, reference, NAMES)
    assert (perfect["map"], perfect["map_50"]) == (1.0, 1.0)

    # One of the two texts is there and half of it, the table is missed, and there is a wrong one.
    predicted = np.zeros_like(instances)
    predicted[2:12, 2:8] = 1
    predicted[30:38, 30:38] = 2
    maps = LabelMaps((predicted > 0).astype(np.int32), predicted, scores=np.array([0.9, 0.8]))
    found = average_precision(detected_objects(maps, NAMES, "a"), reference, NAMES)
    # Text: IoU 0.6 matches at 0.50, 0.55 and 0.60; recall 1/2 at precision 1, of 101 recalls 51.
    assert found["per_class"]["text"] == pytest.approx(3 / 10 * 51 / 101)
    assert found["per_class"]["table"] == 0
    assert found["map_50"] == pytest.approx(51 / 101 / 2)
    assert found["map_75"] == 0


def three_blocks(shift: int) -> LabelMaps:
    """Return two texts and a table, somewhat moved."""
    label, instances = np.zeros((2, 40, 40), np.int32)
    for number, (row, column) in enumerate([(2, 2), (2, 22), (22, 2)], 1):
        part = slice(row + shift, row + shift + 10), slice(column, column + 10)
        label[part], instances[part] = (1 if number < 3 else 2), number
    return LabelMaps(label, instances, scores=np.array([0.9, 0.8, 0.7]))


class Maps:
    """A domain of which only `maps` is asked: the source's blocks, or the prediction itself."""

    def maps(self, source: Any, prediction: Any = None) -> LabelMaps:
        return three_blocks(0) if prediction is None else prediction


def measured(cases: Sequence[int]) -> dict[str, Any]:
    """Return the facts of an evaluation in which this process measured these cases."""
    measure, rows = DetectionMeasure(), []
    for case in cases:
        for method in ("finetuned", "box"):
            found = three_blocks(case + (method == "box"))
            asked = {"classes": NAMES, "case_id": f"page_{case}", "method": method}
            source = SimpleNamespace(spacing=(1.0, 1.0))
            rows += measure.rows(Maps(), source, found, **asked)
    return measure.facts(gather_rows(rows))


def measure_apart(rank: int, folder: Path) -> None:
    """Measure every second case, as one process of two."""
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    (folder / f"{rank}.json").write_text(json.dumps(measured(range(rank, 3, 2))))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forks
def test_processes_that_share_an_evaluation_find_the_same_average_precision(
    tmp_path: Path,
) -> None:
    forks = multiprocessing.get_context("fork")
    processes = [forks.Process(target=measure_apart, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    alone = json.loads(json.dumps(measured(range(3))))
    assert 0 < alone["average_precision"]["box"]["map"] < 1
    assert alone["average_precision"]["finetuned"]["map"] < 1
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
