"""Run folder of a training: its settings, written first, and the checks before it is used again.

* `run.json`: the settings; the same command again resumes, another one is refused.
* `decoder.safetensors`: the result, the best epoch's decoder; its presence ends the run.
* `data.json`: a digest of every case's files; a finished run is not taken for one on other data.
* `model.pt`, `last.pt`: the best epoch for MONAI, and the state to resume from.
* `history.json`, `history.csv`, `learning_curve.png`: loss and validation Dice by epoch.
* `split.json`, `command.txt`, `environment.json`: the cases, the command with placeholders for
  paths, versions and hardware; see `run_record`.
* `tensorboard/`, `store/`: curves; embeddings, unless they are kept elsewhere.
"""

import hashlib
import hmac
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import (
    STORE_FILE,
    as_path,
    remove_abandoned,
    sha256_file,
    write_atomically,
)
from samonai.core.json_files import read_json
from samonai.core.locks import LOCK_FILE, locked_folder
from samonai.core.pseudonyms import salt
from samonai.core.sealed import DIGEST_KEY, is_whole, sealed
from samonai.settings import current_names
from samonai.workflows.run_data import DATA_FILE

logger = logging.getLogger(__name__)

FOLDS_FILE, SEEDS_FILE = "folds.json", "seeds.json"
"""Files that mark a folder of several runs: k folds, or one recipe with several seeds."""

SETTINGS_FILE, STORE_FOLDER = "run.json", "store"
DECODER_FILE, STATE_FILE, HISTORY_FILE = "decoder.safetensors", "last.pt", "history.json"
CURVE_FILE, SPLIT_FILE = "learning_curve.png", "split.json"

_FORMAT_VERSION = 1
_ENCODER, _STORE_MARK, _VERSION = "encoder_sha256", "store_mark", "samonai"
_MADE_BY_TRAINING = (
    SETTINGS_FILE, DECODER_FILE, STATE_FILE, HISTORY_FILE, "model.pt", "history.csv", SPLIT_FILE,
    CURVE_FILE, DATA_FILE, "command.txt", "environment.json",
)  # fmt: skip


