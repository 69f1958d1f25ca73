"""3D Slicer segmentations (.seg.nrrd): names of the segments, and their place in the image's grid.

Slicer may crop a segmentation to its segments: its grid is then a part of the image's.
"""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from samonai.core.errors import InputError
from samonai.domains.medical.volume import RawVolume, Volume, same_grid

SEGMENTATION_ENDING = ".seg.nrrd"
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


def segment_names(path: Path, where: str = "the segmentation") -> dict[int, str]:
    """Return the segment's name of each value, from the header; empty: a plain label map.

    Raises:
        InputError: Segments lie in several layers, since they overlap, or share a value.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{where}: its header cannot be read; save it again") from error
    fields: dict[int, dict[str, str]] = {}
    for key in reader.GetMetaDataKeys():
        if match := _SEGMENT.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = reader.GetMetaData(key)
    if len({one.get("Layer", "0") for one in fields.values()}) > 1:
        raise InputError(
            f"{where}: its segments overlap, and a label map has one structure per voxel; "
            "switch off overlapping segments in the module's settings"
        )
    values = [one.get("LabelValue", "") for one in fields.values()]
    if not all(value.isdigit() and int(value) for value in values) or len(set(values)) < len(
        values
    ):
        raise InputError(f"{where}: expected a label value of its own for each segment")
    return {int(one["LabelValue"]): one.get("Name", "").strip() for one in fields.values()}


def on_grid(
    raw: RawVolume, source: Volume, where: str = "the segmentation"
) -> npt.NDArray[np.int32]:
    """Return a cropped label map on the grid of its image.

    Raises:
        InputError: Its voxels are not those of the image, or it goes beyond the image.
    """
    if raw.array.dtype.kind not in "iu" or (raw.array.size and int(raw.array.min()) < 0):
        raise InputError(f"{where}: expected whole numbers from 0, got {raw.array.dtype}")
    start = np.rint((np.linalg.inv(source.affine) @ raw.affine[:, 3])[:3]).astype(int)
    shifted = source.affine.copy()
    shifted[:, 3] = source.affine @ np.append(start, 1)
    if not same_grid(raw.affine, shifted, raw.array.shape):
        raise InputError(
            f"{where} lies on another grid than the image; set the image as its source "
            "geometry in 3D Slicer"
        )
    stop = start + raw.array.shape
    inside = [slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True)]
    kept = tuple(
        slice(max(-a, 0), max(min(n, b) - a, 0))
        for a, b, n in zip(start, stop, source.shape, strict=True)
    )
    if np.count_nonzero(raw.array[kept]) < np.count_nonzero(raw.array):
        raise InputError(f"{where} goes beyond the image; crop it to the image")
    label = np.zeros(source.shape, np.int32)
    label[tuple(inside)] = raw.array[kept]
    return label
