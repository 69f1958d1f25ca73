"""COCO annotations as features: polygons, and run lengths through pycocotools."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes

from samonai.core.errors import InputError
from samonai.domains.satellite.raster import Raster

Found = tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]


def read_coco(path: Path) -> dict[str, Any] | None:
    """Return a JSON file's content when it is COCO annotations, else None."""
    if path.suffix.lower() != ".json":
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    found = isinstance(content, dict) and {"images", "annotations"} <= set(content)
    return content if found else None


def coco_features(
    content: dict[str, Any], path: Path, raster: Raster, *, boxes: bool = False
) -> Found:
    """Return the annotations of a raster, whose file name the images are found by.

    Args:
        content: What the file holds.
        path: The file, for messages.
        raster: The raster; segmentations are in its pixels.
        boxes: Whether a box will do where an annotation has no outline.

    Returns:
        shapely geometries (N,) in pixels of the file, and int64 (N,) label values.

    Raises:
        InputError: The file does not name the raster, or something in it cannot be read.
    """
    try:
        return _features(content, path, raster, boxes)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: these COCO annotations cannot be read: {error!r}") from error


def _features(content: dict[str, Any], path: Path, raster: Raster, boxes: bool) -> Found:
    images = [
        image
        for image in content["images"]
        if Path(str(image["file_name"])).stem == raster.path.stem
    ]
    if not images:
        raise InputError(f"{path} names no image {raster.path.name}")
    known = {int(category["id"]) for category in content.get("categories", [])}
    geometries, classes = [], []
    for annotation in content["annotations"]:
        if annotation["image_id"] != images[0]["id"] or annotation.get("iscrowd"):
            continue
        value = int(annotation["category_id"])
        if value < 1 or (known and value not in known):
            raise InputError(f"{path}: category {value} is not known, or not above 0")
        if outline := annotation.get("segmentation"):
            geometry = _geometry(outline, raster.file_size)
        elif boxes:
            x, y, width, height = map(float, annotation["bbox"])
            geometry = shapely.box(x, y, x + width, y + height)
        else:
            raise InputError(
                f"{path} has an annotation of {raster.path.name} without an outline; boxes can "
                f"prompt (--boxes), but are no labels"
            )
        if not geometry.is_empty:
            geometries.append(geometry)
            classes.append(value)
    return np.array(geometries, object), np.array(classes, np.int64)


def coco_names(content: dict[str, Any]) -> dict[int, str]:
    """Return category id to name."""
    return {
        int(category["id"]): str(category["name"]) for category in content.get("categories", [])
    }


def _geometry(segmentation: Any, size: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        rings = [np.asarray(ring, float).reshape(-1, 2) for ring in segmentation]
        return shapely.make_valid(
            shapely.union_all([shapely.Polygon(ring) for ring in rings if len(ring) > 2])
        )
    mask = _decode(segmentation, size)
    outlines = shapes(mask, mask=mask > 0, connectivity=4)
    return shapely.union_all([shapely.geometry.shape(outline) for outline, _ in outlines])


def _decode(segmentation: dict[str, Any], size: tuple[int, int]) -> Any:
    from pycocotools import mask as coco

    if tuple(segmentation["size"]) != size:
        raise ValueError(f"size {segmentation['size']}, the raster has {list(size)}")
    if isinstance(segmentation["counts"], list):
        segmentation = coco.frPyObjects(segmentation, *size)
    with warnings.catch_warnings():
        # Its arrays do not know NumPy 2's way of being copied, and are copied all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.decode(segmentation)
