"""Arguments of the workflows: networks, paths, prompts and stores, checked."""

import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.progress_lines import told_by_lines
from samonai.prompts.values import PromptValues, prompt_values
from samonai.workflows.pacs_ends import is_pacs

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

Boxes = Path | str | Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]
"""Boxes as values (N, 6), as the content of the JSON file, or as the file."""


def model_name(sam: "SamNetwork | str") -> str:
    """Return the name of a network, or the given name of a model.

    Raises:
        InputError: The argument is neither, but for example the folder of a run.
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
    """Return a bundle's overrides for a network.

    Args:
        sam: A network, of which the bundle gets a fork; or a model's name.
        checkpoint: The model's weights, if not the published ones.
        sha256: Their expected hash.
        device: Device of computation; a network stays on its own.

    Raises:
        InputError: The file or device does not exist.
    """
    model_name(sam)
    checkpoint = existing_checkpoint(checkpoint)
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


def existing_checkpoint(path: Path | str | None) -> Path | None:
    """Return the path of a model's weights after checking that it exists; None: none is given.

    Raises:
        InputError: There is no such file or folder.
    """
    if path is None:
        return None
    path = as_path(path, "checkpoint")
    if not path.exists():
        raise InputError(f"checkpoint {path}: there is no such file or folder")
    return path


def load_network(
    sam: "SamNetwork | str",
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
) -> "SamNetwork":
    """Return a given network, or load the model of that name.

    Args:
        sam: A network, or a model's name.
        checkpoint: The model's weights, if not the published ones.
        sha256: Their expected hash.
        device: Device of computation; a network stays on its own.

    Raises:
        InputError: The model, file or device does not exist.
    """
    chosen = network_overrides(sam, checkpoint, sha256, device)
    if not isinstance(sam, str):
        return sam
    from samonai.sam.loading import load_sam

    return load_sam(sam, chosen["checkpoint"], chosen["device"], sha256)


def given_prompts(boxes: Boxes | None) -> Path | PromptValues | None:
    """Return a file of prompts as a path, and values as the content of such a file.

    Raises:
        InputError: The file does not exist, or the values cannot be the content of one.
    """
    if boxes is None:
        return None
    return existing(boxes, "boxes") if isinstance(boxes, Path | str) else prompt_values(boxes)


def check_prompt(prompt: str | None) -> None:
    """Refuse a prompt in words that is empty, as from an unset variable.

    Raises:
        InputError: The prompt is empty.
    """
    if prompt is not None and not prompt.strip():
        raise InputError("the prompt is empty; leave it out to predict all classes")


def listed(names: str | Sequence[str], what: str) -> list[str]:
    """Return a list of names; a single name is a list of one.

    Raises:
        InputError: The argument is not a list of names.
    """
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Sequence):
        raise InputError(f"{what}: expected a list of names, got {str(names)[:80]!r}")
    return list(names)


def existing(path: Path | str, what: str) -> Path:
    """Return a path after checking that it exists.

    Args:
        path: The path.
        what: Name of the argument in messages, such as "images".

    Raises:
        InputError: The path does not exist, or is a device or a pipe.
    """
    if is_pacs(path):
        raise InputError(
            f"{what}: a PACS is read by predict, by embed --archive and by serve --dicomweb; fetch "
            f"the series into a folder"
        )
    path = as_path(path, what)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InputError(f"{str(path)[:200]}: no such file or folder") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: neither a file nor a folder, but a device or a pipe")
    return path


def existing_or_elsewhere(path: Path | str, what: str) -> Path | str:
    """Return an existing path; else the unchanged text, for the domain."""
    found = as_path(path, what)
    return found if found.exists() else str(path)


def data_paths(images: Path | str, labels: Path | str | None) -> tuple[Path, Path | None]:
    """Return the paths of images and labels after checking that they exist.

    Raises:
        InputError: A path does not exist.
    """
    return existing(images, "images"), None if labels is None else existing(labels, "labels")


def store_location(store: Path | str) -> str:
    """Return a store's URL, or its folder as an absolute path.

    Raises:
        InputError: The text is empty, as from an unset variable, or names a file.
    """
    path = as_path(store, "the store")
    if "://" in str(store):
        return str(store)
    path = path.absolute()
    if path.is_file():
        raise InputError(f"the store {path} is a file; give a folder")
    return str(path)


def shows_progress(progress: bool | None, *, lines: bool = False) -> bool:
    """Return whether to show progress: as given, else if standard error is a terminal.

    Args:
        progress: As given by the caller.
        lines: Whether the work prints lines where there is no terminal, as it does for the command
            line.
    """
    if progress is not None:
        return progress
    return sys.stderr.isatty() or (lines and told_by_lines.get())
