"""Streaming merge of overlapping tiles: finished rows are written to disk and leave memory.

Tiles come row by row, so all rows above the current tile are final; they go to a temporary file.
"""

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.domains.satellite.prediction import IdWriter, RasterPrediction
from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.scratch import ScratchRaster
from samonai.domains.tiling.classes import ClassLayers
from samonai.domains.tiling.object_merging import ObjectLayers
from samonai.domains.tiling.tiles import Tiles
from samonai.prompts.frame_prompts import FramePrompts

_DIGITS = 3


class TileMerger:
    """Merges the scores of a raster's tiles; see `Merger`.

    Prompts without object ids are layers of their class, prompts with one an object.

    Args:
        raster: The raster.
        grid: Its tiles.
    """

    def __init__(self, raster: Raster, grid: Tiles) -> None:
        """Start with no tile."""
        self._grid = grid
        self._writer = IdWriter(raster)
        self._objects = ObjectLayers(grid, self._writer.table)
        self._layers: ClassLayers | None = None

    def add(
        self,
        frame: Frame,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add the scores of one tile."""
        tile = frame.location.index
        window = self._grid.window(tile)
        self._flush(window.row)
        # A frame may be larger than its tile, see `scale`.
        scores = scores[:, *window.shown]
        if prompts.object_ids is None:
            if self._layers is None:
                self._layers = ClassLayers(self._grid)
            self._layers.add(tile, scores, prompts.classes)
        else:
            self._objects.add(tile, scores, prompts, confidence)

    def finish(self) -> RasterPrediction:
        """Write the last rows and return the prediction."""
        self._flush(self._grid.size[0], last=True)
        return self._writer.finish()

    def _flush(self, until: int, last: bool = False) -> None:
        """Write the rows above `until`, which no later tile changes."""
        for strip in self._writer.strips(until, last):
            if self._layers is not None:
                self._writer.write_classes(strip, *self._layers.take(strip))
            else:
                self._writer.write(strip, *self._objects.take(strip))


class TileMaps:
    """Blends values of a raster's tiles, 0 and above; see `MapMerger`.

    Args:
        grid: The raster's tiles.
    """

    def __init__(self, grid: Tiles) -> None:
        """Start with no tile."""
        self._grid, self._layers = grid, ClassLayers(grid)
        self._stored = ScratchRaster(grid.size, "float32")

    def add(self, frame: Frame, values: npt.NDArray[np.float32]) -> None:
        """Add the values of one tile."""
        tile = frame.location.index
        window = self._grid.window(tile)
        self._flush(window.row)
        values = values[window.shown]
        self._layers.add(tile, values[None], np.ones(1, np.int64))

    def finish(self) -> ScratchRaster:
        """Write the last rows and return the map."""
        self._flush(self._grid.size[0], last=True)
        self._stored.close()
        return self._stored

    def _flush(self, until: int, last: bool = False) -> None:
        for strip in self._stored.strips(until, last):
            _, values = self._layers.take(strip)
            # Meaningless digits would not compress.
            self._stored.write(strip, values.round(_DIGITS))
