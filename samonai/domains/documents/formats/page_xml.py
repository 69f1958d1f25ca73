"""PAGE-XML (PRImA) labels: the regions of a page, with their text."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.formats.annotations import Annotation, PageAnnotations, ring
from samonai.domains.documents.formats.xml import Element, read_xml, texts

_REGION = "Region"
# Where Transkribus, OCR-D and we write what a region is called beyond the schema's types.
_STRUCTURE = re.compile(r"structure\s*\{[^}]*type:\s*([^;}]+)")


def read_page_xml(path: Path, root: Element | None = None) -> PageAnnotations:
    """Read the regions of a PAGE file, those inside others too.

    A region is called by its structure in `custom`, else by its `type` ("paragraph", "heading"),
    else by its kind in lower case ("table", "graphic", "separator").

    Raises:
        InputError: It is not PAGE-XML, or an outline cannot be read.
    """
    root = read_xml(path) if root is None else root
    page = root.find("Page")
    if root.tag != "PcGts" or page is None:
        raise InputError(f"{path}: not PAGE-XML; expected <PcGts> with a <Page>")
    try:
        size = int(page.get("imageHeight", "")), int(page.get("imageWidth", ""))
        # A region's parents come first, so that nested ones lie on top where sizes agree.
        regions = tuple(
            Annotation(_name(element), (_outline(element),), text=_text(element))
            for element in page.iter()
            if element.tag.endswith(_REGION) and element.find("Coords") is not None
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: this PAGE-XML cannot be read: {error}") from error
    return PageAnnotations(size, regions)


def _name(element: Element) -> str:
    if named := _STRUCTURE.search(element.get("custom", "")):
        return named[1].strip()
    kind = element.tag.removesuffix(_REGION).lower() or "region"
    return element.get("type", "").strip() or kind


def _outline(element: Element) -> npt.NDArray[np.float64]:
    coords = element.find("Coords")
    assert coords is not None
    if points := coords.get("points"):
        pairs = [pair.split(",") for pair in points.split()]
    else:  # the standard of 2010
        pairs = [[point.get("x", ""), point.get("y", "")] for point in coords.findall("Point")]
    return ring([float(value) for pair in pairs for value in pair])


def _text(element: Element) -> str:
    for equivalent in element.findall("TextEquiv"):
        if found := [text for text in texts(equivalent, "Unicode") if text]:
            return found[0]
    return ""