class RunFolder:
    """A run's folder on disk.

    Args:
        path: The folder; it may not exist.
    """

    def __init__(self, path: Path | str) -> None:
        """Keep the path."""
        self.path = as_path(path, "the run's folder").absolute()

    @property
    def decoder(self) -> Path:
        """Return the path of the result of a complete run."""
        return self.path / DECODER_FILE

    @property
    def is_complete(self) -> bool:
        """Return whether the run has its result."""
        return self.decoder.is_file()

    def settings(self) -> dict[str, Any]:
        """Return the settings in `run.json`.

        Raises:
            InputError: The folder is not a run's.
        """
        found = self._content()
        return {k: v for k, v in found.items() if k not in (DIGEST_KEY, _STORE_MARK)}

    def store(self) -> str:
        """Return the location of the run's embeddings.

        A store elsewhere is used only if this user's training wrote its location, which a keyed
        hash in `run.json` proves: an untrusted run must not choose where embeddings of patients are
        stored.
        """
        content, own = self._content(), str(self.path / STORE_FOLDER)
        store = content.get("store")
        if store is None:
            return own
        mark = _store_mark(store) if isinstance(store, str) else None
        given = content.get(_STORE_MARK)
        if mark and isinstance(given, str) and hmac.compare_digest(given.encode(), mark.encode()):
            return str(store)
        logger.warning(
            "%s names a store that was not chosen by you on this machine, so it is not used; "
            "embeddings are kept in %s",
            self.path / SETTINGS_FILE,
            own,
        )
        return own

    def _content(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        path = self.path / SETTINGS_FILE
        try:
            content = read_json(path)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.path} is not a run: it has no {SETTINGS_FILE}; give the folder that "
                f"training wrote"
            ) from error
        if (
            not isinstance(content, dict)
            or content.get("format_version") != _FORMAT_VERSION
            or not isinstance(content.get("settings", {}), dict)
        ):
            raise InputError(f"{path} was not written by this version of samonai; train again")
        if DIGEST_KEY in content and not is_whole(content):
            raise InputError(
                f"{path} is damaged or was edited: its checksum differs; copy it again, or train "
                f"again with --overwrite"
            )
        return {**content, "settings": current_names(content.get("settings", {}))}

    @contextmanager
    def locked(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[bool]:
        """Lock the folder for one training process, with its settings written.

        A run that fails before the end of its first epoch leaves only stored embeddings.

        Args:
            settings: The requested settings, as JSON values.
            overwrite: Start over if there is a run already.

        Yields:
            Whether training is unfinished.

        Raises:
            InputError: The folder holds other files, a run with other settings, or another
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
        """Write the settings, or check that they equal those of the run."""
        wanted = {"format_version": _FORMAT_VERSION, **settings}
        path = self.path / SETTINGS_FILE
        if path.exists() and ((self.path / STATE_FILE).exists() or self.is_complete):
            found = _flat(self.settings())
            asked = _flat(json.loads(json.dumps(wanted)))
            if None in (found.get(_ENCODER), asked.get(_ENCODER)):
                # A model given by name has no hash yet; the decoder's file has it.
                found.pop(_ENCODER, None)
                asked.pop(_ENCODER, None)
            differing = sorted(
                key for key in found.keys() | asked.keys() if found.get(key) != asked.get(key)
            )
            if differing:
                raise InputError(
                    f"{self.path} is a run with other settings ({', '.join(differing)}); choose "
                    f"another folder, or start over with --overwrite"
                )
            return
        if isinstance(store := wanted.get("store"), str) and (mark := _store_mark(store)):
            wanted[_STORE_MARK] = mark
        with write_atomically(path) as temporary:
            text = json.dumps(sealed(json.loads(json.dumps(wanted))), indent=1, sort_keys=True)
            temporary.write_text(text + "\n")

    def _remove_results(self) -> None:
        """Remove the results of training; embeddings stay, since they remain valid."""
        for name in _MADE_BY_TRAINING:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        _remove_if_empty(self.path / STORE_FOLDER)


def member_folders(path: Path | str) -> list[Path]:
    """Return the run folders of a folder: its folds or seeds, else itself.

    Raises:
        InputError: The folder's list of runs cannot be read.
    """
    folder = as_path(path, "a run's folder")
    file = next((folder / n for n in (FOLDS_FILE, SEEDS_FILE) if (folder / n).is_file()), None)
    if file is None:
        return [folder]
    try:
        content = read_json(file)
        if DIGEST_KEY in content and not is_whole(content):
            raise InputError(f"{file} is damaged or was edited: its checksum differs")
        names = list(content["members"])
        return [folder / Path(name).name for name in names]
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is no list of runs that samonai wrote") from error


def path_fingerprint(path: Path | str | None) -> str | None:
    """Return an identifier of a data folder without its name.

    A folder's name can contain a patient's, so a run's files do not hold it.
    """
    return None if path is None else text_fingerprint(os.path.abspath(path))


def text_fingerprint(text: str) -> str:
    """Return an identifier of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def file_fingerprint(path: Path | str | None) -> str | None:
    """Return an identifier of a file's content; None for a missing file."""
    if path is None or not Path(path).is_file():
        return None
    return "sha256:" + sha256_file(path)[:16]


def _store_mark(store: str) -> str | None:
    """Return the proof that this user chose a store; None if no secret can be kept."""
    try:
        key = salt()
    except InputError:
        return None
    return hmac.new(key, f"store {store}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return one level: the settings beside the rest, without the version that wrote them."""
    flat = {key: value for key, value in content.items() if key not in ("settings", _VERSION)}
    return flat | content.get("settings", {})


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds only the skeleton of a store."""
    if folder.is_dir() and not any(
        path.is_file() and path.name != STORE_FILE for path in folder.rglob("*")
    ):
        shutil.rmtree(folder, ignore_errors=True)
