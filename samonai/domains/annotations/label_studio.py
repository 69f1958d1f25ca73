"""Label Studio: exported tasks as JSON, with regions in per cent of the picture."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import (
    DrawnImage,
    DrawnShape,
    Points,
    checked_points,
    ellipse,
    number,
)

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Label Studio puts eight digits before the names of uploaded files."""

_LABELS = {
    "rectanglelabels": ("rectanglelabels", "labels"),
    "rectangle": ("rectanglelabels", "labels"),
    "polygonlabels": ("polygonlabels", "labels"),
    "polygon": ("polygonlabels", "labels"),
    "ellipselabels": ("ellipselabels", "labels"),
    "ellipse": ("ellipselabels", "labels"),
    "keypointlabels": ("keypointlabels", "labels"),
    "keypoint": ("keypointlabels", "labels"),
}
_REGIONS = {"brushlabels", "brush", "labels", *_LABELS}


def is_label_studio(content: Any) -> bool:
    """Return whether JSON is an export of Label Studio: one task, or a list of them."""
    tasks = content if isinstance(content, list) else [content]
    return bool(tasks) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and "annotations" in task
        for task in tasks
    )


def label_studio_images(
    content: Any, where: str, size: tuple[int, int] | None = None
) -> list[DrawnImage]:
    """Return the pictures of exported tasks with their shapes.

    Args:
        content: The export.
        where: The file, for messages.
        size: (H, W) of the picture, for regions without its size.

    Raises:
        InputError: A region cannot be read, or a task has several people's annotations.
    """
    tasks = content if isinstance(content, list) else [content]
    return [
        _image(task, f"{where}: task {task.get('id', n)}", size) for n, task in enumerate(tasks)
    ]


def _image(task: dict[str, Any], where: str, size: tuple[int, int] | None) -> DrawnImage:
    done = [
        one
        for one in task["annotations"] or []
        if isinstance(one, dict) and not one.get("was_cancelled")
    ]
    if len(done) > 1:
        raise InputError(f"{where} has {len(done)} annotations; keep one of them")
    shapes, left_out, sizes = [], [], set()
    for result in done[0].get("result") or [] if done else []:
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            raise InputError(f"{where}: a region without a value")
        kind = str(result.get("type"))
        if kind not in _LABELS:
            left_out += [kind] if kind in _REGIONS else []
            continue
        height, width = _size(result, where, size)
        sizes.add((height, width))
        if number(result.get("image_rotation") or 0, where):
            raise InputError(f"{where}: the picture was turned in the tool; turn the file instead")
        points = _points(kind, result["value"], where, np.array([width, height]) / 100)
        shapes.append(
            DrawnShape(_name(kind, result["value"]), points, not kind.startswith("keypoint"))
        )
    if len(sizes) > 1:
        raise InputError(f"{where}: its regions state different sizes of the picture")
    name, *others = _names(task["data"])
    stated = next(iter(sizes), None)
    also = tuple(other for other in others if other is not None)
    return DrawnImage(name, stated, tuple(shapes), tuple(left_out), also)


def _size(result: Mapping[str, Any], where: str, size: tuple[int, int] | None) -> tuple[int, int]:
    sides = [result.get("original_height"), result.get("original_width")]
    if None not in sides:
        return int(number(sides[0], where)), int(number(sides[1], where))
    if size is None:
        raise InputError(f"{where}: a region without original_width and original_height")
    return size


def _points(kind: str, value: Mapping[str, Any], where: str, scale: Any) -> Points:
    if kind.startswith("polygon"):
        return checked_points(value.get("points"), 3, where) * scale
    x, y = (number(value.get(key), where) for key in ("x", "y"))
    turn = number(value.get("rotation") or 0, where)
    if kind.startswith("keypoint"):
        return np.array([[x, y]]) * scale
    if kind.startswith("ellipse"):
        across, down = (number(value.get(key), where) for key in ("radiusX", "radiusY"))
        (x, y), (across, down) = np.array([x, y]) * scale, np.array([across, down]) * scale
        return ellipse(x, y, across, down, turn)
    width, height = (number(value.get(key), where) for key in ("width", "height"))
    # A rectangle turns around its top left corner.
    away = np.array([[0, 0], [width, 0], [width, height], [0, height]]) * scale
    angle = np.deg2rad(turn)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners: Points = np.array([x, y]) * scale + away @ turned.T
    return corners


def _name(kind: str, value: Mapping[str, Any]) -> str | None:
    for key in _LABELS[kind]:
        labels = value.get(key)
        if isinstance(labels, list) and labels:
            return str(labels[0]).strip() or None
    return None


def _names(data: Mapping[str, Any]) -> list[str | None]:
    """Return the picture's name and, of an upload, the one before it."""
    texts = [value for value in data.values() if isinstance(value, str)]
    preferred = [data[key] for key in ("image", "img", "picture") if isinstance(data.get(key), str)]
    if not (preferred or len(texts) == 1):
        return [None]
    text = (preferred or texts)[0]
    query = dict(part.split("=", 1) for part in urlsplit(text).query.split("&") if "=" in part)
    name = PurePosixPath(unquote(query.get("d", urlsplit(text).path))).name
    uploaded = _UPLOADED.fullmatch(name)
    return [name] if uploaded is None else [name, uploaded[1]]
