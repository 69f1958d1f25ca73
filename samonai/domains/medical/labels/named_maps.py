"""Names of a label map's values: 3D Slicer's header, or ITK-SNAP's description beside the file."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.medical.formats.read_volume import ENDINGS, strip_ending
from samonai.domains.medical.formats.slicer_segmentation import (
    SEGMENTATION_ENDING,
    segment_names,
)

_DESCRIPTIONS = (".label", ".txt")
_MARK = b"itk-snap label description file"
_START = 4096
_ROW = re.compile(r'\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*')
_UNNAMED = re.compile(r"Label \d+|Clear Label")


def label_names(path: Path) -> dict[int, str]:
    """Return label value to name of a label map; empty where nothing names its values.

    A description of ITK-SNAP is `NAME.label` or `NAME.txt` beside the label map, or the only one in
    its folder. Its own "Label 1" names nothing.

    Raises:
        InputError: The names cannot be read, or one names two values.
    """
    if not path.is_file() or not path.name.lower().endswith(ENDINGS):
        return {}
    if path.name.lower().endswith(SEGMENTATION_ENDING):
        names = segment_names(path, str(path))
    else:
        described = _description_of(path)
        names = {} if described is None else read_description(described)
    names = {value: name for value, name in names.items() if name}
    if len(set(names.values())) < len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise InputError(f"{path}: {twice!r:.60} names two label values; rename one")
    return names


def read_description(path: Path) -> dict[int, str]:
    """Return label value to name of ITK-SNAP's label descriptions, without its default names.

    Raises:
        InputError: A row cannot be read.
    """
    names = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _ROW.fullmatch(line)
        if row is None:
            raise InputError(f"{path}: {line.strip()[:40]!r} is no label description of ITK-SNAP")
        value, name = int(row[1]), row[2].strip()
        if value and not _UNNAMED.fullmatch(name):
            names[value] = name
    return names


def by_name(
    label: npt.NDArray[np.int32], names: Mapping[int, str], wanted: Mapping[str, int], path: Path
) -> npt.NDArray[np.int32]:
    """Return a label map with the label values that its names have elsewhere.

    Args:
        label: int32 (I, J, K).
        names: Its label values to names.
        wanted: Name to the value here; other names are left out.
        path: The file, for messages.

    Raises:
        InputError: None of its values has a wanted name.
    """
    values = {value: wanted[name] for value, name in names.items() if name in wanted}
    if not values:
        shown = ", ".join(repr(name)[:60] for name in list(names.values())[:5])
        raise InputError(
            f"{path}: its labels ({shown}) are none of the classes known here "
            f"({', '.join(list(wanted)[:5])}); rename them in the tool"
        )
    mapped = np.zeros_like(label)
    for value, here in values.items():
        mapped[label == value] = here
    return mapped


def _description_of(path: Path) -> Path | None:
    stem = strip_ending(path.name)
    own = [path.with_name(stem + ending) for ending in _DESCRIPTIONS]
    for one in own:
        if one.is_file() and _is_description(one):
            return one
    beside = [
        one
        for one in sorted(path.parent.iterdir())
        if one.suffix.lower() in _DESCRIPTIONS and one.is_file() and _is_description(one)
    ]
    return beside[0] if len(beside) == 1 else None


def _is_description(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK in file.read(_START).lower()
