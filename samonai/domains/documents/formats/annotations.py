"""What label files say of a page, before it is drawn: regions with names, outlines or masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.documents.page import PageLabel
from samonai.domains.outlines import fill_polygons


@dataclass(frozen=True)
class Annotation:
    """One region of a page.

    Attributes:
        name: Its class.
        rings: float64 (n, 2) each, corners (x, y) in pixels, edges of the first pixel at 0 and 1;
            a point inside an odd number of them is inside.
        mask: bool (H, W) instead.
        crowd: Several objects in one, which nothing is learned from.
        text: What it reads.
    """

    name: str
    rings: tuple[npt.NDArray[np.float64], ...] = ()
    mask: npt.NDArray[np.bool_] | None = None
    crowd: bool = False
    text: str = ""

    def drawn(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return the pixels whose centres are inside, bool (H, W)."""
        if self.mask is not None:
            return self.mask
        # The filling counts from pixel centres.
        return fill_polygons([ring - 0.5 for ring in self.rings], size)

    def scaled(self, x: float, y: float) -> "Annotation":
        """Return the region on a page drawn larger or smaller."""
        return replace(self, rings=tuple(ring * [x, y] for ring in self.rings))


@dataclass(frozen=True)
class PageAnnotations:
    """All regions of one page.

    Attributes:
        size: (H, W) that the coordinates are for; None where the file does not tell.
        regions: In the file's order.
    """

    size: tuple[int, int] | None
    regions: tuple[Annotation, ...]


def draw(
    annotations: PageAnnotations, size: tuple[int, int], values: Mapping[str, int]
) -> PageLabel:
    """Draw regions on a page; small ones lie on top of large ones.

    Args:
        annotations: The regions.
        size: (H, W) of the page.
        values: Class name to label value; regions of other classes are left out.
    """
    label = np.zeros(size, np.int32)
    instances = np.zeros(size, np.int32)
    known = np.ones(size, bool)
    drawn = [
        (region, region.drawn(size))
        for region in annotations.regions
        if region.crowd or region.name in values
    ]
    order = sorted(range(len(drawn)), key=lambda n: -int(np.count_nonzero(drawn[n][1])))
    for number in order:
        region, mask = drawn[number]
        if region.crowd:
            known[mask] = False
            continue
        known[mask] = True
        label[mask] = values[region.name]
        instances[mask] = number + 1
    return PageLabel(label, instances, None if known.all() else known)


def box_ring(x: float, y: float, width: float, height: float) -> npt.NDArray[np.float64]:
    """Return the outline of a box."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], float)


def ring(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return x0, y0, x1, y1, … as float64 (n, 2).

    Raises:
        ValueError: They are no pairs of finite numbers, or fewer than three.
    """
    found = np.asarray(values, float).reshape(-1, 2)
    if len(found) < 3 or not np.isfinite(found).all():
        raise ValueError(f"an outline needs at least three points of finite numbers: {values!r}")
    return found
