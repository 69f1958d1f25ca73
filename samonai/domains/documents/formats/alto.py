"""ALTO reading: the blocks of a page, named by their tags (SegmOnto), with their text."""

from collections.abc import Iterator
from dataclasses import replace
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
from samonai.domains.xml import Element, read_xml

_BLOCKS = {
    "TextBlock": "text",
    "Illustration": "figure",
    "GraphicalElement": "graphic",
    "ComposedBlock": "block",
}
_PIXEL = "pixel"
_PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}
_SAME_SHAPE = 0.05
_LARGEST_SIDE = 1e7
_SHOWN = 3


def read_alto(
    path: Path,
    root: Element | None = None,
    size: tuple[int, int] | None = None,
    dpi: tuple[float, float] | None = None,
) -> PageAnnotations:
    """Read the blocks of an ALTO file, versions 2 to 4.

    Coordinates in tenths of millimetres or 1/1200 inch are scaled by the picture's sides over the
    page's, along each axis; of a page without sides, by the picture's resolution.

    The name of a block is the label of its tag ("MainZone" of "MainZone#1"), else its TYPE, else
    its kind.

    Args:
        path: The file.
        root: The parsed file, if it is parsed already.
        size: (H, W) of the labelled picture.
        dpi: The picture's resolution (down, across).

    Raises:
        InputError: The file is not ALTO, or an element cannot be read.
    """
    root = read_xml(path) if root is None else root
    page = root.find("Layout/Page")
    if root.tag != "alto" or page is None:
        raise InputError(f"{path}: not ALTO; expected <alto> with a <Layout> and a <Page>")
    unit = (root.findtext("Description/MeasurementUnit") or _PIXEL).strip()
    if unit != _PIXEL and unit not in _PER_INCH:
        known = ", ".join((_PIXEL, *_PER_INCH))
        raise InputError(f"{path}: its unit {unit!r} cannot be read; expected {known}")
    tags = {
        tag.get("ID", ""): tag.get("LABEL", "").partition("#")[0] for tag in root.iterfind("Tags/*")
    }
    try:
        stated = _size(page)
    except ValueError as error:
        raise InputError(f"{path}: the sides of its page: {error}") from error
    down, across = (1.0, 1.0) if unit == _PIXEL else _scale(path, unit, stated, size, dpi)
    regions = [
        _region(block, tags, across, down)
        for block in page.iter()
        if block.tag in _BLOCKS and not _is_group(block)
    ]
    if regions and all(region.lost for region in regions):
        named = ", ".join(region.identifier or region.name for region in regions[:_SHOWN])
        raise InputError(
            f"{path}: no block says where it is ({named}); expected HPOS, VPOS, WIDTH and HEIGHT"
        )
    if unit == _PIXEL:
        size = None if stated is None else (round(stated[0]), round(stated[1]))
    return PageAnnotations(size, tuple(regions))


def _scale(
    path: Path,
    unit: str,
    stated: tuple[float, float] | None,
    size: tuple[int, int] | None,
    dpi: tuple[float, float] | None,
) -> tuple[float, float]:
    """Return pixels per unit (down, across).

    Raises:
        InputError: The page has other proportions than the picture, or the scale is unknown.
    """
    if stated is None or size is None:
        if dpi is None:
            raise InputError(
                f"{path}: in {unit}, but neither WIDTH and HEIGHT of its page nor the resolution "
                f"of the picture are known; add one of them"
            )
        return dpi[0] / _PER_INCH[unit], dpi[1] / _PER_INCH[unit]
    down, across = size[0] / stated[0], size[1] / stated[1]
    squeezed = 1.0 if dpi is None else dpi[0] / dpi[1]
    if all(abs(down / across / wanted - 1) > _SAME_SHAPE for wanted in (1.0, squeezed)):
        raise InputError(
            f"{path}: a page of {stated[1]:g} x {stated[0]:g} {unit} has not the shape of a "
            f"picture of {size[1]} x {size[0]} pixels; is it of another picture?"
        )
    return down, across


def _size(page: Element) -> tuple[float, float] | None:
    """Return (height, width) of the page in its unit.

    Raises:
        ValueError: The values are not lengths.
    """
    height, width = page.get("HEIGHT"), page.get("WIDTH")
    if height is None or width is None:
        return None
    sides = float(height), float(width)
    if not all(np.isfinite(side) and 0 < side < _LARGEST_SIDE for side in sides):
        raise ValueError(f"WIDTH={width!r}, HEIGHT={height!r}; expected lengths above 0")
    return sides


def _region(block: Element, tags: dict[str, str], across: float, down: float) -> Annotation:
    """Return a block; without a position of its own it is the union of its lines."""
    found = Annotation(_name(block, tags), text=_text(block), identifier=block.get("ID", ""))
    own = _outline(block)
    inside = [own] if own is not None else [_outline(line) for line in block.iter("TextLine")]
    rings = tuple(ring for ring in inside if ring is not None)
    whole = replace(found, rings=rings, union=own is None, lost=not rings)
    return whole.scaled(across, down)


def _name(block: Element, tags: dict[str, str]) -> str:
    for reference in block.get("TAGREFS", "").split():
        if tags.get(reference):
            return tags[reference]
    return block.get("TYPE", "").strip() or _BLOCKS[block.tag]


def _is_group(block: Element) -> bool:
    """Return whether an element without a position only holds other blocks."""
    inside = any(part.tag in _BLOCKS for part in block.iter() if part is not block)
    return inside and _outline(block) is None


def _outline(block: Element) -> npt.NDArray[np.float64] | None:
    """Return an element's outline in its unit, or its box; None without either."""
    polygon = block.find("Shape/Polygon")
    if polygon is not None and polygon.get("POINTS"):
        values = polygon.get("POINTS", "").replace(",", " ").split()
        try:
            return ring([float(value) for value in values])
        except ValueError:
            pass
    try:
        x, y, width, height = (float(block.get(n, "")) for n in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
        corners = box_ring(x, y, width, height)
        return ring(corners.ravel().tolist()) if width > 0 and height > 0 else None
    except ValueError:
        return None


def _text(block: Element) -> str:
    return "\n".join(" ".join(_contents(line)) for line in block.iterfind("TextLine"))


def _contents(line: Element) -> Iterator[str]:
    for string in line.iterfind("String"):
        yield string.get("CONTENT", "")
