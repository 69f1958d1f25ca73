"""Training on finished cases in another process, and the decoder that takes over.

The command is `samonai train`, on the saved labels and over the session's store, so that frames
that were looked at are not encoded again. Afterwards `samonai evaluate` measures the new decoder
and the one in use on the cases that were held out; the new one takes over where it is better, and
the one before stays at hand.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import read_json
from samonai.sam.decoder_metadata import read_decoder_metadata, trained_cases
from samonai.serve.saving import saved_label
from samonai.serve.workspace import Workspace
from samonai.settings import options
from samonai.settings.choices import BOTH
from samonai.workflows.session import Session

logger = logging.getLogger(__name__)

FEWEST_CASES = 2
TRAINING_SETTINGS: Mapping[str, Any] = {
    "interactive.click_rounds": 3,
    "decoder_window": "auto",
    "learning_rate": 3e-4,
}
"""Settings of every training: users correct by clicks, so the decoder learns from clicks; few
frames need a larger learning rate than the default, and local decoding saves the users' time."""

_LARGEST_BATCH, _FRAMES_OF_BATCH = 4, 40
"""Frames in a step, one for so many annotated frames: a dozen frames still make enough steps."""

_STATE_FILE = "state.json"
_SPLIT_FILE = "split.json"
_HELD_OUT = 0.2
_GRACE_SECONDS = 10.0
_LAST_LINES = 400

IDLE, TRAINING, MEASURING, FAILED = "idle", "training", "measuring", "failed"


