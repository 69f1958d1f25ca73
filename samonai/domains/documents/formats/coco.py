"""COCO annotations: PubLayNet and DocLayNet as published, and any COCO set of photographs."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from samonai.core.errors import InputError
from samonai.domains.documents.formats.annotations import (
    Annotation,
    PageAnnotations,
    box_ring,
    ring,
)


@dataclass(frozen=True)
class CocoImage:
    """One image entry.

    Attributes:
        name: `file_name`, relative to the folder of images.
        size: (H, W).
        page: Number of the page in the file, from 1.
        document: What the page was taken from (DocLayNet's `doc_name`), or None.
        rows: Its annotations, as they stand in the file.
    """

    name: str
    size: tuple[int, int]
    page: int
    document: str | None
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class CocoFile:
    """A file of annotations.

    Attributes:
        path: The file.
        names: Category id to name.
        images: In the file's order.
    """

    path: Path
    names: dict[int, str]
    images: tuple[CocoImage, ...]

    @cached_property
    def by_name(self) -> dict[str, list[CocoImage]]:
        """Return the images by the last part of their names."""
        named: dict[str, list[CocoImage]] = defaultdict(list)
        for image in self.images:
            named[PurePosixPath(image.name).name].append(image)
        return named

    def annotations(self, image: CocoImage) -> PageAnnotations:
        """Return the regions of an image.

        Raises:
            InputError: A segmentation cannot be read, or is of another size.
        """
        try:
            regions = tuple(self._region(row, image.size) for row in image.rows)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{self.path}: annotations of {image.name}: {error}") from error
        return PageAnnotations(image.size, regions)

    def _region(self, row: dict[str, Any], size: tuple[int, int]) -> Annotation:
        name, crowd = self.names[int(row["category_id"])], bool(row.get("iscrowd"))
        segmentation = row.get("segmentation")
        if not segmentation:
            x, y, width, height = (float(value) for value in row["bbox"])
            return Annotation(name, (box_ring(x, y, width, height),), crowd=crowd)
        if isinstance(segmentation, dict):
            return Annotation(name, mask=decode_rle(segmentation, size), crowd=crowd)
        # A part with fewer than three points has no inside; such parts stand in published sets.
        rings = tuple(ring(part) for part in segmentation if len(part) >= 6)
        if len(rings) == 1:
            return Annotation(name, rings, crowd=crowd)
        # The parts of one object may overlap, which is no hole.
        parts = [Annotation(name, (part,)).drawn(size) for part in rings]
        mask = np.logical_or.reduce([np.zeros(size, bool), *parts])
        return Annotation(name, mask=mask, crowd=crowd)


def decode_rle(segmentation: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode run lengths, compressed or not, to bool (H, W).

    Raises:
        ValueError: They are for another size.
    """
    stated = tuple(int(side) for side in segmentation["size"])
    if stated != size:
        raise ValueError(f"run lengths for {list(stated)}, the image has {list(size)}")
    if isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != size[0] * size[1]:
            raise ValueError(f"run lengths do not add up to {size[0]} x {size[1]} pixels")
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    return np.asarray(coco_mask.decode(segmentation), bool)


def encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Encode bool (H, W) as compressed run lengths, as JSON values."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def read_coco(path: Path) -> CocoFile:
    """Read a file of annotations; read once while it does not change.

    Raises:
        InputError: It is not COCO, or its parts contradict each other.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=2)
def _read(path: Path, _: int) -> CocoFile:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise InputError(f"{path}: not COCO; expected images, annotations and categories")
    try:
        return _parsed(path, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: these COCO annotations cannot be read: {error!r}") from error


def _parsed(path: Path, content: dict[str, Any]) -> CocoFile:
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in content["annotations"]:
        if int(row["category_id"]) not in names:
            raise InputError(f"{path}: category {row['category_id']} is used and not defined")
        rows[row["image_id"]].append(row)
    ids = {image["id"] for image in content["images"]}
    if strays := [number for number in rows if number not in ids]:
        raise InputError(f"{path}: annotations of image {strays[0]!r}, which is not listed")
    images = [
        CocoImage(
            name=_relative(path, str(image["file_name"])),
            size=(int(image["height"]), int(image["width"])),
            page=int(image.get("page_no") or 1) if _is_pdf(image["file_name"]) else 1,
            document=str(image["doc_name"]) if image.get("doc_name") else None,
            rows=tuple(rows[image["id"]]),
        )
        for image in content["images"]
    ]
    return CocoFile(path, names, tuple(images))


def _is_pdf(name: str) -> bool:
    # DocLayNet's `page_no` says where a page was taken from, not where it lies in its PNG.
    return str(name).lower().endswith((".pdf", ".tif", ".tiff"))


def _relative(path: Path, name: str) -> str:
    """Return a file name that stays in the folder of images.

    Raises:
        InputError: It does not.
    """
    found = PurePosixPath(name.replace("\\", "/"))
    if found.is_absolute() or ".." in found.parts:
        raise InputError(f"{path}: file name {name!r} points outside the folder of images")
    return str(found)
