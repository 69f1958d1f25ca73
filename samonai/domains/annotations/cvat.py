"""CVAT for images 1.1: XML with the pictures of a task and shapes in their pixels."""

from pathlib import Path, PurePosixPath

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import (
    DrawnImage,
    DrawnShape,
    Points,
    checked_points,
    corners,
    ellipse,
    number,
)
from samonai.domains.xml import Element, read_xml

_START = 4096
_NOT_SHAPES = {"tag", "attribute"}


def is_cvat(path: Path) -> bool:
    """Return whether a file is XML with CVAT's root element, by its first bytes."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<annotations" in file.read(_START)


def cvat_images(path: Path) -> list[DrawnImage]:
    """Return the pictures of a task with their shapes.

    Raises:
        InputError: The file is not readable, or of a video.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise InputError(f"{path}: expected CVAT's <annotations>, got <{root.tag}>")
    if root.find("track") is not None:
        raise InputError(f"{path}: CVAT for video; export the task as CVAT for images 1.1")
    return [_image(element, str(path)) for element in root.findall("image")]


def _image(element: Element, path: str) -> DrawnImage:
    name = PurePosixPath(element.get("name", "").replace("\\", "/")).name
    where = f"{path}: image {name}"
    size = (int(number(element.get("height"), where)), int(number(element.get("width"), where)))
    shapes, left_out = [], []
    for shape in element:
        points = _points(shape, where)
        if points is not None:
            label = (shape.get("label") or "").strip() or None
            shapes.append(DrawnShape(label, points, shape.tag != "points"))
        elif shape.tag not in _NOT_SHAPES:
            left_out.append(str(shape.tag))
    return DrawnImage(name, size, tuple(shapes), tuple(left_out))


def _points(shape: Element, where: str) -> Points | None:
    """Return the points of a shape; None for those that outline no region."""

    def value(key: str) -> float:
        return number(shape.get(key), f"{where}: {shape.tag} {key}")

    if shape.tag in ("polygon", "points"):
        rows = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        pairs = [[number(part, where) for part in row] for row in rows]
        return checked_points(pairs, 3 if shape.tag == "polygon" else 1, where)
    turn = number(shape.get("rotation") or 0, where)
    if shape.tag == "box":
        return _turned(corners(value("xtl"), value("ytl"), value("xbr"), value("ybr")), turn)
    if shape.tag == "ellipse":
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    if shape.tag == "mask":
        left, top = value("left"), value("top")
        return corners(left, top, left + value("width"), top + value("height"))
    return None


def _turned(box: Points, degrees: float) -> Points:
    """Return the corners of a box that is turned around its centre."""
    angle, centre = np.deg2rad(degrees), box.mean(0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned: Points = centre + (box - centre) @ turn.T
    return turned
