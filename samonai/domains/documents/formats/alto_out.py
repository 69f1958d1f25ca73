"""ALTO 4 writing of a page's regions, with their lines and words."""

from collections.abc import Sequence
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
from samonai.domains.documents.text.words import Box, joined_box

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"

_PICTURES = ("figure", "image", "picture", "illustration", "chart", "photograph")
_GRAPHICS = ("separator", "graphic")


def write_alto(page: Page, regions: Sequence[Region], path: Path) -> Path:
    """Write a page's regions, each with a tag for its class.

    Args:
        page: The page.
        regions: In reading order, which the file keeps.
        path: The file.
    """
    root = Element("alto", {"xmlns": NAMESPACE})
    description = child(root, "Description")
    child(description, "MeasurementUnit").text = "pixel"
    child(child(description, "sourceImageInformation"), "fileName").text = page.path.name
    names = list(dict.fromkeys(region.name for region in regions))
    if names:
        tags = child(root, "Tags")
        for number, name in enumerate(names, 1):
            child(tags, "OtherTag", {"ID": f"T{number}", "LABEL": name})
    height, width = page.size
    size = {"HEIGHT": str(height), "WIDTH": str(width)}
    element = child(
        child(root, "Layout"), "Page", {"ID": "P1", "PHYSICAL_IMG_NR": str(page.number), **size}
    )
    space = child(element, "PrintSpace", {"HPOS": "0", "VPOS": "0", **size})
    for region in regions:
        _add(space, region, f"T{names.index(region.name) + 1}")
    return write_tree(root, path)


def _add(space: Element, region: Region, tag: str) -> None:
    name = region.name.lower()
    kind = "TextBlock"
    if name in _PICTURES:
        kind = "Illustration"
    elif name in _GRAPHICS:
        kind = "GraphicalElement"
    identity = {"ID": f"B{region.number}", "TAGREFS": tag}
    block = child(space, kind, {**identity, **_place(region.box)})
    points = " ".join(f"{x} {y}" for x, y in one_polygon(region.mask))
    child(child(block, "Shape"), "Polygon", {"POINTS": points})
    if kind != "TextBlock":
        return
    for number, words in enumerate(lines_of(region.words), 1):
        box = joined_box(word.box for word in words)
        line = child(block, "TextLine", {"ID": f"B{region.number}L{number}", **_place(box)})
        for word in words:
            child(
                line,
                "String",
                {"CONTENT": word.text, **_place(word.box), "WC": f"{word.score:.2f}"},
            )


def _place(box: Box) -> dict[str, str]:
    x0, y0, x1, y1 = (round(value) for value in box)
    return {
        "HPOS": str(x0),
        "VPOS": str(y0),
        "WIDTH": str(max(x1 - x0, 1)),
        "HEIGHT": str(max(y1 - y0, 1)),
    }
