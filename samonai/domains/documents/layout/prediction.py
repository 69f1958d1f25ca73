"""Predicted regions of a page, in reading order."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.domains.coco_masks import encode_rle
from samonai.domains.documents.layout.reading_order import reading_order
from samonai.domains.documents.page import Page
from samonai.domains.documents.text.words import Box, Word, text_of, words_in

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)
SPECK = 1e-4
"""Least size of a region, as a share of the page's pixels."""


@dataclass(frozen=True)
class Region:
    """One region of a page.

    Attributes:
        number: Its number in the page's reading order, from 1.
        value: Label value of its class.
        name: Name of its class.
        score: Mean probability of its pixels, 0..1.
        box: xyxy in pixels of the page, upper ends exclusive.
        mask: bool (H, W), on the page.
        words: Words in the region.
        asked: Number of its prompt, from 1; None: found without a prompt.
    """

    number: int
    value: int
    name: str
    score: float
    box: Box
    mask: npt.NDArray[np.bool_]
    words: tuple[Word, ...] = ()
    asked: int | None = None

    @property
    def text(self) -> str:
        """Return its words as lines."""
        return text_of(self.words)

    @cached_property
    def rle(self) -> dict[str, Any]:
        """Return its mask as COCO's compressed run lengths, cached for repeated queries."""
        return encode_rle(self.mask)


@dataclass(frozen=True)
class PagePrediction:
    """A predicted page.

    Attributes:
        page: The page.
        label: int32 (H, W), class per pixel, 0 is background.
        instances: int32 (H, W), number of the region at each pixel, 0 is none. Pixels of a class
            in groups too small for a region have none.
        classes: int64 (N,), label value of region n + 1.
        scores: float64 (N,), 0..1: the score of the engine, if it gave one; else the mean
            probability of its pixels.
        asked: Number of the prompt of region n + 1; empty: without prompts.
    """

    page: Page
    label: npt.NDArray[np.int32]
    instances: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    asked: tuple[int, ...] = ()

    def regions(
        self, names: Mapping[int, str] | None = None, *, with_text: bool = False
    ) -> list[Region]:
        """Return the regions in reading order.

        Args:
            names: Label value to class name.
            with_text: Give each the words whose centre lies in it.
        """
        asked = tuple((names or {}).items()), with_text
        if asked not in self._known:
            self._known[asked] = self._regions(names or {}, with_text)
        return list(self._known[asked])

    def _regions(self, names: Mapping[int, str], with_text: bool) -> list[Region]:
        words = self.page.text if with_text else ()
        regions = []
        for place, (number, box, mask) in enumerate(self._placed, 1):
            value = int(self.classes[number - 1])
            regions.append(
                Region(
                    number=place,
                    value=value,
                    name=names.get(value, f"class_{value}"),
                    score=float(self.scores[number - 1]),
                    box=box,
                    mask=mask,
                    words=tuple(words_in(words, mask)),
                    asked=self.asked[number - 1] if self.asked else None,
                )
            )
        return regions

    @cached_property
    def _known(self) -> dict[Any, list[Region]]:
        """Return the cached regions."""
        return {}

    @cached_property
    def _placed(self) -> list[tuple[int, Box, npt.NDArray[np.bool_]]]:
        """Return number, box and mask of each region in reading order, cached."""
        found = [
            (number, _box(where))
            for number, where in enumerate(ndimage.find_objects(self.instances), 1)
            if where is not None
        ]
        order = reading_order([box for _, box in found])
        return [(*found[row], self.instances == found[row][0]) for row in order]


def from_label(
    page: Page, label: npt.NDArray[np.integer], scores: npt.NDArray[np.float32] | None = None
) -> PagePrediction:
    """Convert a label map to regions: connected pixels of a class are one, specks are dropped.

    Args:
        page: The page.
        label: integer (H, W), class per pixel.
        scores: float32 (H, W), logit of that class; None: probability 1.
    """
    instances = np.zeros(label.shape, np.int32)
    classes: list[int] = []
    speck = SPECK * label.size
    for value in np.unique(label[label > 0]).tolist():
        parts, count = ndimage.label(label == value, _EVERY_NEIGHBOUR)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        kept = np.flatnonzero(sizes[1:] >= speck) + 1
        numbers = np.zeros(count + 1, np.int32)
        numbers[kept] = len(classes) + 1 + np.arange(len(kept))
        instances += numbers[parts]
        classes += [value] * len(kept)
    return numbered(page, np.asarray(label, np.int32), instances, classes, scores)


def numbered(
    page: Page,
    label: npt.NDArray[np.int32],
    instances: npt.NDArray[np.int32],
    classes: list[int],
    scores: npt.NDArray[np.float32] | None,
    said: npt.NDArray[np.float64] | None = None,
) -> PagePrediction:
    """Return a prediction with the score of each region: from `said`, else its mean probability."""
    rows = np.arange(1, len(classes) + 1)
    if scores is None or not len(rows):
        means = np.ones(len(rows))
    else:
        probabilities = 1 / (1 + np.exp(-np.clip(scores, -50, 50).astype(np.float64)))
        means = np.nan_to_num(ndimage.mean(probabilities, instances, rows))
    if said is not None:
        means = np.where(np.isnan(said), means, said)
    return PagePrediction(page, label, instances, np.array(classes, np.int64), np.asarray(means))


def _box(where: tuple[slice, slice]) -> Box:
    rows, columns = where
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
