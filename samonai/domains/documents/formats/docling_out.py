"""DoclingDocument writing (docling-core) of a page's regions."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page

_LABELS = {
    "title": "section_header",
    "heading": "section_header",
    "section": "section_header",
    "section-header": "section_header",
    "list": "list_item",
    "list-item": "list_item",
    "caption": "caption",
    "footnote": "footnote",
    "formula": "formula",
    "equation": "formula",
    "header": "page_header",
    "page-header": "page_header",
    "footer": "page_footer",
    "page-footer": "page_footer",
    "page-number": "page_footer",
}
_FURNITURE = ("page_header", "page_footer")
"""Labels that docling leaves out of the body text."""

_PICTURES = ("figure", "image", "picture", "graphic", "chart", "illustration")


def write_docling(page: Page, regions: Sequence[Region], path: Path) -> Path:
    """Write a page's regions with their text; boxes in points of a PDF's page, else in pixels.

    Args:
        page: The page.
        regions: In reading order.
        path: The file.

    Raises:
        InputError: docling-core is not installed.
    """
    try:
        # Its modules do not mark their re-exports as exported.
        docling: Any = import_module("docling_core.types.doc")
    except ImportError as error:
        raise InputError(
            "DoclingDocument needs docling-core: pip install 'samonai[docling]'"
        ) from error
    document = docling.DoclingDocument(name=page.source_id)
    height, width = page.points or page.size
    scale = height / page.size[0]
    document.add_page(page_no=page.number, size=docling.Size(width=width, height=height))
    for region in regions:
        x0, y0, x1, y1 = (value * scale for value in region.box)
        box = docling.BoundingBox(l=x0, t=y0, r=x1, b=y1, coord_origin=docling.CoordOrigin.TOPLEFT)
        place = docling.ProvenanceItem(
            page_no=page.number,
            bbox=box.to_bottom_left_origin(height),
            charspan=(0, len(region.text)),
        )
        name = region.name.lower()
        if name == "table":
            document.add_table(data=docling.TableData(num_rows=0, num_cols=0), prov=place)
        elif name in _PICTURES:
            document.add_picture(prov=place)
        else:
            label = docling.DocItemLabel(_LABELS.get(name, "text"))
            _add_text(document, docling, label, region.text.replace("\n", " "), place)
    with write_atomically(path) as temporary:
        text = json.dumps(document.export_to_dict(), ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _add_text(document: Any, docling: Any, label: Any, text: str, place: Any) -> None:
    layers = docling.ContentLayer
    layer = layers.FURNITURE if label.value in _FURNITURE else layers.BODY
    if label.value == "section_header":
        document.add_heading(text=text, prov=place)
    elif label.value == "list_item":
        document.add_list_item(text=text, prov=place, parent=document.add_list_group())
    else:
        document.add_text(label=label, text=text, prov=place, content_layer=layer)
