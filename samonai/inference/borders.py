"""Objects out of a map of classes and a map of borders: inner parts, grown back into the class.

What of a class is not near a border falls into parts, one for each object, though the objects touch
in the map of classes. Each part grows back over the borders until it meets another, so no pixel of
the class is lost.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

EVERY_NEIGHBOUR = np.ones((3, 3), bool)

_BORDER = 0.5  # above this probability a pixel is near a border
_SEED_SHARE = 0.05
"""Inner parts of a smaller share than this of the largest of their component are noise."""


def components(
    mask: npt.NDArray[np.bool_], borders: npt.NDArray[np.floating] | None = None
) -> tuple[npt.NDArray[np.int32], int]:
    """Number the objects of a mask.

    Args:
        mask: bool (H, W), the pixels of a class.
        borders: float (H, W), probability of being near a border; None: objects are what touches
            by side or corner.

    Returns:
        int32 (H, W), numbers from 1, 0 outside the mask; and how many there are.
    """
    whole, count = ndimage.label(mask, EVERY_NEIGHBOUR)
    if borders is None or not count:
        return whole.astype(np.int32), count
    # By side alone: where borders meet, corners would join what they part.
    seeds, number = ndimage.label(mask & (borders <= _BORDER))
    seeds = _without_noise(seeds, number, whole)
    grown = watershed(borders, seeds, mask=mask, connectivity=2)
    # Narrow objects can be near a border throughout.
    alone, _ = ndimage.label(mask & (grown == 0), EVERY_NEIGHBOUR)
    grown = np.where(alone > 0, alone + number, grown)
    there = np.unique(grown[mask])
    dense = np.zeros(int(there[-1]) + 1, np.int32)
    dense[there] = np.arange(1, len(there) + 1)
    return dense[grown], len(there)


def _without_noise(
    seeds: npt.NDArray[np.int32], count: int, whole: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Leave out seeds that are specks beside the largest one of their component."""
    areas = np.bincount(seeds.ravel(), minlength=count + 1)
    areas[0] = 0
    component = np.zeros(count + 1, np.int64)
    component[seeds] = whole
    largest = np.zeros(int(whole.max()) + 1)
    np.maximum.at(largest, component, areas)
    kept = areas >= _SEED_SHARE * largest[component]
    kept[0] = False
    return np.where(kept[seeds], seeds, 0).astype(np.int32)
