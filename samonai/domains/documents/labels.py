"""Label reading for pages: COCO, PAGE-XML, ALTO, DocBank, mask pictures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.coco import read_coco
from samonai.domains.documents.formats import docbank
from samonai.domains.documents.formats.alto import read_alto
from samonai.domains.documents.formats.annotations import PageAnnotations, draw, report
from samonai.domains.documents.formats.coco import page_annotations
from samonai.domains.documents.formats.page_xml import read_page_xml
from samonai.domains.documents.page import Page, PageLabel
from samonai.domains.pictures import (
    PICTURE_ENDINGS,
    check_size,
    read_values,
    upright,
)
from samonai.domains.xml import Element, read_xml

logger = logging.getLogger(__name__)

LABEL_ENDINGS = (".xml", *PICTURE_ENDINGS)
"""Endings of files that label one page each; COCO's .json labels many."""

_LARGEST_CLASS = 65535
_TURNED = 5
"""From this EXIF orientation on, rows and columns of the stored pixels are swapped."""
_SAME_SHAPE = 0.01
"""Largest difference in the ratio of sides between a PDF's page and its label."""


@dataclass(frozen=True)
class ClassTable:
    """Class names and their label values.

    Attributes:
        names: Names of the classes 1, 2, …; None: those of each label by itself.
        renamed: Class name of the files to class name here; "" drops it.
    """

    names: tuple[str, ...] | None = None
    renamed: Mapping[str, str] | None = None

    def rename(self, annotations: PageAnnotations) -> PageAnnotations:
        """Return a page's regions under the renamed classes."""
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
    """Return whether a label file is COCO's, by its ending."""
    return path.suffix.lower() == ".json"


def names_in(path: Path) -> list[str]:
    """Return the class names of a label file, in the order of its own numbers if it has any.

    Mask pictures have numbers only, and no names.
    """
    if is_coco(path):
        return [name for _, name in sorted(read_coco(path).names.items())]
    if path.suffix.lower() == ".xml":
        annotations = _read_xml_label(path, None)
        return sorted({region.name for region in annotations.regions})
    return docbank.docbank_names(path) if path.suffix.lower() == docbank.ENDING else []


def label_page(page: Page, path: Path, table: ClassTable, orientation: str = "auto") -> Page:
    """Return a page with its label from a file.

    Args:
        page: The page.
        path: A COCO file, PAGE-XML, ALTO, DocBank's tokens, or a mask picture.
        table: Class names and their values.
        orientation: "upright" or "stored" pixels; "auto": decided by the label's size.

    Raises:
        InputError: The file cannot be read, has no label for the page, or is for another size.
    """
    if path.suffix.lower() in PICTURE_ENDINGS:
        return replace(page, labelled=_mask_label(page, path, orientation))
    if is_coco(path):
        coco = read_coco(path)
        image = coco.image_of(page.path, page.number)
        check_size(path, image.size)
        annotations = page_annotations(coco, image)
    elif path.suffix.lower() == docbank.ENDING:
        annotations = docbank.read_docbank(path, page.size)
    else:
        annotations = _read_xml_label(path, page)
    annotations = table.rename(annotations)
    values = table.values([region.name for region in annotations.regions if not region.crowd])
    drawn = _drawn(page, path, annotations, values, orientation)
    report(path, annotations, drawn)
    return replace(page, labelled=drawn)


def _read_xml_label(path: Path, page: Page | None) -> PageAnnotations:
    """Read PAGE-XML or ALTO; without a page the coordinates may be of any scale."""
    root = read_xml(path)
    if root.tag == "PcGts":
        return read_page_xml(path, root)
    if root.tag == "alto":
        if page is None:
            return read_alto(path, root, dpi=(1.0, 1.0))
        size, dpi = page.size, page.dpi
        if page.orientation >= _TURNED and _lies(root, page.size):
            size, dpi = size[::-1], None if dpi is None else dpi[::-1]
        return read_alto(path, root, size, dpi)
    raise InputError(f"{path}: <{root.tag}> is neither PAGE-XML (<PcGts>) nor ALTO (<alto>)")


def _lies(root: Element, size: tuple[int, int]) -> bool:
    """Return whether an ALTO file's page is landscape and the upright one portrait, or reverse."""
    page = root.find("Layout/Page")
    try:
        assert page is not None
        height, width = float(page.get("HEIGHT", "")), float(page.get("WIDTH", ""))
    except (AssertionError, ValueError):
        return False
    return (height > width) != (size[0] > size[1])


