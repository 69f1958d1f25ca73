"""Merges the pieces of a page: logits blended where they overlap, then one region per object."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonai.domains.documents.page import Page
from samonai.domains.documents.prediction import PagePrediction, from_label, numbered
from samonai.domains.layers import ClassLayers
from samonai.domains.tiles import TileGrid, Window
from samonai.frame import Frame
from samonai.prompts import FramePrompts

_OUTSIDE = -4.0  # logit where a piece was not asked about an object that others were
_MARGIN = 8  # pixels kept around a mask


@dataclass
class _Part:
    """What one piece says of an object: logits float32 (H, W), and where on the page."""

    piece: int
    window: Window
    logits: npt.NDArray[np.float32]


class PageMerger:
    """Takes the pieces of a page in order; see `Merger`.

    Prompts without object ids stand for layers of their class, prompts with one for an object.

    Args:
        page: The page.
        grid: Its pieces.
    """

    def __init__(self, page: Page, grid: TileGrid) -> None:
        """Start with no piece."""
        self._page, self._grid = page, grid
        self._layers: ClassLayers | None = None
        self._label = np.zeros(page.size, np.int32)
        self._best = np.zeros(page.size, np.float32)
        self._done = 0
        self._objects: dict[int, tuple[int, list[_Part]]] = {}

    def add(self, frame: Frame, scores: npt.NDArray[np.float32], prompts: FramePrompts) -> None:
        """Take the scores of one piece."""
        piece = frame.location.index
        window = self._grid.window(piece)
        if prompts.object_ids is None:
            self._layers = self._layers or ClassLayers(self._grid)
            self._take(window.row)
            self._layers.add(piece, scores, prompts.classes)
            return
        numbers = prompts.object_ids.tolist()
        for row, (number, value) in enumerate(zip(numbers, prompts.classes.tolist(), strict=True)):
            _, parts = self._objects.setdefault(number, (value, []))
            parts.append(_cropped(piece, window, scores[row]))

    def finish(self) -> PagePrediction:
        """Return the page's regions."""
        if self._layers is not None:
            self._take(self._page.size[0])
            return from_label(self._page, self._label, self._best)
        instances = np.zeros(self._page.size, np.int32)
        for number, (_, parts) in enumerate(self._objects.values(), 1):
            window, logits = self._blend(parts)
            wins = logits > self._best[window.slices]
            instances[window.slices][wins] = number
            self._best[window.slices][wins] = logits[wins]
        values = [value for value, _ in self._objects.values()]
        label = np.array([0, *values], np.int32)[instances]
        return numbered(self._page, label, instances, values, self._best)

    def _take(self, until: int) -> None:
        """Keep the rows above `until`, of which no later piece knows anything."""
        if self._layers is not None and until > self._done:
            strip = Window(self._done, 0, until - self._done, self._page.size[1])
            self._label[strip.slices], self._best[strip.slices] = self._layers.take(strip)
            self._done = until

    def _blend(self, parts: list[_Part]) -> tuple[Window, npt.NDArray[np.float32]]:
        """Return where an object may be, and the weighted mean of all pieces' logits there."""
        reach = parts[0].window
        for part in parts[1:]:
            reach = reach.union(part.window)
        total = np.zeros((reach.height, reach.width), np.float32)
        weight = np.zeros_like(total)
        for part in parts:
            piece = self._grid.window(part.piece)
            shared = piece.intersection(reach)
            assert shared is not None
            rows, columns = self._grid.weights(part.piece)
            inside = shared.within(piece)
            own = rows[inside[0], None] * columns[inside[1]]
            said = np.full(own.shape, _OUTSIDE, np.float32)
            said[part.window.within(shared)] = part.logits
            weight[shared.within(reach)] += own
            total[shared.within(reach)] += own * said
        return reach, np.divide(total, weight, out=np.full_like(total, _OUTSIDE), where=weight > 0)


def _cropped(piece: int, window: Window, scores: npt.NDArray[np.float32]) -> _Part:
    """Keep the logits around a mask."""
    rows, columns = np.flatnonzero((scores > 0).any(1)), np.flatnonzero((scores > 0).any(0))
    kept = Window(0, 0, 1, 1)
    if len(rows):
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        kept = Window(int(rows[0]), int(columns[0]), height, width)
    kept = kept.grown(_MARGIN).intersection(Window(0, 0, *scores.shape)) or kept
    placed = Window(kept.row + window.row, kept.column + window.column, kept.height, kept.width)
    return _Part(piece, placed, scores[kept.slices].copy())
