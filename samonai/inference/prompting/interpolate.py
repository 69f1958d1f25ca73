"""Keyframe interpolation: boxes on a few frames, interpolated linearly between them."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from samonai.core.errors import InputError
from samonai.prompts.frame_prompts import FramePrompts


def interpolate_boxes(prompts: Mapping[int, FramePrompts]) -> dict[int, FramePrompts]:
    """Fill the frames between an object's boxes, the four sides interpolated linearly.

    Prompts of one object id are one object; without ids there is one object per class.

    Args:
        prompts: Boxes by frame index.

    Returns:
        Boxes on every frame from an object's first to its last.

    Raises:
        InputError: A frame has several boxes of one object, or a prompt has no box.
    """
    tracks: dict[tuple[int, int], dict[int, np.ndarray]] = defaultdict(dict)
    for index, found in sorted(prompts.items()):
        for row, value in enumerate(found.classes.tolist()):
            number = 0 if found.object_ids is None else int(found.object_ids[row])
            if np.isnan(found.boxes[row]).any():
                raise InputError(f"frame {index}: only boxes can be interpolated between frames")
            if index in tracks[value, number]:
                raise InputError(
                    f"frame {index} has several boxes of one object of class {value}; say which "
                    "boxes are one object, or do not interpolate"
                )
            tracks[value, number][index] = found.boxes[row]
    filled: dict[int, tuple[list[np.ndarray], list[int]]] = defaultdict(lambda: ([], []))
    for (value, _), boxes in sorted(tracks.items()):
        known = sorted(boxes)
        sides = np.stack([boxes[index] for index in known])
        for index in range(known[0], known[-1] + 1):
            between = [np.interp(index, known, sides[:, side]) for side in range(4)]
            filled[index][0].append(np.array(between))
            filled[index][1].append(value)
    return {
        index: FramePrompts(np.array(boxes, np.float32), np.array(values, np.int64))
        for index, (boxes, values) in sorted(filled.items())
    }
