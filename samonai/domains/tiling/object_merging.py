"""Merging of objects across overlapping tiles: blended logits, one number per object.

A pixel's score for an object is the mean over the tiles that found the object, weighted by
`Tiles.weights`, which fall towards a tile's border: nothing jumps at a seam. An
object in several tiles is one object if its prompts have one id, or if the masks of
two tiles agree in their overlap.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samonai.core.frame import mask_box
from samonai.domains.tiling.tiles import Tiles, Window
from samonai.prompts.frame_prompts import UNKNOWN_ID, FramePrompts

_MARGIN = 16  # pixels kept around a mask and its box
_OUTSIDE = -4.0  # logit farther away, outside of the kept window
_LIMIT = 20.0  # logits are clipped: exp(-20) is negligible
_SAME_IOU = 0.5  # of two tiles' masks where the tiles overlap


class ObjectTable:
    """Table of object numbers from 1 and their classes; numbers of one object can be joined.

    Attributes:
        values: Label value of each number; 0 for number 0, which is no object.
    """

    def __init__(self) -> None:
        """Start without objects."""
        self.values = [0]
        self._parent = [0]
        self._confidence = [0.0]
        self._rated = [0]

    def __len__(self) -> int:
        """Return the highest number plus one."""
        return len(self.values)

    def new_object(self, value: int) -> int:
        """Return the number of a new object of a class."""
        self.values.append(value)
        self._parent.append(len(self._parent))
        self._confidence.append(0.0)
        self._rated.append(0)
        return len(self.values) - 1

    def rate(self, number: int, confidence: float) -> None:
        """Add one tile's confidence of an object, 0..1."""
        self._confidence[number] += confidence
        self._rated[number] += 1

    def join(self, first: int, second: int) -> None:
        """Join two numbers of one object."""
        first, second = self.root(first), self.root(second)
        self._parent[max(first, second)] = min(first, second)

    def root(self, number: int) -> int:
        """Return the lowest number of the same object."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def roots(self) -> npt.NDArray[np.int64]:
        """Return int64 (N,): the root of each number."""
        return np.array([self.root(number) for number in range(len(self))])

    def confidences(self) -> npt.NDArray[np.float64]:
        """Return float64 (N,), the mean over tiles at each root; NaN without any confidence."""
        roots, count = self.roots(), len(self)
        sums = np.bincount(roots, weights=self._confidence, minlength=count)
        rated = np.bincount(roots, weights=self._rated, minlength=count)
        return np.divide(sums, rated, out=np.full(count, np.nan), where=rated > 0)


@dataclass
class _Piece:
    """The logits of one object in one tile.

    Attributes:
        tile: The tile's number.
        frame: The tile.
        window: The kept part of the tile.
        logits: float16 (H, W).
    """

    tile: int
    frame: Window
    window: Window
    logits: npt.NDArray[np.float16]


@dataclass
class _Object:
    """An object that later tiles may extend."""

    number: int
    value: int
    pieces: list[_Piece] = field(default_factory=list)


class ObjectLayers:
    """Object logits of tiles over the rows not yet written.

    Args:
        grid: The tiles.
        table: Table of the objects.
    """

    def __init__(self, grid: Tiles, table: ObjectTable) -> None:
        """Start with no tile."""
        self._grid, self._table = grid, table
        self._objects: dict[int, _Object] = {}
        self._known: dict[int, int] = {}
        self._seen: dict[int, list[tuple[int, _Piece]]] = {}

    def add(
        self,
        tile: int,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add the logits of a tile; tiles come in ascending order, possibly in several calls.

        Args:
            tile: The tile's number.
            scores: float32 (N, H, W), logits.
            prompts: N prompts with ids. An object with `UNKNOWN_ID` is matched with those of
                neighbouring tiles.
            confidence: float (N,), 0..1; None: derived from the scores.
        """
        assert prompts.object_ids is not None
        window = self._grid.window(tile)
        around = [other for other in self._grid.touching(window) if other != tile]
        for row, number in enumerate(prompts.object_ids.tolist()):
            piece = _piece(tile, window, scores[row], prompts.boxes[row])
            found = self._find(number, int(prompts.classes[row]), piece, around)
            found.pieces.append(piece)
            self._seen.setdefault(tile, []).append((found.number, piece))
            if confidence is not None:
                self._table.rate(found.number, float(confidence[row]))

    def take(self, strip: Window) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return number and score at each pixel of a strip, int32 and float32 (H, W).

        Objects that end above the strip's bottom are removed.
        """
        best = np.zeros((strip.height, strip.width), np.float32)
        numbers = np.zeros((strip.height, strip.width), np.int32)
        for found in self._objects.values():
            reach = _reach(found, strip)
            if reach is None:
                continue
            score = self._blend(found, reach)
            part = reach.within(strip)
            wins = score > best[part]
            best[part][wins] = score[wins]
            numbers[part][wins] = found.number
        self._forget(strip.bottom)
        return numbers, best

    def _forget(self, bottom: int) -> None:
        """Remove the tiles that end above a row, and the objects without any other tile."""
        for tile in [t for t, seen in self._seen.items() if seen[0][1].frame.bottom <= bottom]:
            del self._seen[tile]
        for number, found in list(self._objects.items()):
            found.pieces = [piece for piece in found.pieces if piece.frame.bottom > bottom]
            if not found.pieces:
                del self._objects[number]

    def _find(self, number: int, value: int, piece: _Piece, around: list[int]) -> _Object:
        if number != UNKNOWN_ID:
            if number not in self._known:
                self._known[number] = self._table.new_object(value)
            own = self._known[number]
            return self._objects.setdefault(own, _Object(own, value))
        same = {
            self._table.root(other)
            for tile in around
            for other, theirs in self._seen.get(tile, ())
            if self._table.values[other] == value and _agree(piece, theirs)
        }
        if not same:
            own = self._table.new_object(value)
            return self._objects.setdefault(own, _Object(own, value))
        first = self._objects[min(same)]
        for own in same - {first.number}:  # one object that was two in earlier tiles
            self._table.join(first.number, own)
            first.pieces += self._objects.pop(own).pieces
        return first

    def _blend(self, found: _Object, reach: Window) -> npt.NDArray[np.float32]:
        """Return the weighted mean of all tiles' logits of an object, float32 (H, W)."""
        total = np.zeros((reach.height, reach.width), np.float32)
        weight = np.zeros_like(total)
        for piece in found.pieces:
            shared = piece.frame.intersection(reach)
            if shared is None:
                continue
            rows, columns = self._grid.weights(piece.tile)
            inside = shared.within(piece.frame)
            own = rows[inside[0], None] * columns[inside[1]]
            part = shared.within(reach)
            weight[part] += own
            total[part] += own * _OUTSIDE
            kept = piece.window.intersection(reach)
            if kept is not None:
                weights = own[kept.within(shared)]
                logits = piece.logits[kept.within(piece.window)].astype(np.float32)
                total[kept.within(reach)] += weights * (logits - _OUTSIDE)
        return np.divide(total, weight, out=np.full_like(total, _OUTSIDE), where=weight > 0)


