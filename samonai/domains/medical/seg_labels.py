"""Segments of a DICOM-SEG object as masks on the grid of the series that they refer to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from samonai.domains.medical.dicom_files import element
from samonai.domains.medical.itk import LPS_TO_RAS
from samonai.domains.medical.volume import Volume, format_shape
from samonai.errors import InputError

FRACTION = 0.5
"""A voxel of a fractional segment is inside from this share of the largest value on."""

# Voxel centres of label and image may differ by this many voxels, as corners of `same_grid` may.
_TOLERANCE_VOXELS = 0.05
_BACKGROUND = 0  # the segment number that label maps keep for it

Mask = npt.NDArray[np.bool_]


def segment_names(header: Dataset, path: Path) -> dict[int, str]:
    """Return the labels of an object's segments by number, without the background."""
    names = {}
    for item in element(header, "SegmentSequence", path) or []:
        number = int(element(item, "SegmentNumber", path) or 0)
        if number != _BACKGROUND:
            names[number] = str(element(item, "SegmentLabel", path) or f"segment_{number}").strip()
    return names


def read_segments(path: Path, reference: Volume) -> Iterator[tuple[str, Mask]]:
    """Yield each segment's name and mask; segments of one name are one structure.

    Frames are placed one by one by their own positions, so that it does not matter in which order
    they come, which of them are left out, or whether the series is tilted.

    Args:
        path: The object: BINARY, FRACTIONAL (see `FRACTION`) or LABELMAP.
        reference: The volume of the series.

    Yields:
        Name, and bool (I, J, K) on the reference's grid.

    Raises:
        InputError: The object is damaged, or a frame lies on another grid.
    """
    try:
        segmentation = hd.seg.segread(path)
    except Exception:  # highdicom and pydicom raise almost anything on damaged files
        raise InputError(f"{path}: not a readable DICOM-SEG object; export it again") from None
    numbers: dict[str, list[int]] = {}
    for number, name in segment_names(segmentation, path).items():
        numbers.setdefault(name, []).append(number)
    frames = _frames(segmentation, path, reference)
    for name, of_name in numbers.items():
        mask = np.zeros(reference.shape, bool)
        for segment, places in frames:
            if segment is None or segment in of_name:
                _paint(mask, segmentation, places, of_name if segment is None else None, path)
        yield name, mask


_Places = tuple[int, npt.NDArray[np.float64]]


def _frames(segmentation: Any, path: Path, reference: Volume) -> list[tuple[int | None, _Places]]:
    """Return each frame's segment (None: a label map's) and how its pixels map to voxels."""
    to_voxels = np.linalg.inv(LPS_TO_RAS @ reference.affine)
    shared = (element(segmentation, "SharedFunctionalGroupsSequence", path) or [Dataset()])[0]
    found: list[tuple[int | None, _Places]] = []
    for index, frame in enumerate(element(segmentation, "PerFrameFunctionalGroupsSequence", path)):
        number = _find(frame, shared, "SegmentIdentificationSequence", path)
        position = _find(frame, shared, "PlanePositionSequence", path)
        orientation = _find(frame, shared, "PlaneOrientationSequence", path)
        measures = _find(frame, shared, "PixelMeasuresSequence", path)
        if position is None or orientation is None or measures is None:
            raise InputError(f"{path}: frame {index + 1} has no position; export it again")
        between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
        cosines = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
        lps = np.zeros((4, 3))
        lps[:3, 0], lps[:3, 1] = cosines[0] * between_columns, cosines[1] * between_rows
        lps[:, 2] = [*(float(v) for v in position.ImagePositionPatient), 1]
        segment = None if number is None else int(number.ReferencedSegmentNumber)
        found.append((segment, (index, (to_voxels @ lps)[:3])))
    return found


def _find(frame: Dataset, shared: Dataset, group: str, path: Path) -> Dataset | None:
    for place in (frame, shared):
        if items := element(place, group, path):
            return items[0]
    return None


def _paint(
    mask: Mask, segmentation: Any, places: _Places, values: list[int] | None, path: Path
) -> None:
    """Set the voxels of one frame; `values` are those that count in a label map."""
    index, pixel_to_voxel = places
    try:
        stored = np.asarray(segmentation.get_stored_frame(index, as_index=True))
    except Exception:
        raise InputError(f"{path}: pixel data cut short or damaged; copy it again") from None
    whole = np.rint(pixel_to_voxel)
    extent = np.array([stored.shape[1], stored.shape[0], 1])
    if (np.abs(pixel_to_voxel - whole) * extent).max() > _TOLERANCE_VOXELS:
        raise InputError(
            f"{path}: frame {index + 1} of {stored.shape[1]}x{stored.shape[0]} does not lie on the "
            f"voxels of the image of {format_shape(mask.shape)}; resample it onto the image"
        )
    if values is not None:
        inside = np.isin(stored, values)
    elif str(segmentation.SegmentationType) == "FRACTIONAL":
        inside = stored >= FRACTION * float(segmentation.MaximumFractionalValue)
    else:
        inside = stored > 0
    rows, columns = np.nonzero(inside)
    pixels = np.stack([columns, rows, np.ones_like(rows)])
    voxels = (whole.astype(np.int64) @ pixels).astype(np.int64)
    if ((voxels < 0) | (voxels >= np.array(mask.shape)[:, None])).any():
        raise InputError(f"{path}: frame {index + 1} reaches out of the image; is it of this scan?")
    mask[tuple(voxels)] = True


def referenced_series(header: Dataset, path: Path) -> set[str]:
    """Return the SeriesInstanceUIDs that an object refers to; none when it does not say."""
    items = element(header, "ReferencedSeriesSequence", path) or []
    return {str(item.get("SeriesInstanceUID", "")) for item in items} - {""}
