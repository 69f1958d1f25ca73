"""From what callers give to what a bundle's configuration takes."""

import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.prompts.values import PromptValues, prompt_values

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

Boxes = Path | str | Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]
"""Boxes as values (N, 6), as what the JSON file holds, or as the file."""


def model_name(sam: "SamNetwork | str") -> str:
    """Return the name of a network, or of a model that is given by its name.

    Raises:
        InputError: It is something else, such as the folder of a run.
    """
    if isinstance(sam, str):
        return sam
    from samonai.sam.network import SamNetwork

    if not isinstance(sam, SamNetwork):
        raise InputError(
            f"the model: expected a name such as 'vit_b' or what load_sam returns, got "
            f"{type(sam).__name__}"
        )
    return sam.name


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
    model_name(sam)
    if checkpoint is not None:
        checkpoint = as_path(checkpoint, "checkpoint")
        if not checkpoint.exists():
            raise InputError(f"checkpoint {checkpoint}: there is no such file or folder")
    if not isinstance(sam, str):
        return {"network_def": sam.fork().eval(), "device": sam.device}
    from samonai.sam.checkpoints import check_sha256
    from samonai.sam.loading import choose_device

    return {
        "model": sam,
        "checkpoint": checkpoint,
        "sha256": None if sha256 is None else check_sha256(sha256),
        "device": choose_device(device),
    }


def load_network(
    sam: "SamNetwork | str",
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
) -> "SamNetwork":
    """Return a network that is given as one, or load the model of that name.

    Args:
        sam: A network, or a model's name.
        checkpoint: The model's weights, where they are not the published ones.
        sha256: The hash that these must have.
        device: Where to compute; a network stays where it is.

    Raises:
        InputError: There is no such model, file or device.
    """
    chosen = network_overrides(sam, checkpoint, sha256, device)
    if not isinstance(sam, str):
        return sam
    from samonai.sam.loading import load_sam

    return load_sam(sam, chosen["checkpoint"], chosen["device"], sha256)


def given_prompts(boxes: Boxes | None) -> Path | PromptValues | None:
    """Return a file of prompts as a path, and values as what a file of them holds.

    Raises:
        InputError: There is no such file, or the values are nothing that a file can hold.
    """
    if boxes is None:
        return None
    return existing(boxes, "boxes") if isinstance(boxes, Path | str) else prompt_values(boxes)


def listed(names: str | Sequence[str], what: str) -> list[str]:
    """Return a list of names; one that is given by itself is one.

    Raises:
        InputError: They are no list.
    """
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Sequence):
        raise InputError(f"{what}: expected a list of names, got {str(names)[:80]!r}")
    return list(names)


def existing(path: Path | str, what: str) -> Path:
    """Return a path that is there.

    Args:
        path: The path.
        what: Named in the message on something that is none, such as "images".

    Raises:
        InputError: It is not.
    """
    path = as_path(path, what)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InputError(f"{str(path)[:200]}: no such file or folder") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: neither a file nor a folder, but a device or a pipe")
    return path


def existing_or_elsewhere(path: Path | str, what: str) -> Path | str:
    """Return a path that is there; else a text, which nobody makes absolute, for the domain."""
    found = as_path(path, what)
    return found if found.exists() else str(path)


def data_paths(images: Path | str, labels: Path | str | None) -> tuple[Path, Path | None]:
    """Return where images and labels are; both are there.

    Raises:
        InputError: They are not.
    """
    return existing(images, "images"), None if labels is None else existing(labels, "labels")


def store_location(store: Path | str) -> str:
    """Return a store's URL, or its folder as an absolute path.

    Raises:
        InputError: The text is empty, as a variable is that nobody set, or names a file.
    """
    path = as_path(store, "the store")
    if "://" in str(store):
        return str(store)
    path = path.absolute()
    if path.is_file():
        raise InputError(f"the store {path} is a file; give a folder")
    return str(path)


def shows_progress(progress: bool | None) -> bool:
    """Say whether to show bars: as asked, else where standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress
