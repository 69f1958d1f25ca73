"""Display of slices in radiological convention: how a frame is turned on the screen.

A frame is never flipped in memory. On the screen, axial slices show the patient's right on the left
and anterior at the top, coronal ones the right on the left and the head at the top, sagittal ones
anterior on the left and the head at the top.
"""

from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

_WANTED = {2: ("L", "P"), 1: ("L", "I"), 0: ("P", "I")}
"""By the patient axis that slices lie across (0 R-L, 1 P-A, 2 I-S): to the right, and down."""
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def display_of(affine: npt.NDArray[np.floating], axis: int) -> dict[str, Any]:
    """Return how frames across an array axis are shown.

    Args:
        affine: float (4, 4), index to mm in RAS+.
        axis: The array axis that frames are cut across; a frame's columns run along the earlier
            of the other two, its rows along the later one.

    Returns:
        "transpose" first, then "flip_x" and "flip_y"; "aspect", height of a row over width of a
        column as shown; "marks", what lies at the left, right, top and bottom; "plane".
    """
    codes = nib.aff2axcodes(affine)
    spacing = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(0))
    columns, rows = (n for n in range(3) if n != axis)
    across = _AXES[codes[axis]]
    right, down = _WANTED[across]
    transpose = _AXES[codes[columns]] != _AXES[right]
    x_axis, y_axis = (rows, columns) if transpose else (columns, rows)
    return {
        "transpose": bool(transpose),
        "flip_x": codes[x_axis] != right,
        "flip_y": codes[y_axis] != down,
        "aspect": float(spacing[y_axis] / spacing[x_axis]),
        "marks": [_OPPOSITE[right], right, _OPPOSITE[down], down],
        "plane": ("sagittal", "coronal", "axial")[across],
    }


FLAT = {
    "transpose": False, "flip_x": False, "flip_y": False, "aspect": 1.0,
    "marks": ["", "", "", ""], "plane": "",
}  # fmt: skip
"""Pictures, rasters and pages: as they are."""
