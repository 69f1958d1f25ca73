"""Train on generated pages, measure on others, and run text queries on them.

`python -m benchmarks.documents --out DIR [--pages N] [--held-out N] [--epochs N]`

Leaves `DIR/train` and `DIR/test` (see `pages`), the run, its evaluations with boxes and without
prompts, a row per held-out page of what its queries found, and `DIR/documents.md`. Existing
results are kept, so that the same command resumes a stopped one; another number of pages or epochs
needs another folder.

Queries are words and phrases of the page, looked up in its text layer, and read by OCR off its
picture. Found: some hit lies in a true region that has them. Right: of all true regions, the one
that a hit's words lie in is the one that the region that came back has the largest IoU with. The
regions are those that the model finds without prompts, in each way of `--automatic`; and, as the
most that can be reached, the page's own label. Names of classes are queries too, see
`page_classes`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import samonai
from benchmarks import markdown
from benchmarks.page_classes import KIND, class_rows, class_table, overlaps
from benchmarks.pages import DPI, LABELS, MadePage, write_pages
from samonai.core.files import write_atomically
from samonai.domains.base import Case
from samonai.domains.documents.layout.prediction import PagePrediction, from_label
from samonai.domains.documents.text.ocr import read_words
from samonai.domains.documents.text.query import run_query
from samonai.domains.documents.text.query_result import Hit
from samonai.inference import ObjectFinding, SourceInferer, trained_domain
from samonai.inference.inferer import Automatic

_LENGTHS = {"word": 1, "phrase": 3}
_WAYS = {
    "classes": "automatic head, pixels that touch",
    "box": "automatic head, refined by boxes",
    "points": "automatic head, split by points",
    "proposed": "blocks of ink, asked one by one",
    "box_and_proposed": "both: refined by boxes, and blocks",
}
_LABEL = "the page's own label"
_METHODS = {"box": "the filled box", "zero_shot": "before", "finetuned": "after"}


@dataclass(frozen=True)
class Asked:
    """One query, and the numbers of the regions that have it.

    Attributes:
        text: The words.
        owners: Places in the page's blocks.
    """

    text: str
    owners: frozenset[int]


def main(arguments: list[str] | None = None) -> int:
    """Do the steps without results, and write the tables."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    out: Path = options.out
    train, test = out / "train", out / "test"
    write_pages(train, options.pages, options.seed)
    other = options.seed + 1 if options.held_out_seed is None else options.held_out_seed
    made = write_pages(test, options.held_out, other, name="held_out")
    console.print(f"{options.pages} pages to train on, {len(made)} held out")
    run = samonai.finetune(
        options.model,
        train,
        train / LABELS,
        domain="documents",
        out=out / "run",
        epochs=options.epochs,
        seed=options.seed,
        store=out / "store",
        checkpoint=options.checkpoint,
        learning_rate=options.learning_rate,
        val_fraction=0.1,
        val_interval=max(options.epochs // 5, 1),
        # Small steps, and most of each for the automatic head, which starts from nothing.
        batch_size=2,
        objects_per_frame=2,
        # Points of a grid split what touches, where the decoder was trained with points.
        sampler={"points_probability": 0.3 if "points" in options.automatic else 0.0},
        dpi=DPI,
    )
    metrics = {"a box per region": _evaluate(run, test, out / "boxes", prompts="slices")}
    for way in options.automatic:
        metrics[_WAYS[way]] = _evaluate(run, test, out / way, prompts="none", automatic=way)
    rows = list(_query_rows(run, test, made, options))
    with write_atomically(out / "documents.md") as temporary:
        tables = [region_table(metrics), query_table(rows), class_table(rows)]
        temporary.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    console.print(f"written to {out / 'documents.md'}")
    return 0


def _evaluate(run: samonai.Run, test: Path, folder: Path, **asked: Any) -> dict[str, Any]:
    """Return the metrics of the held-out pages, measured now or before."""
    path = folder / "metrics.json"
    if not path.is_file():
        run.evaluate(test, test / LABELS, folder, cases="all", report=False, **asked)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _query_rows(
    run: samonai.Run, test: Path, made: Sequence[MadePage], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield a row for each held-out page, from its file where it has one."""
    domain = trained_domain(run.folder.decoder, "documents")
    inferer = SourceInferer(domain, options.out / "store")
    names = {int(value): name for value, name in run.metadata.classes.items()}
    cases = {
        (case.image.name, int(case.part or 1)): case
        for case in domain.find_cases(test, test / LABELS)
    }
    for number, page in enumerate(made):
        case: Case = cases[page.file, page.number]
        path = options.out / "queries" / f"{case.case_id}.json"
        if not path.is_file():
            source = domain.read(case)
            rng = np.random.default_rng([options.seed, number])
            asked = {
                kind: list(draw_queries(page, options.queries, length, rng))
                for kind, length in _LENGTHS.items()
            }
            found = {
                _WAYS[way]: inferer(source, run.network, _automatic(way))
                for way in options.automatic
            }
            found[_LABEL] = from_label(source, source.label)
            row = dict(_ask(found, page, asked, names, with_ocr=number < options.ocr_pages))
            row |= class_rows(found, page, names)
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        yield json.loads(path.read_text(encoding="utf-8"))


def _automatic(way: str) -> Automatic:
    """Predict regions without prompts, in one way."""
    return Automatic(finding=ObjectFinding(way))


def draw_queries(
    page: MadePage, count: int, length: int, rng: np.random.Generator
) -> Iterator[Asked]:
    """Draw runs of so many words that stand on a page."""
    spans: dict[str, set[int]] = {}
    for place, block in enumerate(page.blocks):
        for run in block.runs:
            for start in range(len(run) - length + 1):
                text = " ".join(word.strip(".,") for word in run[start : start + length])
                spans.setdefault(text.casefold(), set()).add(place)
    texts = sorted(spans)
    for row in rng.permutation(len(texts))[:count].tolist():
        yield Asked(texts[row], frozenset(spans[texts[row]]))


def _ask(
    predictions: Mapping[str, PagePrediction],
    page: MadePage,
    asked: Mapping[str, Sequence[Asked]],
    names: Mapping[int, str],
    with_ocr: bool,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield counts by way, query kind and whose regions they are."""
    ways = {"text layer": predictions[_LABEL].page}
    if with_ocr:
        scan = replace(ways["text layer"], words=(), read_words=None)
        ways["OCR"] = replace(scan, words=read_words(scan.image))
    for way, source in ways.items():
        for owner, prediction in predictions.items():
            of_way = replace(prediction, page=source)
            for kind, queries in asked.items():
                counts: Counter[str] = Counter()
                for query in queries:
                    counts.update(count(of_way, page, query, names))
                yield f"{way}|{kind}|{owner}", dict(counts)


def count(
    prediction: PagePrediction, page: MadePage, asked: Asked, names: Mapping[int, str]
) -> dict[str, float]:
    """Run one query; count whether it has a hit, and the hits whose regions are right."""
    hits = run_query(prediction, asked.text, names).hits
    placed = [(hit, place) for hit in hits if (place := block_at(page, hit)) is not None]
    counts = Counter(asked=1, found=int(any(place in asked.owners for _, place in placed)))
    counts["hits"] = len(placed)
    sums = {"iou": 0.0}
    for hit, place in placed:
        if hit.region is None:
            continue
        shares = overlaps(page, hit.region)
        counts["right"] += int(np.argmax(shares) == place and shares[place] > 0)
        counts["right_class"] += hit.region.class_name == page.blocks[place].name
        sums["iou"] += float(shares[place])
    return {**counts, **sums}


def block_at(page: MadePage, hit: Hit) -> int | None:
    """Return the place of the true region that a hit's first line lies in."""
    x0, y0, x1, y1 = hit.boxes[0]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    for place, block in enumerate(page.blocks):
        if block.box[0] <= x < block.box[2] and block.box[1] <= y < block.box[3]:
            return place
    return None


def region_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the metrics of the held-out pages' regions as a Markdown table."""
    lines = []
    classes: dict[str, dict[str, float | None]] = {}
    for prompts, document in metrics.items():
        for method, name in _METHODS.items():
            found = document["average_precision"].get(method)
            if found is None:
                continue
            values = [found["map"], found["map_50"], found["map_75"]]
            values += [document["summary"][metric].get(method) for metric in ("iou", "dice")]
            lines.append([prompts, name, *map(markdown.number, values)])
            classes[f"{prompts}, {name}"] = found["per_class"]
    regions = markdown.table(["prompts", "", "mAP", "AP50", "AP75", "IoU", "Dice"], lines)
    names = list(dict.fromkeys(name for row in classes.values() for name in row))
    by_class = [
        [who, *(markdown.number(row.get(name)) for name in names)] for who, row in classes.items()
    ]
    return f"{regions}\n\n{markdown.table(['AP by class', *names], by_class)}"


def query_table(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the hits of queries on all pages as a Markdown table."""
    totals: dict[str, Counter[str]] = {}
    rows = [{k: v for k, v in row.items() if not k.startswith(f"{KIND}|")} for row in rows]
    pages: Counter[str] = Counter(key for row in rows for key in row)
    for row in rows:
        for key, counts in row.items():
            totals.setdefault(key, Counter()).update(counts)
    lines = []
    for key, total in totals.items():
        shares = [total["found"] / total["asked"]]
        shares += [total[n] / max(total["hits"], 1) for n in ("right", "right_class", "iou")]
        lines.append(
            [*key.split("|"), str(pages[key]), f"{total['asked']:g}", *map(markdown.number, shares)]
        )
    header = ["words from", "query", "regions of", "pages", "asked", "hit rate", "right region"]
    return markdown.table([*header, "its class", "its IoU"], lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.documents", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="pages, run, rows, tables")
    parser.add_argument("--pages", type=int, default=100, help="to train on")
    parser.add_argument("--held-out", type=int, default=20, help="to measure on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--automatic",
        nargs="+",
        choices=list(_WAYS),
        default=["classes", "proposed", "box_and_proposed"],
        help="how regions are found without prompts",
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--queries", type=int, default=50, help="words, and phrases, of each page")
    parser.add_argument("--ocr-pages", type=int, default=5, help="read so many by OCR too")
    parser.add_argument("--model", default="micro")
    parser.add_argument("--checkpoint", type=Path, help="the model's weights, if not its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--held-out-seed", type=int, help="of the held-out pages; by default --seed + 1"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