def _drawn(
    page: Page,
    path: Path,
    annotations: PageAnnotations,
    values: Mapping[str, int],
    orientation: str,
) -> PageLabel:
    """Draw regions on the upright page, in whichever orientation they were annotated."""
    size = annotations.size
    if page.points is not None and size is not None and size != page.size:
        y, x = (ours / theirs for ours, theirs in zip(page.size, size, strict=True))
        if abs(x / y - 1) <= _SAME_SHAPE and all(one.mask is None for one in annotations.regions):
            regions = tuple(region.scaled(x, y) for region in annotations.regions)
            return draw(PageAnnotations(page.size, regions), page.size, values)
    if _of_stored_pixels(page, path, size, orientation):
        stored, turn = _stored_size(page), page.orientation
        if orientation == "auto":
            _check_stated_size(page, path, annotations)
    else:
        stored, turn = page.size, 1
        if orientation == "upright" and size == _stored_size(page):
            size = page.size  # Label Studio states the stored size beside upright outlines
    if size is None or size == stored:
        return draw(annotations, stored, values, turn)
    raise InputError(
        f"{path}: for an image of {size[1]} x {size[0]} pixels, but {page.path} has "
        f"{stored[1]} x {stored[0]}"
    )


def _of_stored_pixels(
    page: Page, path: Path, size: tuple[int, int] | None, orientation: str
) -> bool:
    """Return whether a label is for a photograph's stored pixels, not for the upright ones.

    The label's size decides if the orientation swaps the sides; otherwise the setting does.
    """
    if page.orientation == 1:
        return False
    if orientation != "auto":
        return orientation == "stored"
    stored = _stored_size(page)
    if size is None or (size == page.size and size == stored):
        _warn_once(
            path if is_coco(path) else path.parent,
            "%s has EXIF orientation %d, and its size does not tell whether %s labels its stored "
            "or its upright pixels; upright is assumed, and --set label_orientation=stored says "
            "otherwise",
            page,
        )
    return size == stored and size != page.size


def _check_stated_size(page: Page, path: Path, annotations: PageAnnotations) -> None:
    """Refuse outlines that fit the upright page alone, beside the size of the stored pixels.

    Raises:
        InputError: An outline leaves the stored pixels and lies on the upright page.
    """
    reach = [one.max(0)[::-1] for region in annotations.regions for one in region.rings]
    sides = np.max(reach, axis=0) if reach else np.zeros(2)
    height, width = _stored_size(page)
    if (sides > (height + 1, width + 1)).any() and (sides <= np.add(page.size, 1)).all():
        raise InputError(
            f"{path}: states {width} x {height} for {page.path}, the size of its stored pixels, "
            f"but its outlines fit the upright picture of {page.size[1]} x {page.size[0]} alone; "
            f"give --set label_orientation=upright"
        )
    if any(one.mask is None for one in annotations.regions):
        _warn_once(
            path if is_coco(path) else path.parent,
            "%s has EXIF orientation %d, and %s states the size of its stored pixels, for which "
            "its labels are taken; --set label_orientation=upright says otherwise",
            page,
        )


def _stored_size(page: Page) -> tuple[int, int]:
    height, width = page.size
    return (width, height) if page.orientation >= _TURNED else (height, width)


_warned: set[tuple[Path, str]] = set()


def _warn_once(labels: Path, message: str, page: Page) -> None:
    """Warn of the first such photograph of a label file or folder."""
    if (labels, message) in _warned:
        return
    _warned.add((labels, message))
    logger.warning(message, page.path, page.orientation, labels)


def _mask_label(page: Page, path: Path, orientation: str) -> PageLabel:
    values, own = read_values(path)
    if own == 1 and _of_stored_pixels(page, path, values.shape, orientation):
        own = page.orientation
    values = upright(values, own)
    if values.shape != page.size:
        raise InputError(
            f"{path}: {values.shape[1]} x {values.shape[0]} pixels, but {page.path} has "
            f"{page.size[1]} x {page.size[0]}"
        )
    check_classes(path, values)
    return PageLabel(values.astype(np.int32))


def check_classes(path: Path, values: npt.NDArray[np.integer]) -> None:
    """Refuse stored values that are not classes.

    Raises:
        InputError: A value is negative or too large.
    """
    if values.size and (values.min() < 0 or values.max() > _LARGEST_CLASS):
        raise InputError(f"{path}: holds {values.min()} to {values.max()}, which are no classes")


def parse_names(classes: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return class names from a list or "text,title"; None if there are none.

    Raises:
        InputError: A name comes twice or is empty.
    """
    names = classes.split(",") if isinstance(classes, str) else classes
    found = tuple(str(name).strip() for name in names or ())
    if len(set(found)) != len(found) or "" in found[:-1]:
        raise InputError(f"classes={classes!r}: expected different names such as text,title")
    return found or None


def parse_renames(rename: str | Mapping[str, str] | None) -> dict[str, str]:
    """Return renamed classes from a mapping or "MainZone:text,noise:"; no new name drops a class.

    Raises:
        InputError: A part is not a pair.
    """
    if not rename:
        return {}
    if isinstance(rename, Mapping):
        return {str(old): str(new) for old, new in rename.items()}
    pairs = [part.partition(":") for part in rename.split(",")]
    if any(not colon or not old.strip() for old, colon, _ in pairs):
        raise InputError(f"rename={rename!r}: expected pairs such as MainZone:text,noise:")
    return {old.strip(): new.strip() for old, _, new in pairs}
