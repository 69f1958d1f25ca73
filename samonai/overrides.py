"""From what callers give to what a bundle's configuration takes."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samonai.errors import InputError

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

Boxes = Path | str | Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]
"""Boxes as values (N, 6), as what the JSON file holds, or as the file."""


def network_overrides(
    sam: "SamNetwork | str",
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
) -> dict[str, Any]:
    """Return what tells a bundle which network to use.

    Args:
        sam: A network, of which the bundle gets a fork; or a model's name.
        checkpoint: The model's weights, where they are not the published ones.
        sha256: The hash that these must have.
        device: Where to compute; a network stays where it is.

    Raises:
        InputError: There is no such file or device.
    """
    if not isinstance(sam, str):
        return {"network_def": sam.fork().eval(), "device": sam.device}
    from samonai.sam.loading import choose_device

    if checkpoint is not None:
        checkpoint = Path(checkpoint).expanduser()
        if not checkpoint.is_file():
            raise InputError(f"checkpoint {checkpoint}: there is no such file")
    return {
        "model": sam,
        "checkpoint": checkpoint,
        "sha256": sha256,
        "device": choose_device(device),
    }


def boxes_file(boxes: Boxes, scratch: Path) -> Path:
    """Return the file of boxes; values are written into `scratch` first.

    Raises:
        InputError: The values are nothing that a file can hold.
    """
    if isinstance(boxes, Path | str):
        return Path(boxes).expanduser()
    content = boxes if isinstance(boxes, Mapping) else {"boxes": boxes}
    path = scratch / "boxes.json"
    try:
        path.write_text(json.dumps(content, default=lambda value: np.asarray(value).tolist()))
    except (TypeError, ValueError) as error:  # numpy gives back what it does not know
        raise InputError(f"boxes of type {type(boxes).__name__}: expected numbers") from error
    return path


def existing(path: Path | str) -> Path:
    """Return a path that is there.

    Raises:
        InputError: It is not.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return path


def existing_or_elsewhere(path: Path | str) -> Path | str:
    """Return a path that is there; else a text, which nobody makes absolute, for the domain."""
    found = Path(path).expanduser()
    return found if found.exists() else str(path)


def store_location(store: Path | str) -> str:
    """Return a store's URL, or its folder as an absolute path.

    Raises:
        InputError: The text is empty, as a variable is that nobody set, or names a file.
    """
    text = str(store)
    if not text:
        raise InputError("the store has an empty name; give a folder")
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    if path.is_file():
        raise InputError(f"the store {path} is a file; give a folder")
    return str(path)


def shows_progress(progress: bool | None) -> bool:
    """Say whether to show bars: as asked, else where standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress
