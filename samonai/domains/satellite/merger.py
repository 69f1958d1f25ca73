"""Merges overlapping tiles while they come: logits blended smoothly, finished rows written away.

A pixel's score for an object is the mean of what the tiles that were asked about the object say
there, weighted by `TileGrid.weights`, which fall towards a tile's border: nothing jumps at a seam.
An object that lies in several tiles is one object: either its prompts carry one id, or the masks
of two tiles agree where the tiles overlap. Tiles come row by row, so all rows above the current
tile are final; they are written to a temporary file and leave memory.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samonai.domains.layers import ClassLayers
from samonai.domains.satellite.prediction import IdWriter, RasterPrediction
from samonai.domains.satellite.raster import Raster
from samonai.domains.tiles import TileGrid, Window
from samonai.frame import Frame
from samonai.prompts import FramePrompts

UNKNOWN_ID = -1
"""The id of an object that may be the same as one of a neighbouring tile."""

_MARGIN = 16  # pixels kept around a mask and its box
_OUTSIDE = -4.0  # logit farther away, where a tile saw nothing of the object
_LIMIT = 20.0  # logits are cut off here: exp(-20) is nothing
_SAME_IOU = 0.5  # of two tiles' masks where the tiles overlap


@dataclass
class _Piece:
    """What one tile says of an object.

    Attributes:
        tile: The tile's number.
        window: The part that is kept.
        logits: float16 (H, W).
    """

    tile: int
    window: Window
    logits: npt.NDArray[np.float16]


@dataclass
class _Object:
    """An object that later tiles may still add to."""

    number: int
    value: int
    pieces: list[_Piece] = field(default_factory=list)


class TileMerger:
    """Merges the scores of a raster's tiles; see the module's text.

    Args:
        raster: The raster.
        grid: Its tiles.
    """

    def __init__(self, raster: Raster, grid: TileGrid) -> None:
        """Start with no tile."""
        self._grid = grid
        self._writer = IdWriter(raster)
        self._objects: dict[int, _Object] = {}
        self._known: dict[int, int] = {}
        self._layers: ClassLayers | None = None

    def add(self, frame: Frame, scores: npt.NDArray[np.float32], prompts: FramePrompts) -> None:
        """Take the scores of one tile; tiles come in ascending order.

        Prompts without ids stand for layers of their class. An id of -1 is an object that is
        looked for among what neighbouring tiles have found.
        """
        tile = frame.location.index
        window = self._grid.window(tile)
        self._flush(window.row)
        if prompts.object_ids is None:
            if self._layers is None:
                self._layers = ClassLayers(self._grid)
            self._layers.add(tile, scores, prompts.classes)
            return
        matched: list[tuple[_Object, _Piece]] = []
        for row, number in enumerate(prompts.object_ids.tolist()):
            value = int(prompts.classes[row])
            piece = _piece(tile, window, scores[row], prompts.boxes[row])
            found = self._find(number, value, piece, window)
            matched.append((found, piece))
        # Only now, so that two objects of one tile never become one through each other.
        for found, piece in matched:
            found.pieces.append(piece)

    def finish(self) -> RasterPrediction:
        """Write the last rows and return the prediction."""
        self._flush(self._grid.size[0], last=True)
        return self._writer.finish()

    def _find(self, number: int, value: int, piece: _Piece, window: Window) -> _Object:
        if number != UNKNOWN_ID:
            if number not in self._known:
                self._known[number] = self._writer.new_object(value)
            own = self._known[number]
            return self._objects.setdefault(own, _Object(own, value))
        same = [
            candidate
            for candidate in self._objects.values()
            if candidate.value == value and self._agrees(candidate, piece, window)
        ]
        if not same:
            own = self._writer.new_object(value)
            return self._objects.setdefault(own, _Object(own, value))
        first = min(same, key=lambda candidate: candidate.number)
        for other in same:
            if other is not first:  # one object that earlier tiles saw as two
                self._writer.join(first.number, other.number)
                first.pieces += other.pieces
                del self._objects[other.number]
        return first

    def _agrees(self, candidate: _Object, piece: _Piece, window: Window) -> bool:
        """Say whether a tile's mask is that of an object, where earlier tiles saw both."""
        for other in candidate.pieces:
            shared = self._grid.window(other.tile).intersection(window)
            if other.tile == piece.tile or shared is None:
                continue
            ours, theirs = _mask(piece, shared), _mask(other, shared)
            union = np.count_nonzero(ours | theirs)
            if union and np.count_nonzero(ours & theirs) >= _SAME_IOU * union:
                return True
        return False

    def _flush(self, until: int, last: bool = False) -> None:
        """Write the rows above `until`, of which no later tile knows anything."""
        for strip in self._writer.strips(until, last):
            if self._layers is not None:
                self._writer.write_classes(strip, *self._layers.take(strip))
            else:
                self._write(strip)
        bottom = self._writer.done
        for number, found in list(self._objects.items()):
            found.pieces = [
                piece for piece in found.pieces if self._grid.window(piece.tile).bottom > bottom
            ]
            if not found.pieces:
                del self._objects[number]

    def _write(self, strip: Window) -> None:
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
        self._writer.write(strip, numbers, best)

    def _blend(self, found: _Object, reach: Window) -> npt.NDArray[np.float32]:
        """Return the weighted mean of all tiles' logits of an object, float32 (H, W)."""
        total = np.zeros((reach.height, reach.width), np.float32)
        weight = np.zeros_like(total)
        for piece in found.pieces:
            tile = self._grid.window(piece.tile)
            shared = tile.intersection(reach)
            if shared is None:
                continue
            rows, columns = self._grid.weights(piece.tile)
            inside = shared.within(tile)
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
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    kept: Window | None = None
    if len(rows):
        kept = Window(
            int(rows[0]),
            int(columns[0]),
            int(rows[-1] - rows[0]) + 1,
            int(columns[-1] - columns[0]) + 1,
        )
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
    return _Piece(tile, placed, logits)


def _mask(piece: _Piece, area: Window) -> npt.NDArray[np.bool_]:
    mask = np.zeros((area.height, area.width), bool)
    kept = piece.window.intersection(area)
    if kept is not None:
        mask[kept.within(area)] = piece.logits[kept.within(piece.window)] > 0
    return mask


def _reach(found: _Object, strip: Window) -> Window | None:
    """Return where in a strip an object may be: where any tile kept something of it."""
    reach: Window | None = None
    for piece in found.pieces:
        part = piece.window.intersection(strip)
        if part is not None:
            reach = part if reach is None else reach.union(part)
    return reach
