"""Reading order of a page's regions: recursive cuts into columns and bands along white space.

A set of boxes is cut where a vertical strip of white runs through all of them, into columns read
from left to right; where none does, into bands from top to bottom. Bands that follow each other
and share a column gap are kept together, so that two columns are not read across.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SLACK = 0.1
"""Largest overlap of separable boxes, as a share of their sides."""


def reading_order(boxes: Sequence[tuple[float, float, float, float]]) -> list[int]:
    """Return the rows of `boxes` in reading order.

    Args:
        boxes: xyxy.
    """
    if not boxes:
        return []
    found = np.asarray(boxes, float).reshape(-1, 4)
    slack = _SLACK * np.minimum(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1])[:, None]
    return _order(found + slack * [1, 1, -1, -1], np.arange(len(found)))


def _order(boxes: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> list[int]:
    if len(rows) < 2:
        return rows.tolist()
    columns = _cut(boxes, rows, axis=0)
    if len(columns) > 1:
        return [row for column in columns for row in _order(boxes, column)]
    bands = _cut(boxes, rows, axis=1)
    if len(bands) > 1:
        return [row for group in _together(boxes, bands) for row in _order(boxes, group)]
    middles = (boxes[rows, :2] + boxes[rows, 2:]) / 2
    return rows[np.lexsort((middles[:, 0], middles[:, 1]))].tolist()


def _together(
    boxes: npt.NDArray[np.float64], bands: list[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.int64]]:
    """Join consecutive bands as long as one gap between columns runs through them."""
    groups = [bands[0]]
    for band in bands[1:]:
        joined = np.concatenate([groups[-1], band])
        if len(_cut(boxes, groups[-1], 0)) > 1 and len(_cut(boxes, joined, 0)) > 1:
            groups[-1] = joined
        else:
            groups.append(band)
    return groups


def _cut(
    boxes: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], axis: int
) -> list[npt.NDArray[np.int64]]:
    """Split rows where no box reaches across, along x (0) or y (1)."""
    starts, ends = boxes[rows, axis], boxes[rows, axis + 2]
    order = np.argsort(starts, kind="stable")
    reached = np.maximum.accumulate(ends[order])
    breaks = np.flatnonzero(starts[order][1:] >= reached[:-1]) + 1
    return [rows[part] for part in np.split(order, breaks)]
