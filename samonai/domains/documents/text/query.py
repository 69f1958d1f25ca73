"""Queries on a page: a class, words, a regular expression, or a question.

For a query without a prefix, these are tried in order until one has a hit: the
name of a class of the run; exact words; similar words; for
questions (a "?" at the end, or four words and more) the regions whose text fits best. A prefix
selects one of them: "class:", "words:", "fuzzy:", "regex:", "question:". A query without a match
has no hits.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.layout.prediction import PagePrediction, Region
from samonai.domains.documents.text.query_result import Hit, QueryResult, ResultRegion, result_of
from samonai.domains.documents.text.retrieval import Retrieve, by_terms
from samonai.domains.documents.text.text_matching import (
    Match,
    exact_matches,
    fuzzy_matches,
    regex_matches,
)
from samonai.domains.documents.text.words import Word

KINDS = ("class", "words", "fuzzy", "regex", "question")

_QUESTION_WORDS = 4

_SURE = 0.25
"""Least score of regions that match a class's name; regions around words may have a lower one."""


def parse_query(query: str) -> tuple[str | None, str]:
    """Split a query into its kind, None without a prefix, and the rest.

    Raises:
        InputError: The query is empty.
    """
    prefix, colon, rest = query.partition(":")
    kind = prefix.strip().lower() if colon and prefix.strip().lower() in KINDS else None
    asked = (rest if kind else query).strip()
    if not asked:
        raise InputError(f"prompt {query!r} is empty: name a class, words or a question")
    return kind, asked


def run_query(
    prediction: PagePrediction,
    query: str,
    names: Mapping[int, str],
    retrieve: Retrieve = by_terms,
) -> QueryResult:
    """Run a query on a page.

    Args:
        prediction: The page's regions.
        query: The query; see the module's text.
        names: Label value to class name.
        retrieve: Ranks the regions' texts for a question.

    Raises:
        InputError: The query is invalid, or an optional package that it needs is not installed.
    """
    kind, asked = parse_query(query)
    known = {name.casefold(): value for value, name in names.items()}
    if kind == "class" and asked.casefold() not in known:
        raise InputError(f"there is no class {asked!r}; this run has {', '.join(names.values())}")
    if kind == "class" or (kind is None and asked.casefold() in known):
        regions = prediction.regions(names, with_text=bool(prediction.page.words))
        value = known[asked.casefold()]
        wanted = [r for r in regions if r.value == value and r.score >= _SURE]
        return result_of(prediction.page, query, "class", [_whole(r, "class") for r in wanted])
    regions = prediction.regions(names, with_text=True)
    words = prediction.page.text
    for tried in [kind] if kind else _order(asked):
        if tried == "question":
            hits = _retrieved(regions, asked, retrieve)
        else:
            hits = _words_hits(_FINDERS[tried](words, asked), regions)
        if hits:
            return result_of(prediction.page, query, tried, hits)
    return result_of(prediction.page, query, kind or "words", [])


def all_regions(
    prediction: PagePrediction, names: Mapping[int, str], with_text: bool
) -> QueryResult:
    """Return all regions of a page in reading order, with the number of their prompt if any."""
    regions = prediction.regions(names, with_text=with_text)
    kind, how = ("prompts", "prompted") if prediction.asked else ("regions", "region")
    return result_of(prediction.page, None, kind, [_whole(r, how) for r in regions])


def region_of(words: Sequence[Word], regions: Sequence[Region]) -> Region | None:
    """Return the region of words: the one with most of their area, or else with their middle."""
    best, most = None, 0
    for region in regions:
        shared = sum(_pixels(region.mask, word) for word in words)
        if shared > most:
            best, most = region, shared
    if best is not None:
        return best
    x, y = np.mean([word.centre for word in words], axis=0)
    around = [r for r in regions if r.box[0] <= x < r.box[2] and r.box[1] <= y < r.box[3]]
    return min(around, key=lambda region: int(region.mask.sum()), default=None)


def _order(asked: str) -> list[str]:
    question = asked.endswith("?")
    order = ["words"] if question else ["words", "fuzzy"]
    return [*order, "question"] if question or len(asked.split()) >= _QUESTION_WORDS else order


def _words_hits(matches: Sequence[Match], regions: Sequence[Region]) -> list[Hit]:
    found = []
    for match in matches:
        region = region_of(match.words, regions)
        answered = None if region is None else ResultRegion.of(region)
        found.append(
            Hit(match.text, match.how, match.score, match.box, tuple(match.boxes), answered)
        )
    return found


def _retrieved(regions: Sequence[Region], asked: str, retrieve: Retrieve) -> list[Hit]:
    ranked = retrieve([region.text for region in regions], asked)
    return [_whole(regions[row], "retrieved", score) for row, score in ranked]


_FINDERS: dict[str, Callable[[Sequence[Word], str], list[Match]]] = {
    "words": exact_matches,
    "fuzzy": fuzzy_matches,
    "regex": regex_matches,
}


def _whole(region: Region, how: str, score: float | None = None) -> Hit:
    """Return a whole region as a hit."""
    rated = region.score if score is None else score
    answered = ResultRegion.of(region)
    return Hit(region.text, how, rated, region.box, (region.box,), answered, region.asked)


def _pixels(mask: npt.NDArray[np.bool_], word: Word) -> int:
    x0, y0, x1, y1 = word.box
    part = mask[int(max(y0, 0)) : int(np.ceil(y1)), int(max(x0, 0)) : int(np.ceil(x1))]
    return int(np.count_nonzero(part))