class Learner:
    """Trains on finished cases while annotation goes on.

    Args:
        workspace: Gives the cases, and takes the new session.
        open_session: Opens a run's folder as the workspace's kind of session; None: the session
            that the server was started with.
        checkpoint: The model's weights, if not the published ones.
        heads: Heads of each training, see `samonai train`; None: those of the decoder in use, or
            the domain's default without one.
        store: Where embeddings are kept; None: in each run.
        settings: Settings of training by name, beside `TRAINING_SETTINGS` and the domain's own.
        epochs: Epochs of each training.
        execute: Runs the arguments of a verb, with its output in a log file, and returns the exit
            code; None: in a process of its own.
    """

    def __init__(
        self,
        workspace: Workspace,
        open_session: Callable[[Path | None], Session],
        *,
        checkpoint: Path | str | None = None,
        heads: str | None = None,
        store: str | None = None,
        settings: Mapping[str, Any] | None = None,
        epochs: int = 20,
        execute: Callable[[list[str], Path], int] | None = None,
    ) -> None:
        """Keep what training needs; nothing is trained yet."""
        self.workspace, self._open_session = workspace, open_session
        self._checkpoint, self._heads = checkpoint, heads
        self._store, self._epochs = store, epochs
        self._settings = dict(settings or {})
        self.folder = workspace.out / "learning"
        self._execute = execute or self._in_own_process
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._state, self._reason = IDLE, ""
        self._run: Path | None = None
        self._rounds: list[dict[str, Any]] = _rounds_of(self.folder)

    def start(self, epochs: int | None = None) -> None:
        """Begin to train on all finished cases.

        Args:
            epochs: Epochs of this training and those after it; None: as before.

        Raises:
            InputError: Training is under way already, or too few cases are finished.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise InputError("training is under way already; wait, or stop it")
            cases = self.workspace.done()
            if len(cases) < FEWEST_CASES:
                raise InputError(
                    f"{len(cases)} cases are finished; training needs {FEWEST_CASES} at least, one "
                    f"of them to measure on"
                )
            self._epochs = self._epochs if epochs is None else epochs
            number = len(self._rounds) + 1
            while (round_folder := self.folder / f"{number:03d}").exists():
                number += 1
            split = self._split(cases)
            images, labels = self._data(round_folder, cases)
            with write_atomically(round_folder / _SPLIT_FILE) as temporary:
                temporary.write_text(json.dumps(split), encoding="utf-8")
            self._stopped, self._state, self._reason = False, TRAINING, ""
            self._run = round_folder / "run"
            self._thread = threading.Thread(
                target=self._learn, args=(round_folder, images, labels), daemon=True,
                name="samonai-learning",
            )  # fmt: skip
            self._thread.start()

    def stop(self) -> None:
        """Stop training; what it has learned so far is dropped."""
        self._stopped = True
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread is not None:
            self._thread.join(_GRACE_SECONDS)

    def join(self) -> None:
        """Wait until training has ended."""
        if self._thread is not None:
            self._thread.join()

    def status(self) -> dict[str, Any]:
        """Return how training stands: state, curve, rounds, and the round in use; 0: the first."""
        current = _in_use(self._rounds)
        return {
            "state": self._state,
            "reason": self._reason,
            "curve": _curve(self._run),
            "epochs": self._epochs,
            "rounds": self._rounds,
            "in_use": 0 if current is None else current["number"],
            "done": len(self.workspace.done()),
            "needed": FEWEST_CASES,
        }

    def go_back(self) -> None:
        """Use the decoder before the one in use.

        Raises:
            InputError: The one in use is the first.
        """
        with self._lock:
            current = _in_use(self._rounds)
            if current is None:
                raise InputError("the decoder in use is the first one")
            current["in_use"] = False
            before = _in_use(self._rounds)
            self.workspace.use(self._open_session(Path(before["run"]) if before else None))
            self._write()

    def _split(self, cases: Sequence[str]) -> dict[str, list[str]]:
        """Hold cases out for good: none that a decoder in use may have been trained on.

        Raises:
            InputError: All finished cases were trained on.
        """
        trained = {name for one in self._rounds for name in one["split"]["train"]}
        for decoder in self.workspace.session.decoders:
            trained |= trained_cases(read_decoder_metadata(decoder).training)
        before = {name for one in self._rounds for name in one["split"]["val"]}
        fresh = [name for name in cases if name not in trained]
        wanted = max(1, round(_HELD_OUT * len(cases)))
        # By hash, so that the order in which cases are annotated does not choose.
        fresh.sort(key=lambda name: (name not in before, sha256(name.encode()).digest()))
        held_out = sorted(fresh[: max(wanted, len(before & set(fresh)))])
        if not held_out:
            raise InputError("all finished cases were trained on before; finish another one")
        return {"train": [name for name in cases if name not in held_out], "val": held_out}

    def _data(self, folder: Path, cases: Sequence[str]) -> tuple[Path, Path]:
        """Lay the finished cases out as a data set: links to images, copies of labels."""
        images, labels = folder / "images", folder / "labels"
        images.mkdir(parents=True)
        labels.mkdir()
        for name in cases:
            case = self.workspace.cases[name]
            if case.part is not None or case.series is not None:
                raise InputError(f"{name} is a part of a file; training needs a file per case")
            ending = "" if case.image.is_dir() else case.image.name.removeprefix(name)
            (images / f"{name}{ending}").symlink_to(case.image.resolve())
            path = saved_label(self.workspace.out, name)
            shutil.copy2(path, labels / path.name)
        with write_atomically(folder / "dataset.json") as temporary:
            named = {str(value): name for value, name in sorted(self._names(cases).items())}
            temporary.write_text(json.dumps({"labels": named}), encoding="utf-8")
        return images, labels

    def _names(self, cases: Sequence[str]) -> dict[int, str]:
        """Return the names of the structures that were drawn, by label value."""
        found: dict[int, str] = {}
        for name in cases:
            annotation = self.workspace.folder(name).read(self.workspace.classes)
            for drawn in annotation.objects:
                found.setdefault(drawn.value, annotation.structures[drawn.value])
        return found

    def _learn(self, folder: Path, images: Path, labels: Path) -> None:
        run, domain = folder / "run", self.workspace.session.domain.name
        data = ["--images", str(images), "--labels", str(labels)]
        try:
            self._command(["train", domain, *data, *self._training(folder, run)], folder)
            self._state = MEASURING
            split = read_json(folder / _SPLIT_FILE)
            measured = self._measured(folder, run, data, split["val"])
            better = measured["after"] > measured["before"]
            with self._lock:
                if better:
                    self.workspace.use(self._open_session(run))
                self._rounds.append(
                    {
                        "number": len(self._rounds) + 1,
                        "run": str(run),
                        "cases": len(list(labels.iterdir())),
                        "held_out": len(split["val"]),
                        "split": split,
                        **measured,
                        "better": better,
                        "in_use": better,
                    }
                )
                self._write()
            self._state = IDLE
        except _StoppedError:
            self._state, self._reason = IDLE, "training was stopped"
        except (InputError, OSError, KeyError, ValueError) as error:
            logger.warning("training failed: %s", error)
            self._state, self._reason = FAILED, str(error)

    def _training(self, folder: Path, run: Path) -> list[str]:
        """Return the arguments of training besides the data."""
        session = self.workspace.session
        arguments = ["--out", str(run), "--epochs", str(self._epochs)]
        arguments += ["--split", str(folder / _SPLIT_FILE), "--model", session.networks[0].name]
        heads = self._heads
        if session.decoders:
            metadata = read_decoder_metadata(session.decoders[0])
            heads = heads or (BOTH if len(metadata.heads) > 1 else metadata.heads[0])
            if not metadata.tunes_encoder:
                arguments += ["--from", str(session.decoders[0].parent)]
        given = {"--checkpoint": self._checkpoint, "--heads": heads, "--store": self._store}
        for option, value in given.items():
            arguments += [] if value is None else [option, str(value)]
        reading = {k: v for k, v in session.domain.settings().items() if v is not None}
        batch = {"batch_size": self._batch_size(folder)}
        for key, value in {**TRAINING_SETTINGS, **batch, **reading, **self._settings}.items():
            arguments += _as_option(key, value)
        return arguments

    def _batch_size(self, folder: Path) -> int:
        """Return the frames in a training step, by the number of annotated frames."""
        names = read_json(folder / _SPLIT_FILE)["train"]
        drawn = (self.workspace.folder(name).read(self.workspace.classes) for name in names)
        frames = sum(len({one.frame for one in annotation.objects}) for annotation in drawn)
        return max(1, min(_LARGEST_BATCH, frames // _FRAMES_OF_BATCH))

    def _measured(
        self, folder: Path, run: Path, data: list[str], held_out: Sequence[str]
    ) -> dict[str, float]:
        """Return the mean Dice of the decoder in use and of the new one, on held-out cases."""
        chosen = [part for name in held_out for part in ("--cases", name)]
        domain = self.workspace.session.domain.name

        def dice(path: Path, out: Path) -> dict[str, float]:
            self._command(
                ["evaluate", domain, "--run", str(path), *data, *chosen, "--out", str(out),
                 "--no-report"],
                folder,
            )  # fmt: skip
            found: dict[str, float] = read_json(out / "metrics.json")["summary"]["dice"]
            return found

        new = dice(run, folder / "evaluation")
        if decoders := self.workspace.session.decoders:  # of the run in use
            before = dice(decoders[0].parent, folder / "evaluation-before")["finetuned"]
        else:
            before = new["zero_shot"]
        return {"before": float(before), "after": float(new["finetuned"])}

    def _command(self, arguments: list[str], folder: Path) -> None:
        """Run a verb of samonai in a process of its own; its output goes into a log file."""
        if self._stopped:
            raise _StoppedError
        log = folder / "log.txt"
        code = self._execute(arguments, log)
        if self._stopped:
            raise _StoppedError
        if code != 0:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1][:_LAST_LINES] if lines else "no message"
            raise InputError(f"samonai {arguments[0]} failed: {last}")

    def _in_own_process(self, arguments: list[str], log: Path) -> int:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "samonai", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            return self._process.wait()

    def _write(self) -> None:
        with write_atomically(self.folder / _STATE_FILE) as temporary:
            temporary.write_text(json.dumps({"rounds": self._rounds}, indent=1), encoding="utf-8")


class _StoppedError(Exception):
    """Training was stopped by the user."""


def latest_run(out: Path) -> Path | None:
    """Return the run of a workspace that was in use when its server ended; None: the first."""
    current = _in_use(_rounds_of(out / "learning"))
    return None if current is None else Path(current["run"])


def _as_option(key: str, value: Any) -> list[str]:
    """Return a setting as arguments of `samonai train`: by its own option, or by `--set`."""
    if (option := options().get(key)) is None:
        return ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if isinstance(value, bool):
        return [option] if value else []
    return [option, str(value)]


def _rounds_of(folder: Path) -> list[dict[str, Any]]:
    try:
        found = read_json(folder / _STATE_FILE)
    except FileNotFoundError:
        return []
    rounds = found.get("rounds") if isinstance(found, dict) else None
    if not isinstance(rounds, list):
        raise InputError(f"{folder / _STATE_FILE} is damaged; remove it to begin anew")
    return [one for one in rounds if Path(one["run"]).is_dir()]


def _in_use(rounds: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the round whose decoder is in use; None: that of the start."""
    return next((one for one in reversed(rounds) if one["in_use"]), None)


def _curve(run: Path | None) -> list[Any]:
    """Return the history of a run that is being trained, an entry per epoch."""
    if run is None:
        return []
    try:
        found = read_json(run / "history.json")
    except (FileNotFoundError, InputError):
        return []
    return found if isinstance(found, list) else list(found.get("epochs", []))
