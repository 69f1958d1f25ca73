"""Training as MONAI Label's clients start, watch and stop it."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException

from samonai.core.errors import InputError
from samonai.serve.learning import FAILED, MEASURING, TRAINING, Learner
from samonai.serve.open_cases import NotThereError

TRAINER = "decoder"
"""Name of the only trainer: the run's or model's mask decoder."""

_RUNNING, _STOPPED, _DONE, _ERROR = "RUNNING", "STOPPED", "DONE", "ERROR"
_MOST_EPOCHS = 10_000


class TrainingTask:
    """The latest training of a server, as a task of MONAI Label.

    Args:
        learner: Trains; None: the server does not train.
    """

    def __init__(self, learner: Learner | None) -> None:
        """Keep the learner."""
        self.learner = learner
        self._lock = threading.Lock()
        self._started: datetime | None = None
        self._ended: datetime | None = None
        self._stopped = False

    def trainers(self) -> dict[str, Any]:
        """Return the trainers that clients may start, by name."""
        if self.learner is None:
            return {}
        about = "Trains the decoder on the finished cases; takes over where it is better"
        return {TRAINER: {"description": about, "config": {"epochs": self._status()["epochs"]}}}

    def start(self, model: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start training, and return the task.

        Raises:
            NotThereError: There is no such trainer.
            HTTPException: Training is under way (429).
            InputError: Too few cases are finished, or the settings cannot be used.
        """
        if self.learner is None or model != TRAINER:
            raise NotThereError(f"trainer {model[:40]!r}: there is no such trainer")
        epochs = _epochs(params.get("epochs"))
        with self._lock:
            if self._status()["state"] in (TRAINING, MEASURING):
                raise HTTPException(429, "training is under way already; wait, or stop it")
            self.learner.start(epochs)
            self._started, self._ended, self._stopped = _now(), None, False
        return self._task(self._status())

    def stop(self) -> dict[str, Any]:
        """Stop training, and return the task.

        Raises:
            HTTPException: No training was ever started (404).
        """
        if self.learner is not None and self._is_running():
            self.learner.stop()
            self._stopped = True
        return self.status()

    def status(self, *, only_running: bool = False) -> dict[str, Any]:
        """Return the task.

        Args:
            only_running: Whether a task that ended counts as none.

        Raises:
            HTTPException: There is no such task (404), which clients take for "not running".
        """
        if only_running and not self._is_running():
            raise HTTPException(404, "No Train Tasks are currently Running")
        found = None if self.learner is None else self._status()
        if found is None or not (
            self._started or found["rounds"] or found["curve"] or found["reason"]
        ):
            raise HTTPException(404, "No Train Tasks Found")
        return self._task(found)

    def stats(self) -> dict[str, Any]:
        """Return the progress that clients show as bars; nothing before the first training."""
        found = None if self.learner is None else self._status()
        if found is None or not (found["curve"] or found["rounds"]):
            return {}
        scores = [row["val_dice"] for row in found["curve"] if row.get("val_dice") is not None]
        scores = scores or [found["rounds"][-1]["after"]] if found["rounds"] else scores
        stats = {
            "epoch": max(len(found["curve"]), 1),
            "total_epochs": found["epochs"],
            "best_metric": float(max(scores, default=0.0)),
        }
        if found["state"] not in (TRAINING, MEASURING):
            # Clients take it for a sign that training has ended.
            ended = self._ended = self._ended or _now()
            stats["total_time"] = str(ended - (self._started or ended))
        return {TRAINER: stats}

    def _is_running(self) -> bool:
        return self.learner is not None and self._status()["state"] in (TRAINING, MEASURING)

    def _status(self) -> dict[str, Any]:
        assert self.learner is not None
        return self.learner.status()

    def _task(self, found: Mapping[str, Any]) -> dict[str, Any]:
        state, rounds = found["state"], found["rounds"]
        if state in (TRAINING, MEASURING):
            status = _RUNNING
        elif state == FAILED:
            status = _ERROR
        elif self._stopped or found["reason"]:
            status = _STOPPED
        else:
            status = _DONE
        self._started = self._started or _now()
        task: dict[str, Any] = {
            "id": f"round-{len(rounds) + (status != _DONE)}",
            "status": status,
            "model": TRAINER,
            "request": {"model": TRAINER, "epochs": found["epochs"]},
            "start_ts": _shown(self._started),
            "details": _details(found),
        }
        if status != _RUNNING:
            self._ended = self._ended or _now()
            task["end_ts"] = _shown(self._ended)
            task["result"] = _result(rounds) if status == _DONE else task["details"][-1]
        return task


def _details(found: Mapping[str, Any]) -> list[str]:
    """Return lines on how training stands; one at least, since clients take the last."""
    lines = [
        f"epoch {n} of {found['epochs']}: Dice {row['val_dice']:.3f}"
        for n, row in enumerate(found["curve"], 1)
        if row.get("val_dice") is not None
    ]
    return [*lines[-5:], found["reason"] or found["state"]]


def _result(rounds: list[dict[str, Any]]) -> str:
    if not rounds:
        return "nothing was trained"
    last = rounds[-1]
    outcome = "it is used now" if last["in_use"] else "the one before is used"
    return (
        f"Dice {last['before']:.3f} before, {last['after']:.3f} after, on {last['held_out']} cases "
        f"that were held out; {outcome}"
    )


def _epochs(given: Any) -> int | None:
    if given in (None, ""):
        return None
    try:
        epochs = int(given)
    except (TypeError, ValueError):
        epochs = 0
    if not 1 <= epochs <= _MOST_EPOCHS:
        raise InputError(f"epochs: expected a number of 1 to {_MOST_EPOCHS}")
    return epochs


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _shown(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
