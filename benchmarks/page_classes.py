"""Class names as queries on generated pages: `--prompt table` answers every table, and no more.

Found: a true region of the class has a hit whose region's IoU with it is 0.5 or more. Right: so
many of the hits have such a region. On pages without any, nothing found is the right answer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import markdown
from benchmarks.page_blocks import CLASSES
from benchmarks.pages import MadePage
from samonai.domains.documents.layout.prediction import PagePrediction
from samonai.domains.documents.text.query import run_query
from samonai.domains.documents.text.query_result import ResultRegion

KIND = "class"
"""First columns of the rows of counts."""

_SAME_IOU = 0.5


def class_rows(
    predictions: Mapping[str, PagePrediction], page: MadePage, names: Mapping[int, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the hits of each class of the run, by class and by the kind of its regions."""
    for owner, prediction in predictions.items():
        for name in CLASSES:
            if name in names.values():
                yield f"{KIND}|{name}|{owner}", count_class(prediction, page, name, names)


def count_class(
    prediction: PagePrediction, page: MadePage, name: str, names: Mapping[int, str]
) -> dict[str, float]:
    """Predict a class; count the true regions that were found, and the hits that are right."""
    answer = run_query(prediction, f"class:{name}", names)
    wanted = [place for place, block in enumerate(page.blocks) if block.name == name]
    if not wanted:
        return {"without": 1, "said_so": int(not answer.found)}
    shares = [overlaps(page, hit.region) for hit in answer.hits if hit.region is not None]
    table = np.array(shares).reshape(-1, len(page.blocks))[:, wanted]
    best = table.max(0, initial=0.0)
    return {
        "regions": len(wanted),
        "found": int((best >= _SAME_IOU).sum()),
        "hits": len(table),
        "right": int((table.max(1, initial=0.0) >= _SAME_IOU).sum()),
        "iou": float(best.sum()),
    }


def class_table(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the hits of each class on all pages as a Markdown table."""
    totals: dict[str, Counter[str]] = {}
    for row in rows:
        for key, counts in row.items():
            if key.startswith(f"{KIND}|"):
                totals.setdefault(key, Counter()).update(counts)
    lines = []
    for key, total in totals.items():
        _, name, owner = key.split("|")
        shares = [
            total[part] / total[whole] if total[whole] else None
            for part, whole in (
                ("found", "regions"), ("right", "hits"), ("iou", "regions"), ("said_so", "without"),
            )
        ]  # fmt: skip
        lines.append([name, owner, f"{total['regions']:g}", *map(markdown.number, shares)])
    header = ["asked for", "regions of", "true regions", "found", "hits right", "IoU"]
    return markdown.table([*header, "pages without it say so"], lines)


def overlaps(page: MadePage, region: ResultRegion) -> npt.NDArray[Any]:
    """Return the IoU of a region with every true one."""
    mask = region.mask
    area, found = int(mask.sum()), []
    for block in page.blocks:
        x0, y0, x1, y1 = map(int, block.box)
        shared = int(mask[y0:y1, x0:x1].sum())
        found.append(shared / (area + (x1 - x0) * (y1 - y0) - shared))
    return np.array(found)
