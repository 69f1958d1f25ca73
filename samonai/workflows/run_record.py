"""Readable record of a finished run: its split, its command, versions and hardware.

`split.json` is ready for `--split`; `command.txt` has the command with placeholders for paths,
since a folder may be named after a patient; `environment.json` has versions and the device. None of
them identifies a machine or a person.
"""

import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from samonai.core.files import write_atomically
from samonai.version import __version__
from samonai.workflows.run_folder import SPLIT_FILE

COMMAND_FILE, ENVIRONMENT_FILE = "command.txt", "environment.json"
PACKAGES = ("torch", "monai", "pytorch-ignite", "segment-anything", "numpy", "scipy", "nibabel")

_OWN_OPTIONS = {"model": "--model", "epochs": "--epochs", "seed": "--seed", "heads": "--heads"}
_PLACES = {"val_fraction", "split"}


def write_run_record(
    folder: Path,
    record: Mapping[str, Any],
    defaults: Mapping[str, Any],
    training: Mapping[str, Any],
    device: Any,
) -> None:
    """Write the split, the command and the environment of a run into its folder.

    Args:
        folder: The run's folder.
        record: Content of `run.json`.
        defaults: Settings of the bundle, by full names.
        training: The training record of the decoder, with the cases.
        device: Device that it was trained on.
    """
    split = {"train": training.get("train_cases", []), "val": training.get("val_cases", [])}
    if not (folder / SPLIT_FILE).exists():
        _write(folder / SPLIT_FILE, json.dumps(split, indent=1))
    _write(folder / COMMAND_FILE, train_command(record, defaults))
    environment = {
        **environment_facts(device),
        "seed": record["settings"].get("seed"),
    }
    _write(folder / ENVIRONMENT_FILE, json.dumps(environment, indent=1))


def train_command(record: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the command that trains a run again, with placeholders for its paths.

    Args:
        record: Content of `run.json`.
        defaults: Settings of the bundle, by full names.
    """
    settings = record["settings"]
    words = ["samonai", "train", str(record["domain"]), "--images", "IMAGES"]
    words += ["--labels", "LABELS"] if record.get("labels") else []
    words += ["--out", "RUN", "--split", "split.json"]
    for name, option in _OWN_OPTIONS.items():
        if settings.get(name) is not None:
            words += [option, str(settings[name])]
    words += ["--checkpoint", "CHECKPOINT"] if record.get("checkpoint") else []
    for name, value in _changed(settings, defaults):
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{name}={text}"]
    return shlex.join(words)


def environment_facts(device: Any) -> dict[str, Any]:
    """Return versions and hardware as JSON values."""
    import torch

    chosen = torch.device(device)
    named = (
        torch.cuda.get_device_name(chosen)
        if chosen.type == "cuda"
        else f"CPU ({platform.machine()})"
    )
    return {
        "samonai": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "device": named,
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings without an option of their own that differ from the defaults."""
    for name, value in sorted(settings.items()):
        if name in _OWN_OPTIONS or name in _PLACES:
            continue
        if name in defaults and defaults[name] != value:
            yield name, value


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
