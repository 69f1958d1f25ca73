"""Coarse masks from labels: simulated output of another tool or of hurried annotation.

A mask is bent by a smooth random displacement and grown or shrunk, both in proportion to the
object's size, and given as logits whose slope across the border is like a decoder's own.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

CERTAIN_LOGIT = 10.0
"""Logit of a pixel well inside; outside it is the negative of it."""

_LOGIT_PER_PIXEL = 2.0
_BENDS = 4  # control points along each side of the object's window


def coarse_logits(
    mask: npt.NDArray[np.bool_], noise: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Make a noised coarse version of one object's mask, as logits.

    Args:
        mask: bool (h, w) in the low-res frame, with at least one pixel.
        noise: Error of the mask, as a share of the square root of its area: the border is
            displaced by normal noise of half of it, and moves in or out by up to half of it.
        generator: The only source of randomness.

    Returns:
        float32 (h, w) from -`CERTAIN_LOGIT` to `CERTAIN_LOGIT`; at least one pixel is above 0.
    """
    size = math.sqrt(mask.sum())
    reach = 0.5 * noise * size
    window = _window(mask, margin=math.ceil(4 * reach + CERTAIN_LOGIT / _LOGIT_PER_PIXEL) + 1)
    part = mask[window]
    padded = np.pad(part, 1)
    # Half a pixel each way, so that 0 lies on the border between pixels.
    depth = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    depth -= ndimage.distance_transform_edt(~padded)[1:-1, 1:-1]
    depth -= 0.5 * np.sign(depth)
    controls = generator.normal(0, reach, (2, _BENDS, _BENDS))
    zoom = (part.shape[0] / _BENDS, part.shape[1] / _BENDS)
    moved = np.stack([ndimage.zoom(c, zoom, order=1, mode="nearest") for c in controls])
    bent = ndimage.map_coordinates(depth, np.indices(part.shape) + moved, order=1, mode="nearest")
    # Neither bending nor shrinking may remove the whole mask.
    change = max(generator.uniform(-reach, reach), 0.5 - float(bent.max()))
    logits = np.full(mask.shape, -CERTAIN_LOGIT, np.float32)
    logits[window] = ((bent + change) * _LOGIT_PER_PIXEL).clip(-CERTAIN_LOGIT, CERTAIN_LOGIT)
    return logits


def _window(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the window around a mask's pixels, grown by a margin as far as the frame goes."""
    sides = []
    for axis, length in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        sides.append(slice(max(filled[0] - margin, 0), min(filled[-1] + 1 + margin, length)))
    return sides[0], sides[1]