def _piece(
    tile: int, window: Window, scores: npt.NDArray[np.float32], box: npt.NDArray[np.float32]
) -> _Piece:
    """Keep a tile's logits around the mask and its box."""
    inside = scores > 0
    kept: Window | None = None
    if (around := mask_box(inside)) is not None:
        left, top, right, bottom = around
        kept = Window(top, left, bottom - top, right - left)
    if np.isfinite(box).all():
        x0, y0 = np.floor(box[:2]).astype(int).tolist()
        x1, y1 = np.ceil(box[2:]).astype(int).tolist()
        boxed = Window(y0, x0, max(y1 - y0, 1), max(x1 - x0, 1))
        kept = boxed if kept is None else kept.union(boxed)
    frame = Window(0, 0, *scores.shape)
    kept = (kept or Window(0, 0, 1, 1)).grown(_MARGIN).intersection(frame)
    assert kept is not None
    logits = np.clip(scores[kept.slices], -_LIMIT, _LIMIT).astype(np.float16)
    placed = Window(kept.row + window.row, kept.column + window.column, kept.height, kept.width)
    return _Piece(tile, window, placed, logits)


def _agree(one: _Piece, other: _Piece) -> bool:
    """Return whether two tiles' masks are one object, judged in the tiles' overlap."""
    if one.window.intersection(other.window) is None:
        return False
    shared = one.frame.intersection(other.frame)
    assert shared is not None
    ours, theirs = _mask(one, shared), _mask(other, shared)
    union = np.count_nonzero(ours | theirs)
    return bool(union and np.count_nonzero(ours & theirs) >= _SAME_IOU * union)


def _mask(piece: _Piece, area: Window) -> npt.NDArray[np.bool_]:
    mask = np.zeros((area.height, area.width), bool)
    kept = piece.window.intersection(area)
    if kept is not None:
        mask[kept.within(area)] = piece.logits[kept.within(piece.window)] > 0
    return mask


def _reach(found: _Object, strip: Window) -> Window | None:
    """Return the window of a strip that an object may cover: the union of its kept parts."""
    reach: Window | None = None
    for piece in found.pieces:
        part = piece.window.intersection(strip)
        if part is not None:
            reach = part if reach is None else reach.union(part)
    return reach
