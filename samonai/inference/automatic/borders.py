"""Objects out of a map of classes and a map of borders: inner parts, grown back into the class.

A border that was learned is a chain of likely pixels with gaps. So what counts is how deep in its
object a pixel lies: its distance from the nearest border. Each object has a summit of depth, and
the summits of two that touch are parted by a pass, which is lower where the border between them has
fewer gaps. Summits that stand high enough above every pass are seeds (h-maxima), and a watershed
grows them back until they meet, so no pixel of the class is lost.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)

_BORDER = 0.3
"""Above this probability a pixel is near a border: a wrong one parts nothing by itself."""
_HEIGHT = 1.3
"""How far a seed stands above the passes around it, in mean depths, so that any size of objects
will do. Chosen on the chips that a run on roofs was trained on, of 0.7, 1 and 1.3."""


def components(
    mask: npt.NDArray[np.bool_],
    borders: npt.NDArray[np.floating] | None = None,
    unit: float = 1.0,
) -> npt.NDArray[np.int32]:
    """Number the objects of a mask.

    Args:
        mask: bool (H, W), the pixels of a class.
        borders: float (H, W), probability of being near a border; None: objects are what touches
            by side or corner.
        unit: Side in pixels of what the decoder's logits have as a pixel; no more is told.

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
    # What has no seed: narrow objects, and specks.
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
    # Beyond the frame nothing ends: an object that it cuts is as deep there as beside.
    depth = ndimage.distance_transform_edt(inside)
    depth = ndimage.gaussian_filter(depth, 1.0, mode="nearest") * mask
    height = _HEIGHT * float(depth[inside].mean())
    seeds, _ = ndimage.label(h_maxima(depth, height), _EVERY_NEIGHBOUR)
    split: npt.NDArray[np.int32] = watershed(-depth, seeds, mask=mask, connectivity=2)
    return split
