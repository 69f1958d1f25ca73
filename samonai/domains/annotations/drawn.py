"""Drawn pictures and shapes: what the readers of annotation tools return."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.label_map import coordinates

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DrawnShape:
    """A shape that prompts one object.

    Attributes:
        name: Its class; None: not named.
        points: float64 (N, 2), (x, y) in pixels of the picture, pixel edges at whole numbers.
        is_region: Whether the points outline a region; otherwise they are clicks inside it.
        slice: Number of the slice in a volume, from 0; None: of a picture.
    """

    name: str | None
    points: Points
    is_region: bool = True
    slice: int | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Return the box around the shape, xyxy."""
        x0, y0 = self.points.min(0).tolist()
        x1, y1 = self.points.max(0).tolist()
        return x0, y0, x1, y1


@dataclass(frozen=True)
class DrawnImage:
    """A picture with its shapes.

    Attributes:
        name: Its file name in the tool; None: the file does not state it.
        size: (H, W) as the file states it; None: not stated.
        shapes: The usable ones, in the file's order.
        left_out: Kinds of the others, which outline no region: one entry each.
        names: Other names of the picture, such as the one before an upload.
    """

    name: str | None
    size: tuple[int, int] | None
    shapes: tuple[DrawnShape, ...]
    left_out: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def corners(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Return the corners of a box, float64 (4, 2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Points:
    """Return the corners of the box around a turned ellipse, float64 (4, 2).

    Args:
        x: Its centre.
        y: Its centre.
        across: Half its width before the turn.
        down: Half its height before the turn.
        degrees: Turn around the centre.
    """
    angle = np.deg2rad(degrees)
    wide = float(np.hypot(across * np.cos(angle), down * np.sin(angle)))
    high = float(np.hypot(across * np.sin(angle), down * np.cos(angle)))
    return corners(x - wide, y - high, x + wide, y + high)


def checked_points(rows: Any, least: int, where: str) -> Points:
    """Return points, float64 (N, 2).

    Raises:
        InputError: A row is not a pair of finite numbers, or there are fewer than needed.
    """
    pairs = [coordinates(row, 2) for row in rows] if isinstance(rows, Sequence) else []
    found = [pair for pair in pairs if pair is not None]
    if len(found) < max(least, 1) or len(found) != len(pairs):
        raise InputError(f"{where}: expected {least} or more points as pairs of numbers")
    return np.array(found, float)


def number(value: Any, where: str) -> float:
    """Return a finite number, also from text.

    Raises:
        InputError: The value is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if isinstance(value, bool) or not np.isfinite(found):
        raise InputError(f"{where}: expected a number, got {str(value)[:40]!r}")
    return found


def names_of_shapes(images: Iterable[DrawnImage]) -> list[str | None]:
    """Return the class of every shape, in the file's order."""
    return [shape.name for image in images for shape in image.shapes]
