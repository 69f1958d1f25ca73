"""Label maps of a raster, read by windows: from vector features, mask rasters or arrays."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as FileWindow

from samonai.core.errors import InputError
from samonai.domains.satellite.access import open_raster
from samonai.domains.satellite.features import Features
from samonai.domains.satellite.raster import LabelArray, LabelWindow, Raster, format_crs
from samonai.domains.tiling.tiles import Window

_LARGEST_CLASS = np.iinfo(np.uint16).max
_GRID_TOLERANCE = 1e-3  # of a pixel


@dataclass(frozen=True)
class FeatureLabels:
    """Features drawn on the pixels whose centres they hold; small ones lie on top of large ones.

    Attributes:
        features: In pixels of the whole file.
        keep_instances: Whether each feature is an object of its own.
    """

    features: Features
    keep_instances: bool = True

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.features.geometries)

    def read(self, window: Window) -> LabelWindow:
        """Draw a window."""
        shape = window.height, window.width
        box = shapely.box(window.column, window.row, window.right, window.bottom)
        rows = np.sort(self._tree.query(box))
        numbers = np.zeros(shape, np.int32)
        if len(rows):
            geometries = self.features.geometries[rows]
            # Stable, so that equal ones keep the file's order in every window.
            order = np.argsort(-shapely.area(geometries), kind="stable")
            rasterize(
                ((geometries[n], int(rows[n]) + 1) for n in order),
                out=numbers,
                transform=Affine.translation(window.column, window.row),
            )
        classes = np.concatenate([[0], self.features.classes]).astype(np.int32)
        return LabelWindow(classes[numbers], numbers if self.keep_instances else None)

    def hash(self) -> str:
        """Return the sha256 of geometries and classes."""
        digest = hashlib.sha256(repr(self.keep_instances).encode())
        for geometry in shapely.to_wkb(self.features.geometries):
            digest.update(geometry)
        digest.update(self.features.classes.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class ArrayLabels:
    """A label map in memory, on the grid of a part of the file.

    Attributes:
        part: The part of the file that the arrays cover.
        label: integer (H, W), class per pixel.
        instances: integer (H, W), or None.
    """

    part: Window
    label: npt.NDArray[np.integer]
    instances: npt.NDArray[np.integer] | None = None

    def read(self, window: Window) -> LabelWindow:
        """Cut a window out."""
        part = window.within(self.part)
        instances = None if self.instances is None else self.instances[part].astype(np.int32)
        return LabelWindow(self.label[part].astype(np.int32), instances)

    def hash(self) -> str:
        """Return the sha256 of the arrays."""
        digest = hashlib.sha256(repr((self.part, self.instances is None)).encode())
        for array in (self.label, self.instances):
            if array is not None:
                digest.update(np.ascontiguousarray(array, np.int32).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class MaskLabels:
    """A mask raster, brought onto the image's grid where it lies on another (nearest pixel).

    A nodata value other than 0 marks pixels that the label says nothing about.

    Attributes:
        path: The file.
        raster: The raster that it labels.
        label_map: Stored value to class.
        any_driver: See `open_raster`.
    """

    path: Path
    raster: Raster
    label_map: Mapping[int, int] = field(default_factory=dict)
    any_driver: bool = False

    def read(self, window: Window) -> LabelWindow:
        """Read a window.

        Raises:
            InputError: The file cannot be read, or holds no classes.
        """
        area = FileWindow(window.column, window.row, window.width, window.height)
        with open_raster(self.path, self.any_driver) as dataset:
            nodata = dataset.nodata
            if same_grid(dataset, self.raster):
                values = dataset.read(1, window=area)
            else:
                with WarpedVRT(
                    dataset,
                    crs=self.raster.crs,
                    transform=self.raster.geotransform,
                    height=self.raster.file_size[0],
                    width=self.raster.file_size[1],
                    resampling=Resampling.nearest,
                    nodata=0 if nodata is None else nodata,
                ) as warped:
                    values = warped.read(1, window=area)
        known = None if not nodata else ~_equal(values, nodata)
        return LabelWindow(self._classes(values, known), known=known)

    def hash(self) -> str:
        """Return the sha256 of the label map on the raster's grid."""
        digest = hashlib.sha256()
        whole = Window(0, 0, *self.raster.file_size)
        for strip in self.raster.strips() if self.raster.window == whole else [self.raster.window]:
            read = self.read(strip)
            digest.update(np.ascontiguousarray(read.label).tobytes())
            if read.known is not None:
                digest.update(np.packbits(read.known).tobytes())
        return digest.hexdigest()

    def _classes(
        self, values: npt.NDArray[np.generic], known: npt.NDArray[np.bool_] | None
    ) -> LabelArray:
        if known is not None:
            values = np.where(known, values, 0)
        if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
            raise InputError(f"{self.path}: holds fractions; expected whole numbers as classes")
        label: LabelArray = values.astype(np.int32)
        if self.label_map:
            found, inverse = np.unique(label, return_inverse=True)
            mapped = [self.label_map.get(int(value), int(value)) for value in found]
            label = np.array(mapped, np.int32)[inverse].reshape(label.shape)
        if label.size and (label.min() < 0 or label.max() > _LARGEST_CLASS):
            raise InputError(
                f"{self.path}: holds {label.min()} to {label.max()}; expected classes 0 to "
                f"{_LARGEST_CLASS}; map others with label_map=STORED:CLASS"
            )
        return label


