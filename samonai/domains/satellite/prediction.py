"""Predictions of a raster on disk: an object number per pixel, with class and score by object."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.scratch import ScratchRaster
from samonai.domains.tiling.object_merging import ObjectTable
from samonai.domains.tiling.tiles import Window

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)


@dataclass(frozen=True)
class RasterPrediction:
    """Predicted objects of a raster; pixels are read by windows.

    Attributes:
        raster: The raster.
        classes: int64 (N,), label value of object n + 1.
        scores: float64 (N,), 0..1: mean confidence of the tiles, if they gave one; else the
            mean probability of its pixels.
        areas: int64 (N,), its number of pixels.
    """

    raster: Raster
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]
    _numbers: npt.NDArray[np.int32]
    _stored: ScratchRaster

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W) in pixels."""
        return self.raster.size

    def instances(self, part: Window | None = None) -> npt.NDArray[np.int32]:
        """Read int32 (H, W): the number of the object at each pixel, from 1; 0 is none."""
        return self._numbers[self._stored.read(part or Window(0, 0, *self.size))]

    def label(self, part: Window | None = None) -> npt.NDArray[np.int32]:
        """Read int32 (H, W): the class at each pixel, 0 is background."""
        values = np.concatenate([[0], self.classes]).astype(np.int32)
        return values[self.instances(part)]


class IdWriter:
    """Writes object numbers from top to bottom, and keeps the table of objects.

    Two numbers may be joined after their first rows were written: the table records it, and
    the prediction has one number for both.

    Args:
        raster: The raster; nothing is written where it has nodata.

    Attributes:
        table: The objects.
    """

    def __init__(self, raster: Raster) -> None:
        """Open the temporary file."""
        self._raster = raster
        self._stored = ScratchRaster(raster.size, "int32")
        self.strips = self._stored.strips
        self.table = ObjectTable()
        self._sums = np.zeros(1)
        self._areas = np.zeros(1, np.int64)
        self._last_classes: npt.NDArray[np.int32] | None = None
        self._last_numbers: npt.NDArray[np.int32] | None = None

    def write(
        self, strip: Window, numbers: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
    ) -> None:
        """Write the next rows.

        Args:
            strip: A window of `strips`.
            numbers: int32 (H, W), numbers of objects.
            scores: float32 (H, W), logits.
        """
        numbers = np.where(self._raster.valid(strip), numbers, 0) if numbers.any() else numbers
        found = numbers > 0
        if found.any():
            here, count = numbers[found], len(self.table)
            probabilities = 1 / (1 + np.exp(-scores[found].astype(float)))
            more = count - len(self._areas)
            self._areas = np.pad(self._areas, (0, more)) + np.bincount(here, minlength=count)
            sums = np.bincount(here, weights=probabilities, minlength=count)
            self._sums = np.pad(self._sums, (0, more)) + sums
        self._stored.write(strip, numbers)

    def write_classes(
        self, strip: Window, label: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
    ) -> None:
        """Write the next rows of a class map; connected pixels of a class are one object."""
        label = np.where(self._raster.valid(strip), label, 0) if label.any() else label
        numbers = np.zeros(label.shape, np.int32)
        for value in np.unique(label[label > 0]).tolist():
            parts, count = ndimage.label(label == value, _EVERY_NEIGHBOUR)
            own = np.array([0, *(self.table.new_object(value) for _ in range(count))], np.int32)
            numbers += own[parts]
        if self._last_classes is not None and self._last_numbers is not None:
            self._join_rows(label[0], numbers[0])
        self._last_classes, self._last_numbers = label[-1], numbers[-1]
        self.write(strip, numbers, scores)

    def finish(self) -> RasterPrediction:
        """Close the file and return the prediction; objects are numbered without gaps."""
        self._stored.close()
        count, roots = len(self.table), self.table.roots()
        more = count - len(self._areas)
        areas = np.bincount(roots, weights=np.pad(self._areas, (0, more)), minlength=count)
        sums = np.bincount(roots, weights=np.pad(self._sums, (0, more)), minlength=count)
        there = np.flatnonzero(areas)
        new = np.zeros(count, np.int32)
        new[there] = np.arange(1, len(there) + 1)
        said = self.table.confidences()[there]
        return RasterPrediction(
            raster=self._raster,
            classes=np.array(self.table.values, np.int64)[there],
            scores=np.where(np.isnan(said), sums[there] / areas[there], said),
            areas=areas[there].astype(np.int64),
            _numbers=new[roots],
            _stored=self._stored,
        )

    def _join_rows(self, classes: npt.NDArray[np.int32], numbers: npt.NDArray[np.int32]) -> None:
        """Join objects that touch across the border to the rows written before, or at a corner."""
        assert self._last_classes is not None
        assert self._last_numbers is not None
        width = len(classes)
        for shift in (-1, 0, 1):
            here = slice(max(shift, 0), width + min(shift, 0))
            above = slice(max(-shift, 0), width + min(-shift, 0))
            same = (classes[here] == self._last_classes[above]) & (classes[here] > 0)
            pairs = np.column_stack([self._last_numbers[above][same], numbers[here][same]])
            for first, second in np.unique(pairs, axis=0).tolist():
                self.table.join(first, second)
