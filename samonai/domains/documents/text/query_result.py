"""Query result of a page: regions with masks, boxes, scores, classes and text, as stable JSON.

| field                | meaning                                                                  |
|----------------------|--------------------------------------------------------------------------|
| `schema`             | `samonai.answer/1`; an incompatible change raises the number             |
| `query`, `kind`      | The query (null: all regions), and its kind                              |
| `found`              | Whether the page has a hit; without, `hits` is empty                     |
| `case`, `document`   | Name of the case, of the file                                            |
| `page`               | Number of the page in the file, from 1                                   |
| `size`               | [height, width] in pixels, the unit of all coordinates                   |
| `dpi`, `points`      | [down, across]; [height, width] of a PDF's page in 1/72 inch; or null    |
| `words_from`         | "text layer", "ocr", "text layer and ocr"; null: words were not used     |
| `hits[].text`        | The matched words, or the text of the region                             |
| `hits[].how`         | "class", "exact", "fuzzy", "regex", "retrieved", "prompted" or "region"  |
| `hits[].score`       | 0..1: similarity of words, share of the best retrieval, or the region's  |
| `hits[].box`         | [x0, y0, x1, y1] around the words, or around the region                  |
| `hits[].boxes`       | One per line of the words                                                |
| `hits[].region`      | The region that contains them, or null                                   |
| `hits[].prompt`      | Number of the prompting box, points or polygon, from 1; or null          |
| `region.number`      | Its number in the page's reading order, from 1                           |
| `region.class`       | Name of its class; `region.label` is its value in label maps             |
| `region.score`       | Mean probability of its pixels                                           |
| `region.box`, `text` | As above                                                                 |
| `region.mask`        | COCO's compressed run lengths of the page                                |
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.coco_masks import decode_rle
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page
from samonai.domains.documents.text.words import Box

SCHEMA = "samonai.answer/1"


@dataclass(frozen=True)
class ResultRegion:
    """A region of a query result; see the module's table."""

    number: int
    class_name: str
    label: int
    score: float
    box: Box
    text: str
    rle: dict[str, Any]

    @classmethod
    def of(cls, region: Region) -> "ResultRegion":
        """Return a predicted region as part of a query result."""
        return cls(
            number=region.number,
            class_name=region.name,
            label=region.value,
            score=round(region.score, 4),
            box=region.box,
            text=region.text,
            rle=region.rle,
        )

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Return its pixels, bool (H, W), on the page."""
        height, width = self.rle["size"]
        return decode_rle(self.rle, (height, width))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = asdict(self)
        values["class"], values["mask"] = values.pop("class_name"), values.pop("rle")
        return {**values, "box": list(self.box)}


@dataclass(frozen=True)
class Hit:
    """A hit on the page; see the module's table."""

    text: str
    how: str
    score: float
    box: Box
    boxes: tuple[Box, ...]
    region: ResultRegion | None
    prompt: int | None = None

    def rounded(self) -> "Hit":
        """Return the hit with the decimals that a file has, so that both hold one answer."""
        return replace(
            self,
            score=round(self.score, 4),
            box=_rounded(self.box),
            boxes=tuple(_rounded(box) for box in self.boxes),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "text": self.text,
            "how": self.how,
            "score": self.score,
            "box": list(self.box),
            "boxes": [list(box) for box in self.boxes],
            "region": None if self.region is None else self.region.to_json(),
            "prompt": self.prompt,
        }


@dataclass(frozen=True)
class QueryResult:
    """Query result of one page; see the module's table."""

    query: str | None
    kind: str
    case: str
    document: str
    page: int
    size: tuple[int, int]
    dpi: tuple[float, float] | None = None
    points: tuple[float, float] | None = None
    hits: tuple[Hit, ...] = field(default_factory=tuple)
    words_from: str | None = None

    @property
    def found(self) -> bool:
        """Return whether the page has a hit."""
        return bool(self.hits)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": SCHEMA,
            "query": self.query,
            "kind": self.kind,
            "found": self.found,
            "case": self.case,
            "document": self.document,
            "page": self.page,
            "size": list(self.size),
            "dpi": None if self.dpi is None else list(self.dpi),
            "points": None if self.points is None else list(self.points),
            "words_from": self.words_from,
            "hits": [hit.to_json() for hit in self.hits],
        }

    def write(self, path: Path) -> Path:
        """Write it as JSON."""
        with write_atomically(path) as temporary:
            text = json.dumps(self.to_json(), ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
        return path


def result_of(page: Page, query: str | None, kind: str, hits: Sequence[Hit]) -> QueryResult:
    """Return the query result of a page."""
    return QueryResult(
        query=query,
        kind=kind,
        case=page.source_id,
        document=page.path.name,
        page=page.number,
        size=page.size,
        dpi=page.dpi,
        points=page.points,
        hits=tuple(hit.rounded() for hit in hits),
        words_from=page.text_source,
    )


def _rounded(box: Box) -> Box:
    x0, y0, x1, y1 = (round(float(value), 2) for value in box)
    return x0, y0, x1, y1


def read_query_result(path: Path) -> QueryResult:
    """Read a query result from its JSON file.

    Raises:
        InputError: The file is not a query result, or has another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {content['schema']!r}; expected {SCHEMA}")
        return _from_json(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a query result of a page: {error!r}") from error


def _from_json(content: dict[str, Any]) -> QueryResult:
    kept = {key: content[key] for key in ("query", "kind", "case", "document", "page")}
    pairs: dict[str, Any] = {
        key: None if content[key] is None else tuple(content[key])
        for key in ("size", "dpi", "points")
    }
    return QueryResult(
        **kept,
        **pairs,
        hits=tuple(_hit(hit) for hit in content["hits"]),
        words_from=content.get("words_from"),
    )


def _hit(content: dict[str, Any]) -> Hit:
    region = content["region"]
    if region is not None:
        kept = {key: region[key] for key in ("number", "label", "score", "text")}
        region = ResultRegion(
            **kept, class_name=region["class"], box=tuple(region["box"]), rle=region["mask"]
        )
    return Hit(
        text=content["text"],
        how=content["how"],
        score=content["score"],
        box=tuple(content["box"]),
        boxes=tuple(tuple(box) for box in content["boxes"]),
        region=region,
        prompt=content.get("prompt"),
    )
