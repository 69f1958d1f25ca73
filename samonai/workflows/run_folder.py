"""The folder of a training run: its settings, written first, and what may be done with it again.

* `run.json`: the settings; the same command again resumes, another one is refused.
* `decoder.safetensors`: the result, the best epoch's decoder; its presence ends the run.
* `model.pt`, `last.pt`: the best epoch for MONAI, and the state to resume from.
* `history.json`, `history.csv`, `learning_curve.png`: loss and validation Dice by epoch.
* `tensorboard/`, `store/`: curves; embeddings, unless they are kept elsewhere.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import as_path, remove_abandoned, sha256_file, write_atomically
from samonai.core.locks import LOCK_FILE, locked_folder

FOLDS_FILE, SEEDS_FILE = "folds.json", "seeds.json"
"""What a folder has that holds several runs: k folds, or one recipe with several seeds."""

SETTINGS_FILE, STORE_FOLDER = "run.json", "store"
DECODER_FILE, STATE_FILE, HISTORY_FILE = "decoder.safetensors", "last.pt", "history.json"
CURVE_FILE, SPLIT_FILE = "learning_curve.png", "split.json"

_FORMAT_VERSION = 1
_ENCODER = "encoder_sha256"
_MADE_BY_TRAINING = (
    SETTINGS_FILE, DECODER_FILE, STATE_FILE, HISTORY_FILE, "model.pt", "history.csv", SPLIT_FILE,
    CURVE_FILE,
)  # fmt: skip


class RunFolder:
    """A run's folder on disk.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path | str) -> None:
        """Keep the path."""
        self.path = as_path(path, "the run's folder").absolute()

    @property
    def decoder(self) -> Path:
        """Return where the result lies once the run is complete."""
        return self.path / DECODER_FILE

    @property
    def is_complete(self) -> bool:
        """Return whether the run has its result."""
        return self.decoder.is_file()

    def settings(self) -> dict[str, Any]:
        """Return what `run.json` says.

        Raises:
            InputError: This is no run's folder.
        """
        path = self.path / SETTINGS_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{self.path} is not a run: it has no {SETTINGS_FILE}; give the folder that "
                f"training wrote"
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("format_version") != _FORMAT_VERSION:
            raise InputError(f"{path} was not written by this version of samonai; train again")
        return content

    def store(self) -> str:
        """Return where the run's embeddings are."""
        return str(self.settings().get("store") or self.path / STORE_FOLDER)

    @contextmanager
    def claimed(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[bool]:
        """Hold the folder for one training process, with its settings written.

        A run that fails before its first epoch is done leaves nothing but stored embeddings.

        Args:
            settings: What the run is asked for, as JSON values.
            overwrite: Start over where a run is there already.

        Yields:
            Whether there is anything left to train.

        Raises:
            InputError: The folder holds something else, a run with other settings, or another
                process trains there.
        """
        self._check_is_ours()
        existed = self.path.is_dir()
        try:
            with locked_folder(self.path, "training into"):
                remove_abandoned(self.path, older_than=0)
                try:
                    if overwrite:
                        self._remove_results()
                    self._agree_on(settings)
                    yield not self.is_complete
                finally:
                    if not (self.path / STATE_FILE).exists() and not self.is_complete:
                        self._remove_results()
        finally:
            if not existed:
                _remove_if_empty(self.path)

    def _check_is_ours(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give a folder for the run")
        if not self.path.is_dir() or (self.path / SETTINGS_FILE).exists():
            return
        others = [
            path.name
            for path in self.path.iterdir()
            if path.name not in (LOCK_FILE, STORE_FOLDER) and not path.name.startswith(".writing-")
        ]
        if others:
            raise InputError(
                f"{self.path} holds other things than a run (such as {sorted(others)[0]}); choose "
                f"an empty or a new folder"
            )

    def _agree_on(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, or find that they are those that the run has."""
        wanted = {"format_version": _FORMAT_VERSION, **settings}
        path = self.path / SETTINGS_FILE
        if path.exists() and ((self.path / STATE_FILE).exists() or self.is_complete):
            found = _flat(self.settings())
            asked = _flat(json.loads(json.dumps(wanted)))
            # A model asked for by name has told no hash; the decoder's file has it.
            unsaid = (
                {"samonai"}
                if None not in (found.get(_ENCODER), asked.get(_ENCODER))
                else {"samonai", _ENCODER}
            )
            differing = sorted(
                key
                for key in (found.keys() | asked.keys()) - unsaid
                if found.get(key) != asked.get(key)
            )
            if differing:
                raise InputError(
                    f"{self.path} is a run with other settings ({', '.join(differing)}); choose "
                    f"another folder, or start over with --overwrite"
                )
            return
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n")

    def _remove_results(self) -> None:
        """Remove what training made; embeddings stay, they are valid whatever comes next."""
        for name in _MADE_BY_TRAINING:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        _remove_if_empty(self.path / STORE_FOLDER)


def member_folders(path: Path | str) -> list[Path]:
    """Return the folders of the runs that a folder stands for: its folds or seeds, else itself.

    Raises:
        InputError: The folder's list of runs cannot be read.
    """
    folder = as_path(path, "a run's folder")
    file = next((folder / n for n in (FOLDS_FILE, SEEDS_FILE) if (folder / n).is_file()), None)
    if file is None:
        return [folder]
    try:
        names = list(json.loads(file.read_text(encoding="utf-8"))["members"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is no list of runs that samonai wrote") from error
    return [folder / Path(name).name for name in names]


def path_fingerprint(path: Path | str | None) -> str | None:
    """Return what tells one data folder from another without naming it.

    A folder's name can carry a patient's, so a run's files hold none.
    """
    if path is None:
        return None
    return "sha256:" + hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]


def file_fingerprint(path: Path | str | None) -> str | None:
    """Return what tells one file's content from another's; None for a missing file."""
    if path is None or not Path(path).is_file():
        return None
    return "sha256:" + sha256_file(path)[:16]


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return one level: what stands under "settings" beside the rest."""
    inner = content.get("settings", {})
    return {**{key: value for key, value in content.items() if key != "settings"}, **inner}


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder in which there is nothing but the skeleton of a store."""
    if folder.is_dir() and not any(
        path.is_file() and path.name != "zarr.json" for path in folder.rglob("*")
    ):
        shutil.rmtree(folder, ignore_errors=True)
