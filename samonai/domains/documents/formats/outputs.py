"""Output formats of a predicted page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.domains.documents.formats.alto_out import write_alto
from samonai.domains.documents.formats.coco_out import write_coco
from samonai.domains.documents.formats.docling_out import write_docling
from samonai.domains.documents.formats.label_png import write_label
from samonai.domains.documents.formats.overlay import write_overlay
from samonai.domains.documents.formats.page_xml_out import write_page_xml
from samonai.domains.documents.formats.pdf_out import write_pdf
from samonai.domains.documents.layout.prediction import PagePrediction, Region
from samonai.domains.documents.text.query import all_regions, run_query
from samonai.domains.documents.text.query_result import QueryResult
from samonai.domains.documents.text.retrieval import Retrieve, by_terms

FORMATS = ("png", "json", "coco", "page", "alto", "docling", "overlay", "pdf")
"""Class map; JSON of the query result; and formats of other programs."""

DEFAULT_FORMATS = ("png", "json")

_ENDINGS = {
    "png": ".png",
    "json": ".json",
    "coco": ".coco.json",
    "page": ".page.xml",
    "alto": ".alto.xml",
    "docling": ".docling.json",
    "overlay": ".overlay.png",
    "pdf": ".regions.pdf",
}


def write_outputs(
    prediction: PagePrediction,
    stem: Path,
    formats: Sequence[str],
    names: Mapping[int, str],
    query: str | None = None,
    *,
    with_text: bool = True,
    retrieve: Retrieve = by_terms,
) -> list[Path]:
    """Write a page's regions, or those that match a query.

    Args:
        prediction: The page's regions.
        stem: Path without an ending.
        formats: Of `FORMATS`.
        names: Label value to class name.
        query: The query; None: all regions.
        with_text: Give regions the words in them.
        retrieve: Ranks the regions' texts for a question.

    Returns:
        The files, in the order of `FORMATS`.
    """
    page = prediction.page
    result = page_result(prediction, names, query, with_text=with_text, retrieve=retrieve)
    regions = prediction.regions(names, with_text=with_text)
    label = prediction.label
    if query:
        regions = result_regions(result, regions)
        label = label_of(label, regions)
    writers = {
        "png": lambda path: write_label(page, label, path),
        "json": result.write,
        "coco": lambda path: write_coco(page, regions, names, path),
        "page": lambda path: write_page_xml(page, regions, path),
        "alto": lambda path: write_alto(page, regions, path),
        "docling": lambda path: write_docling(page, regions, path),
        "overlay": lambda path: write_overlay(page, regions, path),
        "pdf": lambda path: write_pdf(page, regions, path),
    }
    chosen_formats = [name for name in FORMATS if name in formats]
    return [writers[name](stem.with_name(stem.name + _ENDINGS[name])) for name in chosen_formats]


def page_result(
    prediction: PagePrediction,
    names: Mapping[int, str],
    query: str | None,
    *,
    with_text: bool,
    retrieve: Retrieve = by_terms,
) -> QueryResult:
    """Return the regions of a page, or those that match a query; see `write_outputs`."""
    if query:
        return run_query(prediction, query, names, retrieve)
    return all_regions(prediction, names, with_text)


def label_of(label: npt.NDArray[np.int32], regions: Sequence[Region]) -> npt.NDArray[np.int32]:
    """Return a label map that holds these regions only, int32 (H, W)."""
    chosen = np.any([region.mask for region in regions] or [np.zeros(label.shape, bool)], axis=0)
    return np.where(chosen, label, 0)


def result_regions(result: QueryResult, regions: Sequence[Region]) -> list[Region]:
    """Return the regions of a query result in reading order, renumbered."""
    numbers = {hit.region.number for hit in result.hits if hit.region is not None}
    kept = [region for region in regions if region.number in numbers]
    return [replace(region, number=place) for place, region in enumerate(kept, 1)]
