"""Label maps that clients send, on the grid of their image, with the names of their values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.medical.formats.read_volume import read_raw
from samonai.domains.medical.formats.slicer_segmentation import (
    SEGMENTATION_ENDING,
    on_grid,
    segment_names,
)
from samonai.domains.medical.labels.read_labels import read_label
from samonai.domains.medical.volume import LabelReadOptions, Volume

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
    named = segment_names(path) if path.name.endswith(SEGMENTATION_ENDING) else {}
    if not named:
        label = read_label(path, source)
        return SentLabel(label, names_of(label, info))
    label = on_grid(read_raw(path, LabelReadOptions()), source)
    found = [value for value in np.unique(label).tolist() if value]
    if unknown := [value for value in found if value not in named]:
        raise InputError(f"the segmentation: values {unknown} have no segment in its header")
    return SentLabel(label, named)


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
