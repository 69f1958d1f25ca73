"""Label maps of a raster, read by windows: from vector features, mask rasters or arrays."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as FileWindow

from samonai.core.errors import InputError
from samonai.domains.satellite.access import open_raster
from samonai.domains.satellite.crs import format_crs, surface
from samonai.domains.satellite.features import Features, in_raster_crs, to_pixels, transformed
from samonai.domains.satellite.meridian import cylinder
from samonai.domains.satellite.raster import LabelArray, LabelWindow, Raster
from samonai.domains.tiling.tiles import Window

logger = logging.getLogger(__name__)

_LARGEST_CLASS = np.iinfo(np.uint16).max
_GRID_TOLERANCE = 1e-3  # of a pixel
_STEPS = 16  # along the longer side of a mask's outline


@dataclass(frozen=True)
class FeatureLabels:
    """Features drawn on the pixels whose centres they contain; small ones lie on top of large ones.

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
    """A mask raster, reprojected to the image's grid if it has another one (nearest pixel).

    Pixels of a nodata value other than 0, pixels outside its own mask band, and ground that it does
    not cover are unlabelled.

    Attributes:
        path: The file.
        raster: The labelled raster.
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
            InputError: The file cannot be read, or does not hold classes.
        """
        area = FileWindow(window.column, window.row, window.width, window.height)
        with open_raster(self.path, self.any_driver) as dataset:
            if same_grid(dataset, self.raster):
                values = dataset.read(1, window=area)
                masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
                known = dataset.read_masks(1, window=area) != 0 if masked else None
            else:
                values, known = self._warped(dataset, area)
            if dataset.nodata:
                named = ~_equal(values, dataset.nodata)
                known = named if known is None else named & known
        return LabelWindow(self._classes(values, known), known=known)

    def _warped(
        self, dataset: DatasetReader, area: FileWindow
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return values on the raster's grid, and the area covered by the mask, both (H, W)."""
        height, width = self.raster.file_size
        with WarpedVRT(
            dataset,
            crs=self.raster.crs,
            transform=self.raster.geotransform,
            height=height,
            width=width,
            resampling=Resampling.nearest,
            src_nodata=None,
            add_alpha=True,
        ) as warped:
            return warped.read(1, window=area), warped.read(warped.count, window=area) != 0

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
                f"{_LARGEST_CLASS}; map others with --set label_map=STORED:CLASS"
            )
        return label


def check_mask(path: Path, raster: Raster, any_driver: bool = False) -> None:
    """Check that a mask raster can be reprojected to a raster.

    Raises:
        InputError: It has another number of bands, lossy compression, no georeference, or lies
            elsewhere.
    """
    with open_raster(path, any_driver) as dataset:
        if dataset.count != 1:
            raise InputError(f"{path}: a label has one band of classes; this has {dataset.count}")
        _refuse_lossy(dataset, path)
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
        outline = _outline_of(dataset, raster, path)
        whole = shapely.box(0, 0, raster.file_size[1], raster.file_size[0])
        if not shapely.area(shapely.intersection(outline, whole)) > 0:
            raise InputError(f"{path} does not overlap {raster.path}; is its CRS right?")
        if not shapely.covers(shapely.buffer(outline, 1), whole):
            logger.warning(
                "%s does not reach all of %s; ground outside it counts as not labelled",
                path, raster.path,
            )  # fmt: skip


def _outline_of(dataset: DatasetReader, raster: Raster, path: Path) -> Any:
    """Return the outline of a placed mask in pixels of the raster's file."""
    height, width = dataset.height, dataset.width
    outside = shapely.segmentize(shapely.box(0, 0, width, height), max(width, height) / _STEPS)
    outline = transformed(np.array([outside], object), dataset.transform)
    if dataset.crs is not None and dataset.crs != raster.crs:
        _refuse_across_180(dataset, outline[0], raster, path)
        outline = in_raster_crs(outline, CRS.from_wkt(dataset.crs.to_wkt()), raster, path)
    return shapely.make_valid(to_pixels(outline, raster)[0])


def _refuse_across_180(dataset: DatasetReader, outline: Any, raster: Raster, path: Path) -> None:
    """Refuse a mask that spans 180° in its own CRS: GDAL finds only one side of it from another.

    Raises:
        InputError: The mask spans 180°, and the raster has another CRS.
    """
    along = cylinder(dataset.crs)
    if along is None:
        return
    west, _, east, _ = outline.bounds
    if np.abs(along.longitude(np.array([west, east]))).max() > 180 + 1e-9:
        raise InputError(
            f"{path}: a mask that spans 180° in {format_crs(dataset.crs)} cannot be laid onto "
            f"{raster.path} in {format_crs(raster.crs)}; warp it to the image's CRS and grid first"
        )


def _refuse_lossy(dataset: DatasetReader, path: Path) -> None:
    """Refuse masks in lossy compression, which adds wrong class values.

    Raises:
        InputError: The file is JPEG, or a TIFF with such blocks.
    """
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    compression = structure.get("COMPRESSION", "")
    lossy = structure.get("COMPRESSION_REVERSIBILITY", "").upper().startswith("LOSSY")
    if dataset.driver == "JPEG" or "JPEG" in compression.upper() or lossy:
        raise InputError(
            f"{path}: a mask in lossy compression ({compression or dataset.driver}), which "
            f"changes class numbers near borders; export it again as PNG, or TIFF with DEFLATE"
        )


def same_grid(dataset: DatasetReader, raster: Raster) -> bool:
    """Return whether a mask has the raster's pixels.

    A mask without any georeference has them when it has the raster's size. So has one with the
    raster's own geotransform whose CRS is missing, or an engineering CRS: tools that do not know
    a CRS write one of these.
    """
    if (dataset.height, dataset.width) != raster.file_size:
        return False
    if dataset.transform.is_identity:
        return True
    if raster.geotransform is None:
        return False
    untold = any(crs is None or surface(crs).is_plane for crs in (dataset.crs, raster.crs))
    if dataset.crs != raster.crs and not untold:
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
