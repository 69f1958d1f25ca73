"""Corrective clicks: a simulated user's next click on the error region of a mask.

The error region is where the prediction and the label differ. Two rules choose a pixel in it:

* "uniform": any pixel of it with equal probability, as SAM was trained (arXiv:2304.02643, A);
* "largest": the pixel of its largest part (8-connected) that lies farthest from that part's
  border, as in the evaluation of interactive segmentation.

A click on a missed region is positive, one on a false region is negative.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from samonai.core.errors import InputError
from samonai.prompts.frame_prompts import NO_POINT
from samonai.settings.choices import CLICK_RULES

_NEIGHBOURS = np.ones((3, 3), bool)


class Clicks(NamedTuple):
    """One click for each of N objects.

    Attributes:
        points: float32 (N, 2), (x, y) of the clicked pixels' centres, in pixels of the masks.
        labels: int64 (N,): 1 inside, 0 outside, -1 where there is no error to click on.
    """

    points: torch.Tensor
    labels: torch.Tensor


def corrective_clicks(
    predicted: torch.Tensor,
    masks: torch.Tensor,
    valid: torch.Tensor,
    *,
    rule: str,
    chances: torch.Tensor | None = None,
) -> Clicks:
    """Choose the next click of each object from its error region.

    Args:
        predicted: bool (N, H, W), the predicted masks.
        masks: bool (N, H, W), the true masks.
        valid: bool (N, H, W), False on unlabelled pixels, which are never clicked.
        rule: One of `CLICK_RULES`.
        chances: float64 (N,) in [0, 1), drawn uniformly; they select the pixel of "uniform".

    Raises:
        InputError: The rule is unknown.
    """
    if rule not in CLICK_RULES:
        raise InputError(f"click rule {rule!r} is not known; use {' or '.join(CLICK_RULES)}")
    errors = (predicted ^ masks) & valid
    if rule == "uniform":
        assert chances is not None
        pixels, found = _uniform_pixels(errors, chances)
    else:
        pixels, found = _interior_pixels(errors)
    width = masks.shape[2]
    inside = masks.flatten(1).gather(1, pixels[:, None])[:, 0].long()
    points = torch.stack([pixels % width, pixels // width], dim=1).float() + 0.5
    return Clicks(points, torch.where(found, inside, NO_POINT))


def interior_pixel(region: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return (row, column) of the pixel farthest from the border of a region's largest part.

    The frame's edge counts as a border. Of equally deep pixels the first in reading order counts.

    Args:
        region: bool (H, W) with at least one pixel.
    """
    parts, _ = ndimage.label(region, _NEIGHBOURS)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    window: Sequence[slice] = ndimage.find_objects(parts, max_label=largest)[largest - 1]
    part = np.pad(parts[tuple(window)] == largest, 1)
    depth = ndimage.distance_transform_edt(part)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return window[0].start + int(row), window[1].start + int(column)


def _uniform_pixels(
    errors: torch.Tensor, chances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixel number floor(chance * count) of each row's error: flat index, whether any."""
    counted = errors.flatten(1).cumsum(1, dtype=torch.int32)
    counts = counted[:, -1]
    wanted = (chances.to(errors.device) * counts).int() + 1
    pixels = torch.searchsorted(counted, wanted[:, None])[:, 0]
    return pixels.clamp(max=counted.shape[1] - 1), counts > 0


def _interior_pixels(errors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the deepest pixel of each row's largest error: flat index, and whether any."""
    found = errors.flatten(1).any(1)
    pixels = torch.zeros(len(errors), dtype=torch.int64)
    regions = errors.cpu().numpy()
    for number in torch.nonzero(found).flatten().tolist():
        row, column = interior_pixel(regions[number])
        pixels[number] = row * errors.shape[2] + column
    return pixels.to(errors.device), found
