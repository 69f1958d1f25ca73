"""Label maps that clients send, on the grid of their image, with the names of their values."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from samonai.core.errors import InputError
from samonai.domains.medical.formats.read_volume import read_raw
from samonai.domains.medical.labels.read_labels import read_label
from samonai.domains.medical.volume import LabelReadOptions, RawVolume, Volume, same_grid
from samonai.serve.monailabel.wire import SEGMENTATION_ENDING

_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")
_LEFT_OUT = ("background", "foreground_scribbles", "background_scribbles")
"""Segments that are no structures; 3D Slicer's module leaves them out of `label_info` too."""


class SentLabel(NamedTuple):
    """A label map that a client sent.

    Attributes:
        label: int32 (I, J, K), the client's values on the image's grid.
        names: Name by value.
    """

    label: npt.NDArray[np.int32]
    names: Mapping[int, str]

    def structures(self) -> "SentLabel":
        """Return the label map without the segments that 3D Slicer's module paints with."""
        kept = {value: name for value, name in self.names.items() if name not in _LEFT_OUT}
        left_out = [value for value in self.names if value not in kept]
        return SentLabel(np.where(np.isin(self.label, left_out), 0, self.label), kept)


def read_sent_label(path: Path, source: Volume, info: Any) -> SentLabel:
    """Return a label map that a client sent.

    A segmentation of 3D Slicer (`.seg.nrrd`) is cropped to its segments and names them in its
    header; it is put back on the image's grid.

    Args:
        path: The file.
        source: The image.
        info: Names as the client lists them; see `names_of`.

    Raises:
        InputError: The file cannot be read, lies on another grid, or its names are not clear.
    """
    named = _segments(path) if path.name.endswith(SEGMENTATION_ENDING) else {}
    if not named:
        label = read_label(path, source)
        return SentLabel(label, names_of(label, info))
    label = _on_grid(read_raw(path, LabelReadOptions()), source)
    found = [value for value in np.unique(label).tolist() if value]
    if unknown := [value for value in found if value not in named]:
        raise InputError(f"the segmentation: values {unknown} have no segment in its header")
    return SentLabel(label, named)


def _segments(path: Path) -> dict[int, str]:
    """Return the segment's name of each value, from the header; empty: a plain label map.

    Raises:
        InputError: Segments lie in several layers, since they overlap, or share a value.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError("the segmentation: its header cannot be read; save it again") from error
    fields: dict[int, dict[str, str]] = {}
    for key in reader.GetMetaDataKeys():
        if match := _SEGMENT.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = reader.GetMetaData(key)
    if len({one.get("Layer", "0") for one in fields.values()}) > 1:
        raise InputError(
            "the segmentation: its segments overlap, and a label map has one structure per voxel; "
            "switch off overlapping segments in the module's settings"
        )
    values = [one.get("LabelValue", "") for one in fields.values()]
    if not all(value.isdigit() and int(value) for value in values) or len(set(values)) < len(
        values
    ):
        raise InputError("the segmentation: expected a label value of its own for each segment")
    return {int(one["LabelValue"]): one.get("Name", "").strip() for one in fields.values()}


def _on_grid(raw: RawVolume, source: Volume) -> npt.NDArray[np.int32]:
    """Return a cropped label map on the grid of its image.

    Raises:
        InputError: Its voxels are not those of the image, or it goes beyond the image.
    """
    if raw.array.dtype.kind not in "iu" or (raw.array.size and int(raw.array.min()) < 0):
        raise InputError(f"the segmentation: expected whole numbers from 0, got {raw.array.dtype}")
    start = np.rint((np.linalg.inv(source.affine) @ raw.affine[:, 3])[:3]).astype(int)
    shifted = source.affine.copy()
    shifted[:, 3] = source.affine @ np.append(start, 1)
    if not same_grid(raw.affine, shifted, raw.array.shape):
        raise InputError(
            "the segmentation lies on another grid than the image; set the image as its source "
            "geometry in 3D Slicer"
        )
    stop = start + raw.array.shape
    inside = [slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True)]
    kept = tuple(
        slice(max(-a, 0), max(min(n, b) - a, 0))
        for a, b, n in zip(start, stop, source.shape, strict=True)
    )
    if np.count_nonzero(raw.array[kept]) < np.count_nonzero(raw.array):
        raise InputError("the segmentation goes beyond the image; crop it to the image")
    label = np.zeros(source.shape, np.int32)
    label[tuple(inside)] = raw.array[kept]
    return label


def names_of(label: npt.NDArray[np.integer], info: Any) -> dict[int, str]:
    """Return the name of each value of a label map that a client sent.

    3D Slicer numbers the names of all segments, but the values of those that it sends. The two
    differ where a segment such as "background" is left out.

    Args:
        label: The label map.
        info: From JSON, `[{"name": …, "idx": …}, …]` in the order of the segments.

    Raises:
        InputError: The names are not readable, a value has none, or two readings differ.
    """
    if not isinstance(info, list) or not all(isinstance(one, dict) for one in info):
        raise InputError('label_info: expected [{"name": …, "idx": …}, …]')
    names = [str(one.get("name", "")).strip() for one in info]
    numbers = [one.get("idx", one.get("id")) for one in info]
    if not all(names) or len(set(names)) < len(names):
        raise InputError("label_info: expected a name for each segment, none of them twice")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise InputError("label_info: expected idx, a label value from 1 up, for each segment")
    by_number = dict(zip(numbers, names, strict=True))
    by_place = dict(enumerate((name for _, name in sorted(by_number.items())), 1))
    found = np.flatnonzero(np.bincount(label.ravel(order="K"))).tolist()
    values = [value for value in found if value]
    fitting = [r for r in (by_number, by_place) if all(value in r for value in values)]
    if not fitting or len(by_number) < len(names):
        raise InputError(f"label_info: label values {values} are not those of {sorted(by_number)}")
    if len(fitting) == 2 and any(by_number[value] != by_place[value] for value in values):
        raise InputError(
            "label_info: it is not clear which segment each label value belongs to; remove the "
            'segment "background" and save again'
        )
    return fitting[0]
