"""LabelMe: the JSON file beside a picture, with shapes in its pixels."""

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.annotations.drawn import (
    DrawnImage,
    DrawnShape,
    Points,
    checked_points,
    corners,
    number,
)

_LEAST = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "point": 1, "points": 1}
"""Usable shapes, with their least number of points; lines outline no region."""


def is_labelme(content: Any) -> bool:
    """Return whether JSON is a LabelMe file."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= set(content)


def labelme_images(content: dict[str, Any], where: str) -> list[DrawnImage]:
    """Return the picture of a LabelMe file with its shapes.

    Raises:
        InputError: A shape cannot be read, or its size is not stated.
    """
    if not isinstance(content["shapes"], list):
        raise InputError(f"{where}: shapes must be a list")
    shapes, left_out = [], []
    for place, shape in enumerate(content["shapes"], 1):
        here = f"{where}: shape {place}"
        if not isinstance(shape, dict):
            raise InputError(f"{here} is no object")
        kind = str(shape.get("shape_type") or "polygon")
        if kind not in _LEAST:
            left_out.append(kind)
            continue
        points = checked_points(shape.get("points"), _LEAST[kind], here)
        name = str(shape.get("label") or "").strip() or None
        shapes.append(DrawnShape(name, _outline(kind, points), kind not in ("point", "points")))
    sides = [content.get("imageHeight"), content.get("imageWidth")]
    size = None if None in sides else (int(number(sides[0], where)), int(number(sides[1], where)))
    name = PurePosixPath(str(content["imagePath"]).replace("\\", "/")).name
    return [DrawnImage(name, size, tuple(shapes), tuple(left_out))]


def _outline(kind: str, points: Points) -> Points:
    if kind == "circle":  # its centre and a point of its edge
        radius = float(np.hypot(*(points[1] - points[0])))
        x, y = points[0].tolist()
        return corners(x - radius, y - radius, x + radius, y + radius)
    if kind == "mask":  # the first and the last pixel of its rectangle
        return np.array([points[0], points[1] + 1])
    return points
