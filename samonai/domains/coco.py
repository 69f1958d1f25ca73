"""COCO annotation files: validated images, categories and objects, for pages and rasters."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.coco_masks import draw_part, read_run_lengths, runs_to_mask
from samonai.prompts.values import PromptFile, PromptValues

logger = logging.getLogger(__name__)

_LEAST_VALUES = 6  # x and y of three points
_FARTHEST = 8
"""Limit of outlines beyond the image, in its sides; farther ones are errors."""
_LARGEST_SIDE = 1 << 24


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        name: Name of its category.
        category: Id of its category.
        crowd: Whether it stands for several objects.
        size: (H, W) of its image.
        rings: float64 (n, 2) each, outlines as COCO counts them; the object is their union.
        counts: int64 (N,), run lengths instead of outlines.
        outlined: Whether the file has an outline or mask and not only a box.
    """

    name: str
    category: int
    crowd: bool
    size: tuple[int, int]
    rings: tuple[npt.NDArray[np.float64], ...] = ()
    counts: npt.NDArray[np.int64] | None = None
    outlined: bool = True

    def part(self) -> tuple[tuple[int, int], npt.NDArray[np.bool_]]:
        """Return (row, column) of a part of the image, and the object's pixels there, bool."""
        if self.counts is not None:
            return (0, 0), runs_to_mask(self.counts, self.size)
        return draw_part(self.rings, self.size)


@dataclass(frozen=True)
class CocoImage:
    """One image entry.

    Attributes:
        name: `file_name`, relative to the folder of images.
        size: (H, W).
        page: Number of the page in the file, from 1.
        document: Document of the page (DocLayNet's `doc_name`), or None.
        rows: Its annotations, as in the file.
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
    names: Mapping[int, str]
    images: tuple[CocoImage, ...]

    @cached_property
    def _by_name(self) -> dict[str, list[CocoImage]]:
        named: dict[str, list[CocoImage]] = defaultdict(list)
        for image in self.images:
            named[PurePosixPath(image.name).name].append(image)
        return named

    def image_of(self, path: Path, page: int = 1, *, other_endings: bool = False) -> CocoImage:
        """Return the entry of a picture: by its folders and name, else by its name alone.

        Args:
            path: The picture.
            page: Number of its page, from 1.
            other_endings: Accept an entry whose name differs in its ending if there is no other.

        Raises:
            InputError: The file has no entry of this name, or several.
        """
        named = [image for image in self._by_name.get(path.name, ()) if image.page == page]
        place = "/" + path.resolve().as_posix()
        # Images of several folders may share a name.
        exact = [image for image in named if place.endswith("/" + image.name)]
        if len(exact) > 1:  # "p.png" beside "val/p.png"
            longest = max(len(image.name) for image in exact)
            exact = [image for image in exact if len(image.name) == longest]
        found = exact or named
        if not found and other_endings:
            found = [i for i in self.images if PurePosixPath(i.name).stem == path.stem]
        if len(found) != 1:
            number = f"{len(found)} images" if found else "no image"
            raise InputError(f"{self.path} names {number} {path.name}; expected one")
        return found[0]

    def objects(self, image: CocoImage) -> tuple[CocoObject, ...]:
        """Return the objects of an image in the file's order, without those of zero area.

        Raises:
            InputError: An object cannot be read, or is for another image size.
        """
        found = [self._object(row, image) for row in image.rows]
        return tuple(one for one in found if one is not None)

    def _object(self, row: dict[str, Any], image: CocoImage) -> CocoObject | None:
        try:
            category = _identifier(row["category_id"])
            assert isinstance(category, int)
            crowd = bool(int(row.get("iscrowd") or 0))
            one = self.names[category], category, crowd, image.size
            segmentation = row.get("segmentation")
            if isinstance(segmentation, dict):
                return CocoObject(*one, counts=read_run_lengths(segmentation, image.size))
            rings = _rings(segmentation, image.size) if segmentation else ()
            outlined = bool(segmentation) and any(map(len, _flat(segmentation)))
            rings = rings or _box(row.get("bbox"), image.size)
            return CocoObject(*one, rings=rings, outlined=outlined) if rings else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            which = f"annotation {row['id']!r} of " if "id" in row else "an annotation of "
            raise InputError(f"{self.path}: {which}{image.name}: {_reason(error)}") from error


def read_coco(path: Path) -> CocoFile:
    """Read a file of annotations; cached until it changes.

    Raises:
        InputError: The file is not COCO, or its parts contradict each other.
    """
    found = coco_in(path)
    if found is None:
        raise InputError(f"{path}: not COCO; expected images, annotations and categories")
    return found


def coco_in(path: PromptFile) -> CocoFile | None:
    """Read COCO annotations, of a file or its content; None where it is other JSON.

    Raises:
        InputError: The file is not JSON, or is COCO with contradictions.
    """
    if isinstance(path, PromptValues):
        return _checked(Path(str(path)), path)
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int, _length: int) -> CocoFile | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    return _checked(path, content)


def _checked(path: Path, content: Any) -> CocoFile | None:
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        return None
    try:
        return _parsed(path, content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: these COCO annotations cannot be read: {_reason(error)}"
        ) from error


def _parsed(path: Path, content: dict[str, Any]) -> CocoFile:
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    used = set()
    for row in content["annotations"]:
        rows[_identifier(row["image_id"])].append(row)
        used.add(_category(row["category_id"]))
    names = _names(path, content.get("categories"), used)
    if unknown := sorted(used - set(names)):
        raise InputError(f"{path}: category {unknown[0]} is used and not defined")
    entries: dict[Any, dict[str, Any]] = {}
    for entry in content["images"]:
        number = _identifier(entry["id"])
        if entries.setdefault(number, entry) != entry:
            raise InputError(f"{path}: two images have the id {number!r}; renumber one")
    if strays := [number for number in rows if number not in entries]:
        raise InputError(f"{path}: annotations of image {strays[0]!r}, which is not listed")
    images = [
        CocoImage(
            name=_relative(path, str(entry["file_name"])),
            size=_size(entry),
            page=int(entry.get("page_no") or 1) if _is_paged(entry["file_name"]) else 1,
            document=str(entry["doc_name"]) if entry.get("doc_name") else None,
            rows=tuple(rows[number]),
        )
        for number, entry in entries.items()
    ]
    if boxed := sum(_too_short(row) for found in rows.values() for row in found):
        logger.warning(
            "%s: %d annotations have outlines of fewer than three points; their boxes are used",
            path,
            boxed,
        )
    return CocoFile(path, names, tuple(images))


def _names(path: Path, categories: Any, used: set[int]) -> dict[int, str]:
    """Return category id to name; where the file has no categories, the used ids."""
    if categories is None:
        return {number: f"class_{number}" for number in sorted(used)}
    names: dict[int, str] = {}
    for category in categories:
        number, name = _category(category["id"]), str(category["name"])
        if names.setdefault(number, name) != name:
            raise InputError(f"{path}: category {number} is both {names[number]!r} and {name!r}")
    return names


def _identifier(value: Any) -> int | str:
    """Return an id in a comparable form: "1", 1.0 and 1 are equal.

    Raises:
        ValueError: The id is neither a whole number nor text.
    """
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.removeprefix("-").isdigit() else text
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{value!r} is no id; expected a whole number or text")
    return int(value)


def _category(value: Any) -> int:
    number = _identifier(value)
    if isinstance(number, str):
        raise ValueError(f"category id {value!r}; expected a whole number")
    return number


def _size(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return (H, W) of an entry.

    Raises:
        ValueError: It states none.
    """
    sides = []
    for key in ("height", "width"):
        value = float(entry[key]) if entry.get(key) is not None else 0.0
        if not value.is_integer() or not 0 < value <= _LARGEST_SIDE:
            raise ValueError(
                f"image {entry['file_name']} has {key} {entry.get(key)!r}; expected whole pixels"
            )
        sides.append(int(value))
    return sides[0], sides[1]


