"""Merging of a page's pieces: logits blended where they overlap, then one region per object."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.domains.documents.layout.prediction import SPECK, PagePrediction, from_label, numbered
from samonai.domains.documents.page import Page
from samonai.domains.tiling.classes import ClassLayers
from samonai.domains.tiling.object_merging import ObjectLayers, ObjectTable
from samonai.domains.tiling.tiles import TileGrid, Window
from samonai.prompts.frame_prompts import UNKNOWN_ID, FramePrompts


class PageMerger:
    """Merges the pieces of a page in order; see `Merger`.

    Prompts without object ids are layers of their class, prompts with one an object.
    Specks without a prompt are dropped.

    Args:
        page: The page.
        grid: Its pieces.
    """

    def __init__(self, page: Page, grid: TileGrid) -> None:
        """Start without pieces."""
        self._page, self._grid = page, grid
        self._layers: ClassLayers | None = None
        self._label = np.zeros(page.size, np.int32)
        self._best = np.zeros(page.size, np.float32)
        self._done = 0
        self._table = ObjectTable()
        self._objects = ObjectLayers(grid, self._table)
        self._asked: list[int] = []

    def add(
        self,
        frame: Frame,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add the scores of one piece."""
        piece = frame.location.index
        if prompts.object_ids is None:
            self._layers = self._layers or ClassLayers(self._grid)
            self._take(self._grid.window(piece).row)
            self._layers.add(piece, scores, prompts.classes)
        else:
            ids = prompts.object_ids.tolist()
            self._asked += [number for number in ids if number not in self._asked]
            self._objects.add(piece, scores, prompts, confidence)

    def finish(self) -> PagePrediction:
        """Return the page's regions."""
        if self._layers is not None:
            self._take(self._page.size[0])
            return from_label(self._page, self._label, self._best)
        whole, best = self._objects.take(Window(0, 0, *self._page.size))
        roots = self._table.roots()
        kept = np.unique(roots[1:])
        # The table numbers objects as they come; objects without a prompt have no number.
        asked = [] if UNKNOWN_ID in self._asked else self._asked
        if not asked:
            sizes = np.bincount(roots[whole].ravel(), minlength=len(roots))
            kept = kept[sizes[kept] >= SPECK * whole.size]
        places = np.zeros(len(roots), np.int32)
        places[kept] = np.arange(1, len(kept) + 1)
        values = np.array(self._table.values, np.int32)
        label, instances = values[whole], places[roots][whole]
        said = self._table.confidences()[kept]
        found = numbered(self._page, label, instances, values[kept].tolist(), best, said)
        return replace(found, asked=tuple(asked[number - 1] for number in kept) if asked else ())

    def _take(self, until: int) -> None:
        """Keep the rows above `until`, which no later piece changes."""
        if self._layers is not None and until > self._done:
            strip = Window(self._done, 0, until - self._done, self._page.size[1])
            self._label[strip.slices], self._best[strip.slices] = self._layers.take(strip)
            self._done = until
