"""PAGE-XML (PRImA) reading: the regions of a page, with their text."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.formats.annotations import Annotation, PageAnnotations, ring
from samonai.domains.xml import Element, read_xml, texts

_REGION = "Region"
_LINES = ("TextLine", "TableCell")
_SHOWN = 3
# Structure type in `custom`, as written by Transkribus, OCR-D and `page_xml_out`.
_STRUCTURE = re.compile(r"structure\s*\{[^}]*type:\s*([^;}]+)")


def read_page_xml(path: Path, root: Element | None = None) -> PageAnnotations:
    """Read the regions of a PAGE file, including nested ones.

    The name of a region is its structure in `custom`, else its `type` ("paragraph", "heading"),
    else its kind in lower case ("table", "graphic", "separator").

    Raises:
        InputError: The file is not PAGE-XML, or an outline cannot be read.
    """
    root = read_xml(path) if root is None else root
    page = root.find("Page")
    if root.tag != "PcGts" or page is None:
        raise InputError(f"{path}: not PAGE-XML; expected <PcGts> with a <Page>")
    try:
        size = int(page.get("imageHeight", "")), int(page.get("imageWidth", ""))
    except ValueError as error:
        raise InputError(
            f"{path}: imageWidth={page.get('imageWidth')!r}, imageHeight="
            f"{page.get('imageHeight')!r}; expected the picture's sides in pixels"
        ) from error
    # A region's parents come first, so that nested ones lie on top where sizes agree.
    regions = tuple(
        _region(element) for element in page.iter() if str(element.tag).endswith(_REGION)
    )
    if regions and all(region.lost for region in regions):
        named = ", ".join(region.identifier or region.name for region in regions[:_SHOWN])
        raise InputError(
            f"{path}: no region has a usable outline ({named}); expected <Coords "
            f'points="x,y x,y x,y"> of at least three points'
        )
    return PageAnnotations(size, regions)


def _region(element: Element) -> Annotation:
    """Return a region; without an outline of its own it is the union of its children."""
    found = Annotation(_name(element), text=_text(element), identifier=element.get("id", ""))
    own = _outline(element)
    if own is not None:
        return replace(found, rings=(own,))
    inside = [_outline(part) for part in element.iter() if part.tag in _LINES or part is element]
    rings = tuple(ring for ring in inside if ring is not None)
    return replace(found, rings=rings, union=True, lost=not rings)


def _name(element: Element) -> str:
    if named := _STRUCTURE.search(element.get("custom", "")):
        return named[1].strip()
    kind = element.tag.removesuffix(_REGION).lower() or "region"
    return element.get("type", "").strip() or kind


def _outline(element: Element) -> npt.NDArray[np.float64] | None:
    """Return an element's outline; None without one of at least three points."""
    coords = element.find("Coords")
    if coords is None:
        return None
    if points := coords.get("points"):
        pairs = [pair.split(",") for pair in points.split()]
    else:  # the standard of 2010
        pairs = [[point.get("x", ""), point.get("y", "")] for point in coords.findall("Point")]
    try:
        return ring([float(value) for pair in pairs for value in pair])
    except ValueError:
        return None


def _text(element: Element) -> str:
    for equivalent in element.findall("TextEquiv"):
        if found := [text for text in texts(equivalent, "Unicode") if text]:
            return found[0]
    return ""