def check_mask(path: Path, raster: Raster, any_driver: bool = False) -> None:
    """Make sure that a mask raster can be laid onto a raster.

    Raises:
        InputError: It has another number of bands, no georeference, or lies elsewhere.
    """
    with open_raster(path, any_driver) as dataset:
        if dataset.count != 1:
            raise InputError(f"{path}: a label has one band of classes; this has {dataset.count}")
        if same_grid(dataset, raster):
            return
        placed = not dataset.transform.is_identity
        if placed != (raster.geotransform is not None) or (dataset.crs is None) != (
            raster.crs is None
        ):
            raise InputError(
                f"{path} ({dataset.height} x {dataset.width} pixels, {format_crs(dataset.crs)}) "
                f"cannot be laid onto {raster.path} ({raster.file_size[0]} x "
                f"{raster.file_size[1]}, {format_crs(raster.crs)}): one side has no georeference"
            )
        if not placed:
            raise InputError(
                f"{path}: {dataset.height} x {dataset.width} pixels, but {raster.path} has "
                f"{raster.file_size[0]} x {raster.file_size[1]}, and neither says where it lies"
            )
        corners = [(0, 0), (dataset.width, 0), (0, dataset.height), (dataset.width, dataset.height)]
        xs, ys = zip(*(dataset.transform @ corner for corner in corners), strict=True)
        if dataset.crs is not None:
            xs, ys = rasterio.warp.transform(dataset.crs, raster.crs, xs, ys)[:2]
        inverse = ~(raster.geotransform or Affine.identity())
        columns, rows = zip(*(inverse @ at for at in zip(xs, ys, strict=True)), strict=True)
        height, width = raster.file_size
        if min(columns) >= width or min(rows) >= height or max(columns) <= 0 or max(rows) <= 0:
            raise InputError(f"{path} does not overlap {raster.path}; is its CRS right?")


def same_grid(dataset: rasterio.io.DatasetReader, raster: Raster) -> bool:
    """Say whether a mask has the raster's pixels.

    A mask without any georeference has them when it has the raster's size.
    """
    if (dataset.height, dataset.width) != raster.file_size:
        return False
    if dataset.transform.is_identity:
        return True
    if raster.geotransform is None or dataset.crs != raster.crs:
        return False
    drift = ~raster.geotransform @ dataset.transform
    height, width = raster.file_size
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    moved = np.array([drift @ tuple(corner) for corner in corners])
    return bool(np.abs(moved - corners).max() < _GRID_TOLERANCE)


def _equal(values: npt.NDArray[np.generic], nodata: float) -> npt.NDArray[np.bool_]:
    if nodata != nodata:
        return np.isnan(values.astype(float))
    return np.asarray(values == nodata)
