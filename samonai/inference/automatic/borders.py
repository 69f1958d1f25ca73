"""Object separation by learned borders: watershed on the distance to the nearest border.

A learned border is a chain of likely pixels with gaps. So the depth of a pixel in its object
counts: its distance from the nearest border. Each object has a peak of depth, and
the peaks of two touching objects are separated by a saddle, which is lower where the border has
fewer gaps. Peaks that are high enough above every saddle are seeds (h-maxima), and a watershed
grows them back until they meet, so no pixel of the class is lost.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)

_BORDER = 0.3
"""Probability above which a pixel is near a border: a single wrong one separates nothing."""
_HEIGHT = 1.3
"""Height of a seed above the saddles around it, in mean depths, for objects of any size.
Chosen on the training chips of a run on roofs, of 0.7, 1 and 1.3."""


def components(
    mask: npt.NDArray[np.bool_],
    borders: npt.NDArray[np.floating] | None = None,
    unit: float = 1.0,
) -> npt.NDArray[np.int32]:
    """Number the objects of a mask.

    Args:
        mask: bool (H, W), the pixels of a class.
        borders: float (H, W), probability of being near a border; None: objects are connected
            components by side or corner.
        unit: Side in frame pixels of a pixel of the logits, which limits the resolution.

    Returns:
        int32 (H, W), numbers from 1 without gaps, 0 outside the mask.
    """
    if borders is None or not mask.any():
        parts: npt.NDArray[np.int32] = ndimage.label(mask, _EVERY_NEIGHBOUR)[0]
        return parts
    from skimage.segmentation import watershed  # scikit-image is slow to import

    step = max(int(unit), 1)
    coarse = _split(mask[::step, ::step], borders[::step, ::step])
    found = np.repeat(np.repeat(coarse, step, 0), step, 1)[: mask.shape[0], : mask.shape[1]]
    if step > 1:
        found = watershed(np.zeros(mask.shape, np.uint8), found * mask, mask=mask, connectivity=2)
    # Parts without a seed: narrow objects, and specks.
    alone, _ = ndimage.label(mask & (found == 0), _EVERY_NEIGHBOUR)
    found = np.where(alone > 0, alone + int(found.max()), found)
    there = np.unique(found[mask])
    dense = np.zeros(int(there[-1]) + 1, np.int32)
    dense[there] = np.arange(1, len(there) + 1)
    return dense[found]


def _split(mask: npt.NDArray[np.bool_], borders: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """Return the numbers of objects that have a seed, at the resolution of the logits."""
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    inside = mask & (borders <= _BORDER)
    if inside.all() or not inside.any():
        return inside.astype(np.int32)
    # The frame's edge is not a border: an object that it cuts is as deep there as beside.
    depth = ndimage.distance_transform_edt(inside)
    depth = ndimage.gaussian_filter(depth, 1.0, mode="nearest") * mask
    height = _HEIGHT * float(depth[inside].mean())
    seeds, _ = ndimage.label(h_maxima(depth, height), _EVERY_NEIGHBOUR)
    split: npt.NDArray[np.int32] = watershed(-depth, seeds, mask=mask, connectivity=2)
    return split
