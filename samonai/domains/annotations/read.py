"""Choice of the reader by content, and of a picture's shapes in a file of many pictures."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from samonai.core.errors import InputError
from samonai.core.pseudonyms import stands_for
from samonai.domains.annotations.coco import coco_images
from samonai.domains.annotations.cvat import cvat_images, is_cvat
from samonai.domains.annotations.drawn import DrawnImage, DrawnShape, names_of_shapes
from samonai.domains.annotations.label_studio import is_label_studio, label_studio_images
from samonai.domains.annotations.labelme import is_labelme, labelme_images
from samonai.domains.annotations.napari import is_napari, napari_images
from samonai.domains.coco import coco_in
from samonai.prompts.values import PromptFile, PromptValues, prompt_content

logger = logging.getLogger(__name__)

ENDINGS = (".json", ".csv", ".xml")


def drawn_images(path: PromptFile, size: tuple[int, int] | None = None) -> list[DrawnImage] | None:
    """Return the pictures of an annotation tool's file; None for other files.

    Args:
        path: The file, or the content of a JSON file.
        size: (H, W) of the picture, for files that state positions in per cent only.

    Raises:
        InputError: The file is the tool's, and cannot be read.
    """
    if isinstance(path, Path):
        if is_cvat(path):
            return cvat_images(path)
        if is_napari(path):
            return napari_images(path)
        if path.suffix.lower() != ".json" or not path.is_file():
            return None
    content = _content(path)
    if is_labelme(content):
        return labelme_images(content, str(path))
    if is_label_studio(content):
        return label_studio_images(content, str(path), size)
    coco = coco_in(path) if isinstance(content, dict) and "images" in content else None
    return None if coco is None else coco_images(coco)


def drawn_names(path: PromptFile) -> list[str | None] | None:
    """Return the class of every shape of an annotation tool's file; None for other files."""
    images = drawn_images(path, (100, 100))
    return None if images is None else names_of_shapes(images)


def shapes_of(
    path: PromptFile,
    names: Sequence[str],
    size: tuple[int, int],
    *,
    only_case: bool = True,
) -> list[DrawnShape] | None:
    """Return the shapes that an annotation tool's file has for a picture; None for other files.

    Args:
        path: The file.
        names: Names of the picture: its file's, its case's.
        size: Its (H, W).
        only_case: Whether there is no other picture, so that a file of one picture is for it.

    Raises:
        InputError: The file has no such picture, has it in another size, or no shape of it outlines
            a region.
    """
    images = drawn_images(path, size)
    if images is None:
        return None
    image = _chosen(images, path, names, only_case)
    if image is None:
        return []
    if image.size is not None and image.size != size:
        height, width = image.size
        raise InputError(
            f"{path}: {image.name} is said to have {width} x {height} pixels, but {names[0]} has "
            f"{size[1]} x {size[0]}"
        )
    if image.left_out:
        shown = ", ".join(f"{count} {kind}" for kind, count in Counter(image.left_out).items())
        if not image.shapes:
            raise InputError(
                f"{path}: {shown} for {names[0]} and nothing else, which prompts no object; draw "
                f"boxes, polygons or points"
            )
        logger.warning("%s: %s prompt no object and are left out", path, shown)
    if not image.shapes and only_case:
        raise InputError(f"{path}: no shapes for {names[0]}")
    return list(image.shapes)


def _chosen(
    images: Sequence[DrawnImage], path: PromptFile, names: Sequence[str], only_case: bool
) -> DrawnImage | None:
    """Return the entry of a picture; None if there is none and others may have it."""
    found = [image for image in images if _is_named(image, names)]
    if len(found) == 1:
        return found[0]
    if not found and len(images) == 1 and only_case:
        if images[0].name is not None:
            logger.warning("%s is for a picture of another name; taken for %s", path, names[0])
        return images[0]
    if not found and not only_case and any(image.name is None for image in images):
        raise InputError(f"{path}: does not say which of several cases it is for; give a folder")
    if not found and not only_case:
        return None
    count = f"{len(found)} pictures" if found else "no picture"
    raise InputError(f"{path} has {count} named {names[0]}; expected one")


def _is_named(image: DrawnImage, names: Sequence[str]) -> bool:
    own = [name for name in (image.name, *image.names) if name]
    stems = [PurePosixPath(name).stem for name in own]
    return any(stands_for(one, name) for name in names for one in (*own, *stems))


def _content(path: PromptFile) -> Any:
    if isinstance(path, PromptValues):
        return path
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return prompt_content(path)  # its message