def _flat(segmentation: Any) -> list[Sequence[Any]]:
    """Return the parts of an outline; one part may stand without its own brackets."""
    if not isinstance(segmentation, list):
        raise TypeError("a segmentation that is neither outlines nor run lengths")
    return segmentation if segmentation and isinstance(segmentation[0], list) else [segmentation]


def _too_short(row: Mapping[str, Any]) -> bool:
    segmentation = row.get("segmentation")
    if not isinstance(segmentation, list) or not segmentation:
        return False
    parts = [part for part in _flat(segmentation) if isinstance(part, list)]
    return bool(row.get("bbox")) and 0 < max(map(len, parts), default=0) < _LEAST_VALUES


def _rings(
    segmentation: Sequence[Any], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the parts of an outline; those of fewer than three points have no inside.

    Raises:
        ValueError: The values are not pairs of numbers, or lie far outside the image.
    """
    parts = _flat(segmentation)
    if len(parts) > 1 and all(len(part) == 2 for part in parts):
        raise ValueError("a list of points as segmentation; expected lists x0, y0, x1, y1, …")
    rings = []
    for part in parts:
        values = np.asarray(part, float)
        if values.ndim != 1 or values.size % 2 or not np.isfinite(values).all():
            raise ValueError("an outline that is no pairs of numbers")
        if values.size and np.abs(values).max() > _FARTHEST * max(size):
            raise ValueError(
                f"an outline reaches {np.abs(values).max():g}, far outside {size[1]} x {size[0]}"
            )
        if values.size >= _LEAST_VALUES:
            rings.append(values.reshape(-1, 2))
    return tuple(rings)


def _box(bbox: Any, size: tuple[int, int]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the outline of a box; none if its area is zero.

    Raises:
        ValueError: There is no box.
    """
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError("neither an outline nor a box")
    x, y, width, height = (float(value) for value in bbox)
    if not all(map(math.isfinite, (x, y, width, height))) or width < 0 or height < 0:
        raise ValueError(f"the box {bbox}; expected x, y, width and height")
    if not width or not height:
        return ()
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return _rings([corners], size)


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _is_paged(name: Any) -> bool:
    # DocLayNet's `page_no` is the page of the source document, not of its PNG.
    return str(name).lower().endswith((".pdf", ".tif", ".tiff"))


def _relative(path: Path, name: str) -> str:
    """Return a file name after checking that it stays in the folder of images.

    Raises:
        InputError: The name leads out of the folder.
    """
    found = PurePosixPath(name.replace("\\", "/"))
    if found.is_absolute() or ".." in found.parts:
        raise InputError(f"{path}: file name {name!r} points outside the folder of images")
    return str(found)
