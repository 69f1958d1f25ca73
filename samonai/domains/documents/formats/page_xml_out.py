"""PAGE-XML writing (PRImA, 2019-07-15) of a page's regions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from samonai.domains.documents.formats.outlines_xml import (
    Element,
    child,
    lines_of,
    one_polygon,
    write_tree,
)
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page
from samonai.domains.documents.text.words import Word, joined_box, text_of
from samonai.version import __version__

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"

TEXT_TYPES = (
    "paragraph", "heading", "caption", "header", "footer", "page-number", "drop-capital", "credit",
    "floating", "signature-mark", "catch-word", "marginalia", "footnote", "footnote-continued",
    "endnote", "TOC-entry", "list-label", "other",
)  # fmt: skip
"""Types of a text region in the schema."""

_TEXT_NAMES = {"text": "paragraph", "title": "heading", "section": "heading"}
_KINDS = {
    "table": "TableRegion",
    "figure": "ImageRegion",
    "image": "ImageRegion",
    "picture": "ImageRegion",
    "graphic": "GraphicRegion",
    "separator": "SeparatorRegion",
    "formula": "MathsRegion",
    "equation": "MathsRegion",
    "chart": "ChartRegion",
}


def write_page_xml(page: Page, regions: Sequence[Region], path: Path) -> Path:
    """Write a page's regions; `custom` holds our name of the class.

    Args:
        page: The page.
        regions: In reading order.
        path: The file.
    """
    root = Element("PcGts", {"xmlns": NAMESPACE})
    metadata = child(root, "Metadata")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for name, text in (
        ("Creator", f"samonai {__version__}"),
        ("Created", now),
        ("LastChange", now),
    ):
        child(metadata, name).text = text
    height, width = page.size
    size = {"imageWidth": str(width), "imageHeight": str(height)}
    element = child(root, "Page", {"imageFilename": page.path.name, **size})
    if regions:
        order = child(child(element, "ReadingOrder"), "OrderedGroup", {"id": "order"})
        for index, region in enumerate(regions):
            child(
                order,
                "RegionRefIndexed",
                {"index": str(index), "regionRef": _id(region)},
            )
    for region in regions:
        _add(element, region)
    return write_tree(root, path)


def _add(page: Element, region: Region) -> None:
    kind, text_type = kind_of(region.name)
    attributes = {"id": _id(region), "custom": f"structure {{type:{region.name};}}"}
    if text_type:
        attributes["type"] = text_type
    element = child(page, kind, attributes)
    points = " ".join(f"{x},{y}" for x, y in one_polygon(region.mask))
    child(element, "Coords", {"points": points, "conf": f"{region.score:.4f}"})
    if kind == "TextRegion" and region.words:
        for number, words in enumerate(lines_of(region.words), 1):
            line = child(element, "TextLine", {"id": f"{_id(region)}_l{number}"})
            child(line, "Coords", {"points": _box_points(words)})
            _add_text(line, words)
        _add_text(element, region.words)


def kind_of(name: str) -> tuple[str, str]:
    """Return the element name of a class, and the type of a text region."""
    lowered = name.lower()
    if lowered in _KINDS:
        return _KINDS[lowered], ""
    wanted = _TEXT_NAMES.get(lowered, lowered)
    known = {known.lower(): known for known in TEXT_TYPES}
    return "TextRegion", known.get(wanted, "other")


def _add_text(element: Element, words: Sequence[Word]) -> None:
    child(child(element, "TextEquiv"), "Unicode").text = text_of(words)


def _box_points(words: Sequence[Word]) -> str:
    x0, y0, x1, y1 = (max(round(v), 0) for v in joined_box(word.box for word in words))
    return f"{x0},{y0} {x1},{y0} {x1},{y1} {x0},{y1}"


def _id(region: Region) -> str:
    return f"r{region.number}"
