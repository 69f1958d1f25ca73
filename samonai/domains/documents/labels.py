"""Labels of pages from whatever holds them: COCO, PAGE-XML, ALTO, DocBank, mask pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.documents.formats import docbank
from samonai.domains.documents.formats.alto import read_alto
from samonai.domains.documents.formats.annotations import PageAnnotations, draw
from samonai.domains.documents.formats.coco import read_coco
from samonai.domains.documents.formats.page_xml import read_page_xml
from samonai.domains.documents.formats.pictures import PICTURE_ENDINGS, read_values, upright
from samonai.domains.documents.formats.xml import read_xml
from samonai.domains.documents.page import Page, PageLabel

LABEL_ENDINGS = (".xml", *PICTURE_ENDINGS)
"""Files that label one page each; COCO's .json labels many."""

_LARGEST_CLASS = 65535
_SAME_SHAPE = 0.01
"""Sides of a PDF's page may differ by so much from what its label's sides say of their ratio."""


@dataclass(frozen=True)
class ClassTable:
    """Which class names have which values.

    Attributes:
        names: Names of the classes 1, 2, …; None: those of each label by themselves.
        renamed: What the files call a class to what it is called here; "" drops it.
    """

    names: tuple[str, ...] | None = None
    renamed: Mapping[str, str] | None = None

    def rename(self, annotations: PageAnnotations) -> PageAnnotations:
        """Return a page's regions under the names used here."""
        renamed = self.renamed or {}
        regions = [
            replace(region, name=renamed.get(region.name, region.name))
            for region in annotations.regions
        ]
        return PageAnnotations(annotations.size, tuple(r for r in regions if r.name or r.crowd))

    def values(self, found: Sequence[str]) -> dict[str, int]:
        """Return name to label value; names that are not in the table have none."""
        names = tuple(sorted(set(found))) if self.names is None else self.names
        return {name: value for value, name in enumerate(names, 1)}


def is_coco(path: Path) -> bool:
    """Say whether a label file's ending is COCO's."""
    return path.suffix.lower() == ".json"


def names_in(path: Path) -> list[str]:
    """Return the class names that a label file has, in the order of its own numbers if it has any.

    Mask pictures have numbers only, and give none.
    """
    if is_coco(path):
        return [name for _, name in sorted(read_coco(path).names.items())]
    if path.suffix.lower() == ".xml":
        annotations = _read_xml_label(path, dpi=1.0)
        return sorted({region.name for region in annotations.regions})
    return docbank.docbank_names(path) if path.suffix.lower() == docbank.ENDING else []


def label_page(page: Page, path: Path, table: ClassTable) -> Page:
    """Return a page with the label that a file holds for it.

    Args:
        page: The page.
        path: A COCO file, PAGE-XML, ALTO, DocBank's tokens, or a mask picture.
        table: Class names and their values.

    Raises:
        InputError: The file cannot be read, has nothing on the page, or is for another size.
    """
    if path.suffix.lower() in PICTURE_ENDINGS:
        return replace(page, labelled=_mask_label(page, path))
    if is_coco(path):
        annotations = _coco_annotations(page, path)
    elif path.suffix.lower() == docbank.ENDING:
        annotations = docbank.read_docbank(path, page.size)
    else:
        annotations = _read_xml_label(path, None if page.dpi is None else page.dpi[0])
    annotations = table.rename(annotations)
    values = table.values([region.name for region in annotations.regions if not region.crowd])
    return replace(page, labelled=_drawn(page, path, annotations, values))


def _coco_annotations(page: Page, path: Path) -> PageAnnotations:
    coco = read_coco(path)
    named = [i for i in coco.by_name.get(page.path.name, ()) if i.page == page.number]
    # Images of several folders may share a name.
    place = "/" + page.path.resolve().as_posix()
    exact = [image for image in named if place.endswith("/" + image.name)]
    found = exact or named
    if len(found) != 1:
        raise InputError(f"{path} names {len(found)} images {page.path.name}; expected one")
    return coco.annotations(found[0])


def _read_xml_label(path: Path, dpi: float | None) -> PageAnnotations:
    root = read_xml(path)
    if root.tag == "PcGts":
        return read_page_xml(path, root)
    if root.tag == "alto":
        return read_alto(path, root, dpi)
    raise InputError(f"{path}: <{root.tag}> is neither PAGE-XML (<PcGts>) nor ALTO (<alto>)")


def _drawn(
    page: Page, path: Path, annotations: PageAnnotations, values: Mapping[str, int]
) -> PageLabel:
    """Draw regions on the upright page, whichever way up they were annotated."""
    size = annotations.size
    if size is None or size == page.size:
        return draw(annotations, page.size, values)
    if page.points is not None:
        y, x = (ours / theirs for ours, theirs in zip(page.size, size, strict=True))
        if abs(x / y - 1) <= _SAME_SHAPE:
            masks = any(region.mask is not None for region in annotations.regions)
            if not masks:
                regions = tuple(region.scaled(x, y) for region in annotations.regions)
                return draw(PageAnnotations(page.size, regions), page.size, values)
    if page.orientation >= 5 and size == page.size[::-1]:
        drawn = draw(annotations, size, values)
        arrays = (drawn.label, drawn.instances, drawn.known)
        turned = [None if a is None else upright(a, page.orientation) for a in arrays]
        assert turned[0] is not None
        return PageLabel(turned[0], turned[1], turned[2])
    raise InputError(
        f"{path}: for an image of {size[1]} x {size[0]} pixels, but {page.path} has "
        f"{page.size[1]} x {page.size[0]}"
    )


def _mask_label(page: Page, path: Path) -> PageLabel:
    values, orientation = read_values(path)
    values = upright(values, orientation)
    if values.shape != page.size and page.orientation >= 5 and values.shape == page.size[::-1]:
        values = upright(values, page.orientation)
    if values.shape != page.size:
        raise InputError(
            f"{path}: {values.shape[1]} x {values.shape[0]} pixels, but {page.path} has "
            f"{page.size[1]} x {page.size[0]}"
        )
    check_classes(path, values)
    return PageLabel(values.astype(np.int32))


def check_classes(path: Path, values: npt.NDArray[np.integer]) -> None:
    """Refuse stored values that are no classes.

    Raises:
        InputError: One is negative or too large.
    """
    if values.size and (values.min() < 0 or values.max() > _LARGEST_CLASS):
        raise InputError(f"{path}: holds {values.min()} to {values.max()}, which are no classes")
