"""Object borders: the targets of the semantic head's border channel.

A class map cannot separate two touching objects of one class. So pixels near a border between an
object and its surroundings (background, another object) are trained as a binary map beside the
classes (DCAN, arXiv:1604.02677). Subtracted from the class map, they leave the inside of each
object, unconnected to any other.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.embeddings.targets import FrameTargets

REACH = 2
"""Width of a border on each side, in pixels of the low-res frame."""


def border_map(targets: FrameTargets, reach: int = REACH) -> npt.NDArray[np.bool_]:
    """Return bool (256, 256): True near the borders of a frame's objects; low-res frame.

    Each object keeps its innermost pixels, so that small and narrow ones have an inside too. A
    boundary with ignored pixels is not a border: an object that the frame cuts does not end
    there.

    Args:
        targets: The frame's objects.
        reach: Pixels on each side.
    """
    components, valid = targets.components, targets.valid & ~targets.ignored
    edges = np.zeros(components.shape, bool)
    for axis in (0, 1):
        before = tuple(slice(None, -1) if n == axis else slice(None) for n in (0, 1))
        after = tuple(slice(1, None) if n == axis else slice(None) for n in (0, 1))
        differ = (components[before] != components[after]) & valid[before] & valid[after]
        edges[before] |= differ
        edges[after] |= differ
    if not edges.any():
        return edges
    distance = ndimage.distance_transform_edt(~edges)
    # By number, 0 for background, which has no inside to keep.
    deepest = np.full(int(components.max()) + 1, np.inf)
    numbers = np.unique(components[components > 0])
    deepest[numbers] = ndimage.maximum(distance, components, numbers)
    found: npt.NDArray[np.bool_] = distance < np.minimum(reach, deepest[components])
    return found
