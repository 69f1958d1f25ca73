"""Annotations of a page from any label format: regions with names, outlines or masks."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.base import CoveredObject
from samonai.domains.coco_masks import draw_whole, encode_rle
from samonai.domains.documents.page import PageLabel
from samonai.domains.outlines import fill_polygons
from samonai.domains.pictures import upright

logger = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class Annotation:
    """One region of a page.

    Attributes:
        name: Name of its class.
        rings: float64 (n, 2) each, corners (x, y) in pixels, edges of the first pixel at 0 and 1;
            a point inside an odd number of them is inside.
        mask: bool (H, W) instead.
        crowd: Several objects in one, which are not trained on.
        text: Text of the region.
        coco: The rings are COCO's: each is filled by itself, by pycocotools' rule, and the region
            is their union.
        union: The region is the union of its rings, each filled by itself.
        identifier: Its id in the file, for messages.
        lost: It has no usable outline, so that it may be anywhere on the page.
    """

    name: str
    rings: tuple[npt.NDArray[np.float64], ...] = ()
    mask: npt.NDArray[np.bool_] | None = None
    crowd: bool = False
    text: str = ""
    coco: bool = False
    union: bool = False
    identifier: str = ""
    lost: bool = False

    def drawn(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return the pixels whose centres are inside, bool (H, W)."""
        if self.mask is not None:
            return self.mask
        if self.coco:
            return draw_whole(self.rings, size)
        # The filling counts from pixel centres.
        if self.union:
            parts = [fill_polygons([ring - 0.5], size) for ring in self.rings]
            return np.asarray(np.logical_or.reduce([np.zeros(size, bool), *parts]))
        return fill_polygons([ring - 0.5 for ring in self.rings], size)

    def scaled(self, x: float, y: float) -> "Annotation":
        """Return the region on a rescaled page; masks cannot be rescaled."""
        return replace(self, rings=tuple(ring * [x, y] for ring in self.rings))


@dataclass(frozen=True)
class PageAnnotations:
    """All regions of one page.

    Attributes:
        size: (H, W) of the coordinates; None if the file has none.
        regions: In the file's order.
    """

    size: tuple[int, int] | None
    regions: tuple[Annotation, ...]


def draw(
    annotations: PageAnnotations,
    size: tuple[int, int],
    values: Mapping[str, int],
    orientation: int = 1,
) -> PageLabel:
    """Draw regions on a page; small ones lie on top of large ones.

    If a region has no usable outline, only the pixels of the other regions are known.

    Args:
        annotations: The regions.
        size: (H, W) of the pixels to draw on.
        values: Class name to label value; regions of other classes are left out.
        orientation: EXIF orientation of these pixels; the label is of the upright page.
    """
    chosen = [one for one in annotations.regions if one.crowd or one.name in values]
    drawn = [
        (region, upright(region.drawn(size), orientation)) for region in chosen if not region.lost
    ]
    shape = upright(np.zeros(size, bool), orientation).shape
    label = np.zeros(shape, np.int32)
    instances = np.zeros(shape, np.int32)
    known = np.full(shape, len(drawn) == len(chosen))
    areas = [int(np.count_nonzero(mask)) for _, mask in drawn]
    for number in sorted(range(len(drawn)), key=lambda n: -areas[n]):
        region, mask = drawn[number]
        if region.crowd:
            known[mask] = False
            continue
        known[mask] = True
        label[mask] = values[region.name]
        instances[mask] = number + 1
    left = np.bincount(instances.ravel(), minlength=len(drawn) + 1)[1:]
    covered = tuple(
        CoveredObject(number, values[region.name], encode_rle(mask))
        for number, (region, mask) in enumerate(drawn, 1)
        if not region.crowd and left[number - 1] < areas[number - 1]
    )
    return PageLabel(label, instances, None if known.all() else known, covered)


def report(path: Path, annotations: PageAnnotations, labelled: PageLabel) -> None:
    """Log which regions of a label file have no place, or lie wholly under others."""
    if lost := [one.identifier or one.name for one in annotations.regions if one.lost]:
        logger.warning(
            "%s: %s: no usable outline; what lies outside the other regions of this page counts "
            "for nothing",
            path,
            ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if lost[_SHOWN:] else ""),
        )
    assert labelled.instances is not None
    seen = set(np.unique(labelled.instances).tolist())
    if hidden := sum(one.number not in seen for one in labelled.covered):
        logger.warning(
            "%s: %d objects lie wholly under others: they count in average precision, and are not "
            "learned from",
            path,
            hidden,
        )


def box_ring(x: float, y: float, width: float, height: float) -> npt.NDArray[np.float64]:
    """Return the outline of a box."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], float)


def ring(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return x0, y0, x1, y1, … as float64 (n, 2).

    Raises:
        ValueError: The values are not pairs of finite numbers, or fewer than three pairs.
    """
    found = np.asarray(values, float).reshape(-1, 2)
    if len(found) < 3 or not np.isfinite(found).all():
        raise ValueError(f"an outline needs at least three points of finite numbers: {values!r}")
    return found
