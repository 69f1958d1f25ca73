"""ALTO labels: the blocks of a page, called by their tags (SegmOnto), with their text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.formats.annotations import (
    Annotation,
    PageAnnotations,
    box_ring,
    ring,
)
from samonai.domains.documents.formats.xml import Element, read_xml

_BLOCKS = {
    "TextBlock": "text",
    "Illustration": "figure",
    "GraphicalElement": "graphic",
    "ComposedBlock": "block",
}
_TENTHS_OF_MM = "mm10"
_UNITS = ("pixel", _TENTHS_OF_MM)


def read_alto(path: Path, root: Element | None = None, dpi: float | None = None) -> PageAnnotations:
    """Read the blocks of an ALTO file, versions 2 to 4.

    A block is called by the label of its tag ("MainZone" of "MainZone#1"), else by its TYPE, else
    by its kind.

    Args:
        path: The file.
        root: What it holds, where it is parsed already.
        dpi: Resolution of the image, for files in tenths of millimetres.

    Raises:
        InputError: It is not ALTO, or something in it cannot be read.
    """
    root = read_xml(path) if root is None else root
    page = root.find("Layout/Page")
    if root.tag != "alto" or page is None:
        raise InputError(f"{path}: not ALTO; expected <alto> with a <Layout> and a <Page>")
    unit = (root.findtext("Description/MeasurementUnit") or "pixel").strip()
    if unit not in _UNITS or (unit == _TENTHS_OF_MM and dpi is None):
        raise InputError(
            f"{path}: its unit {unit!r} cannot be read; expected pixel, or mm10 with an image "
            f"that says its resolution"
        )
    scale = 1.0 if unit == "pixel" or dpi is None else dpi / 254.0
    tags = {
        tag.get("ID", ""): tag.get("LABEL", "").partition("#")[0] for tag in root.iterfind("Tags/*")
    }
    try:
        regions = tuple(
            Annotation(_name(block, tags), (_outline(block) * scale,), text=_text(block))
            for block in page.iter()
            if block.tag in _BLOCKS and _has_place(block)
        )
        size = _size(page, scale)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: this ALTO cannot be read: {error}") from error
    return PageAnnotations(size, regions)


def _size(page: Element, scale: float) -> tuple[int, int] | None:
    height, width = page.get("HEIGHT"), page.get("WIDTH")
    if height is None or width is None:
        return None
    return round(float(height) * scale), round(float(width) * scale)


def _name(block: Element, tags: dict[str, str]) -> str:
    for reference in block.get("TAGREFS", "").split():
        if tags.get(reference):
            return tags[reference]
    return block.get("TYPE", "").strip() or _BLOCKS[block.tag]


def _has_place(block: Element) -> bool:
    return block.find("Shape") is not None or block.get("HPOS") is not None


def _outline(block: Element) -> npt.NDArray[np.float64]:
    polygon = block.find("Shape/Polygon")
    if polygon is not None and polygon.get("POINTS"):
        values = polygon.get("POINTS", "").replace(",", " ").split()
        return ring([float(value) for value in values])
    x, y, width, height = (float(block.get(n, "")) for n in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    return box_ring(x, y, width, height)


def _text(block: Element) -> str:
    return "\n".join(" ".join(_contents(line)) for line in block.iterfind("TextLine"))


def _contents(line: Element) -> Iterator[str]:
    for string in line.iterfind("String"):
        yield string.get("CONTENT", "")
