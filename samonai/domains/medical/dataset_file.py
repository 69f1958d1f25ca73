"""Metadata of a dataset.json: names of classes, and the label value to ignore."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from samonai.core.json_files import read_json

_IGNORE = "ignore"  # nnU-Net's name for unannotated voxels


def read_class_names(images: Path | str, labels: Path | str | None = None) -> dict[int, str] | None:
    """Return the class names of a dataset.json, value to name, without background.

    Both directions are supported: decathlon's {"1": "liver"} and nnU-Net's {"liver": 1};
    nnU-Net's regions (lists of values) have no single value and are left out, and so is its
    "ignore", which is not a class.

    Args:
        images: As in `find_cases`; the file is searched in it and beside it.
        labels: Likewise, searched second.

    Returns:
        The names, or None without a dataset.json or usable "labels".
    """
    for named in _named_labels(images, labels):
        if names := _names(named):
            return {value: name for value, name in names.items() if name != _IGNORE}
    return None


def ignored_values(images: Path, labels: Path | None) -> tuple[int, ...]:
    """Return the label values named "ignore" in a dataset.json: unannotated voxels."""
    for named in _named_labels(images, labels):
        if names := _names(named):
            return tuple(value for value, name in names.items() if name == _IGNORE)
    return ()


def _named_labels(images: Path | str, labels: Path | str | None) -> Iterator[dict[str, Any]]:
    """Yield the content of "labels" in the dataset.json files of a data set."""
    for place in (images, labels):
        if place is None:
            continue
        path = Path(place)
        candidates = [path] if path.suffix.lower() == ".json" else []
        candidates += [path / "dataset.json", path.parent / "dataset.json"]
        for candidate in candidates:
            if candidate.is_file():
                content = read_json(candidate)
                named = content.get("labels") if isinstance(content, dict) else None
                if isinstance(named, dict):
                    yield named


def _names(named: dict[str, Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for key, value in named.items():
        if isinstance(value, int) and not isinstance(value, bool):
            number, name = value, key
        elif key.isdigit() and isinstance(value, str):
            number, name = int(key), value
        else:
            continue
        if number > 0:
            names[number] = name
    return dict(sorted(names.items()))
