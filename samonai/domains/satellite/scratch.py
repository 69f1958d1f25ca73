"""Temporary raster that is written from top to bottom and read by windows."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
from rasterio.windows import Window as FileWindow

from samonai.domains.satellite.access import environment, one_line
from samonai.domains.tiling.tiles import Window

BLOCK = 512
"""Side of the blocks of written rasters."""

_FILE = "values.tif"


class ScratchRaster:
    """One band on disk, in a folder that is removed with its last user.

    Args:
        size: (H, W) in pixels.
        dtype: Type of the values.

    Attributes:
        done: Rows that are written.
    """

    def __init__(self, size: tuple[int, int], dtype: str) -> None:
        """Open the file."""
        folder = Path(tempfile.mkdtemp(prefix="samonai-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.size, self.done = size, 0
        self._path = folder / _FILE
        # Our own file. Disabling the network for it would disable it for concurrently read rasters.
        with environment(any_driver=True), one_line(self._path):
            self._dataset = rasterio.open(
                self._path,
                "w",
                driver="GTiff",
                height=size[0],
                width=size[1],
                count=1,
                dtype=dtype,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                compress="deflate",
                zlevel=1,
                bigtiff="if_safer",
                sparse_ok=True,
            )

    def strips(self, until: int, last: bool) -> Iterator[Window]:
        """Yield whole rows of blocks above `until`, finally the rest; each must be written."""
        height, width = self.size
        while self.done < until and (last or until - self.done >= BLOCK):
            yield Window(self.done, 0, min(BLOCK, height - self.done), width)

    def write(self, strip: Window, values: npt.NDArray[Any]) -> None:
        """Write the next rows; zeros take no space."""
        if values.any():
            window = FileWindow(strip.column, strip.row, strip.width, strip.height)
            with environment(any_driver=True), one_line(self._path):
                self._dataset.write(values, 1, window=window)
        self.done = strip.bottom

    def close(self) -> None:
        """Finish writing; only then it can be read."""
        with environment(any_driver=True), one_line(self._path):
            self._dataset.close()

    def read(self, part: Window) -> npt.NDArray[Any]:
        """Read a window, (H, W)."""
        window = FileWindow(part.column, part.row, part.width, part.height)
        with environment(any_driver=True), rasterio.open(self._path) as dataset:
            values: npt.NDArray[Any] = dataset.read(1, window=window)
            return values
