"""COCO annotations as vector features in pixels of a raster."""

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import shapes

from samonai.core.errors import InputError
from samonai.domains.coco import CocoFile, CocoObject, coco_in
from samonai.domains.satellite.raster import Raster
from samonai.prompts.values import PromptFile, PromptValues

Found = tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]


def read_coco(path: PromptFile) -> CocoFile | None:
    """Return the annotations in a JSON file, or None for other JSON."""
    is_json = isinstance(path, PromptValues) or path.suffix.lower() == ".json"
    return coco_in(path) if is_json else None


def coco_features(coco: CocoFile, raster: Raster, *, boxes: bool = False) -> Found:
    """Return the annotations of a raster, found by its file name.

    An outline is drawn by pycocotools' rule and returned along the edges of the drawn pixels.

    Args:
        coco: The annotation file.
        raster: The raster; segmentations are in its pixels.
        boxes: Whether a box is enough for an annotation without an outline.

    Returns:
        shapely geometries (N,) in pixels of the file, and int64 (N,) label values.

    Raises:
        InputError: The file lacks the raster, has it several times, states another
            size, or an annotation cannot be read.
    """
    image = coco.image_of(raster.path, other_endings=True)
    if image.size != raster.file_size:
        raise InputError(
            f"{coco.path}: {image.name} is said to have {image.size[1]} x {image.size[0]} pixels, "
            f"but {raster.path} has {raster.file_size[1]} x {raster.file_size[0]}"
        )
    geometries, classes = [], []
    for one in coco.objects(image):
        if one.crowd:
            continue
        if one.category < 1:
            raise InputError(
                f"{coco.path}: category {one.category} ({one.name}) of {image.name}; 0 is the "
                f"background, expected categories from 1"
            )
        if not one.outlined and not boxes:
            raise InputError(
                f"{coco.path} has an annotation of {raster.path.name} without an outline; boxes "
                f"can prompt (--boxes), but are no labels"
            )
        geometry = _geometry(one)
        if geometry.is_empty and boxes and one.rings:
            # It contains no pixel, but has a position.
            geometry = shapely.box(*np.concatenate(one.rings).min(0), *_last(one))
        if not geometry.is_empty:
            geometries.append(geometry)
            classes.append(one.category)
    return np.array(geometries, object), np.array(classes, np.int64)


def _geometry(one: CocoObject) -> Any:
    (row, column), part = one.part()
    if not part.any():
        return shapely.Polygon()
    values = part.astype(np.uint8)
    place = Affine.translation(column, row)
    outlines = shapes(values, mask=part, connectivity=4, transform=place)
    return shapely.union_all([shapely.geometry.shape(outline) for outline, _ in outlines])


def _last(one: CocoObject) -> npt.NDArray[np.float64]:
    corners: npt.NDArray[np.float64] = np.concatenate(one.rings).max(0)
    return corners
