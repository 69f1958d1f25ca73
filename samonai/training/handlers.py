"""Training handlers: early stopping, checkpoints and history, gradient clipping, progress."""

import csv
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import IterationEvents
from monai.handlers import EarlyStopHandler
from monai.utils import CommonKeys
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from torch import nn

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.sealed import check_archive, seal_archive
from samonai.core.settings import renamed_parameters
from samonai.engine.processes import is_main_process
from samonai.engine.progress import EngineProgress

logger = logging.getLogger(__name__)

BEST_FILE, LAST_FILE = "model.pt", "last.pt"
HISTORY_JSON, HISTORY_CSV = "history.json", "history.csv"


class OtherDataError(InputError):
    """A run was resumed with other data than it was started with."""


class HasEpoch(Protocol):
    """An object whose random choices depend on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 1."""
        ...


class EpochSeed:
    """Handler that sets the epoch of the data, so that a resumed run draws the same samples.

    Args:
        dataset: The training dataset.
        batches: The batch sampler of the training loader.
    """

    def __init__(self, dataset: HasEpoch, batches: HasEpoch) -> None:
        """Keep the listeners."""
        self.listeners = (dataset, batches)

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Pass the epoch on."""
        for listener in self.listeners:
            listener.set_epoch(engine.state.epoch)


@renamed_parameters(max_norm="gradient_clip")
class GradientClip:
    """Gradient clipping: limits the norm of the gradient before every step.

    Args:
        network: Its trainable parameters are clipped together.
        gradient_clip: The largest 2-norm.
    """

    def __init__(self, network: nn.Module, gradient_clip: float = 1.0) -> None:
        """Keep the network and the norm."""
        self.network, self.gradient_clip = network, gradient_clip

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)


class StopOnNan:
    """Handler that ends a run with a non-finite loss before a checkpoint of it is written."""

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss.

        Raises:
            InputError: The loss is not finite.
        """
        if not math.isfinite(_loss(engine)):
            raise InputError(
                f"the loss is not a number any more at step {engine.state.iteration} (epoch "
                f"{engine.state.epoch}); lower the learning rate, the last epoch's state is kept"
            )


class EarlyStop(EarlyStopHandler):
    """Early stopping: ends the training when the validation Dice no longer rises.

    ignite's `EarlyStopping`, inside of MONAI's handler, counts and decides; this class makes it
    count validated epochs only, and keeps its count in checkpoints.

    Args:
        validator: The evaluator whose key metric is watched.
        patience: Number of validations without a rise before training ends.
    """

    def __init__(self, validator: Engine, patience: int) -> None:
        """Read the score from the validator."""
        super().__init__(patience, lambda _: _key_metric(validator))
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler."""
        self.set_trainer(engine)
        super().attach(engine)

    def __call__(self, engine: Engine) -> None:
        """Count this epoch, if it was validated."""
        if _validated(self.validator, engine.state.epoch):
            super().__call__(engine)

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the best score."""
        stopping = self._early_stopping()
        return {"counter": stopping.counter, "best_score": stopping.best_score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        stopping = self._early_stopping()
        stopping.counter = state["counter"]
        stopping.best_score = state["best_score"]

    def _early_stopping(self) -> EarlyStopping:
        """Return ignite's handler inside MONAI's, typed as None there."""
        return cast("EarlyStopping", self._handler)


@renamed_parameters(folder="output_dir")
class RunCheckpoint:
    """Checkpoint handler: writes `last.pt` (all state), `model.pt` (the best) and the history.

    It writes after every epoch, each file beside its name and then renamed, so that a kill at any
    moment leaves the state after some epoch. Resumed with the same seed, a run ends with the
    weights of an uninterrupted one. Attach it after the validation handler and all other parts that
    it saves.

    A run resumes only over the weights that the trainer was built with. Weights that were loaded
    into the network since then are trained as they are: those of a federated server, at each round.

    Args:
        output_dir: Folder of the files.
        network: Saved by its `state_dict()`, without the frozen encoder.
        parts: Other objects with a state: optimizer, LR schedule, early stopping.
        validator: The evaluator whose key metric chooses the best epoch.
        resume: Continue from `last.pt` if it exists.
    """

    def __init__(
        self,
        output_dir: Path | str,
        network: nn.Module,
        parts: dict[str, Any],
        validator: Engine,
        resume: bool = True,
    ) -> None:
        """Keep the paths and the parts."""
        self.folder = Path(output_dir)
        self.network = getattr(network, "module", network)
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.validator = validator
        self.resume = resume
        self.best: dict[str, Any] = {"epoch": 0, "metric": None}
        self.history: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._built_with = _versions(self.network)

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self, engine: Engine) -> None:
        """Load the last state, if there is one to resume from.

        Raises:
            InputError: The file is not a checkpoint of such a run.
        """
        path = self.folder / LAST_FILE
        if not (self.resume and path.exists()):
            return
        if _versions(self.network) != self._built_with:
            if engine.state.epoch == 0:
                logger.warning(
                    "weights were loaded into the network after the trainer was built: training "
                    "starts from them, and %s is not resumed from",
                    path,
                )
            return
        try:
            check_archive(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._check_data(engine, state)
            self.network.load_state_dict(state["network"])
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except OtherDataError:
            raise
        except Exception as error:
            raise InputError(
                f"{path} cannot be resumed from ({' '.join(str(error).split())[:200]}); "
                f"remove it to start over"
            ) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.best, self.history = state["best"], state["history"]
        logger.info("resuming after epoch %d of %s", state["epoch"], engine.state.max_epochs)

    def iteration_completed(self, engine: Engine) -> None:
        """Note the loss."""
        self._losses.append(_loss(engine))

    def epoch_completed(self, engine: Engine) -> None:
        """Write the files of the epoch that just ended."""
        epoch = engine.state.epoch
        metric = self._validation_metric(epoch)
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": sum(self._losses) / max(len(self._losses), 1),
                "val_dice": metric,
                **({} if metric is None else _other_metrics(self.validator)),
                "learning_rate": _learning_rate(self.parts.get("optimizer")),
            }
        )
        self._losses.clear()
        better = metric is not None and (
            self.best["metric"] is None or metric > self.best["metric"]
        )
        if better:
            self.best = {"epoch": epoch, "metric": metric}
        if not is_main_process():
            return
        if better or not (self.folder / BEST_FILE).exists():
            self._save(self.network.state_dict(), BEST_FILE)
        self._write_history()
        state = {
            "network": self.network.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "best": self.best,
            "history": self.history,
            "data": self._data(engine),
        }
        self._save(state, LAST_FILE)

    def _data(self, engine: Engine) -> dict[str, dict[str, str]]:
        """Return part of the split to case to a digest of the case's content."""
        loaders = {"train": engine.data_loader, "val": self.validator.data_loader}
        return {part: loader.dataset.contents() for part, loader in loaders.items()}

    def _check_data(self, engine: Engine, state: Mapping[str, Any]) -> None:
        """Refuse to resume with other data than in the epochs before.

        Raises:
            OtherDataError: A case was changed, added, removed or moved to the other part.
        """
        before = state.get("data")
        if before is None:
            logger.warning("an older version began this run; its data cannot be compared")
            return
        now = self._data(engine)
        both = [(part, case) for part in now for case in now[part] if case in before[part]]
        told = [
            *(f"{c!r} was changed" for p, c in both if before[p][c] != now[p][c]),
            *(f"{c!r} is new in {p}" for p in now for c in now[p] if c not in before[p]),
            *(f"{c!r} is gone from {p}" for p in now for c in before[p] if c not in now[p]),
        ]
        if told:
            more = f", and {len(told) - 3} more" if len(told) > 3 else ""
            raise OtherDataError(
                f"{self.folder} was trained on other data so far ({'; '.join(told[:3])}{more}); "
                f"put the data back, choose another folder, or start over with --overwrite"
            )

    def _validation_metric(self, epoch: int) -> float | None:
        """Return the key metric, if the validator ran after this epoch."""
        return _key_metric(self.validator) if _validated(self.validator, epoch) else None

    def _save(self, state: dict[str, Any], name: str) -> None:
        with write_atomically(self.folder / name) as path:
            torch.save(state, path)
            seal_archive(path)

    def _write_history(self) -> None:
        with write_atomically(self.folder / HISTORY_JSON) as path:
            path.write_text(json.dumps(self.history, indent=1) + "\n")
        with (
            write_atomically(self.folder / HISTORY_CSV) as path,
            path.open("w", newline="") as file,
        ):
            names = dict.fromkeys(name for row in self.history for name in row)
            writer = csv.DictWriter(file, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(self.history)


class TrainingProgress(EngineProgress):
    """Progress bar over the whole run, with the last loss and validation Dice.

    Args:
        validator: The evaluator whose key metric is shown.
        console: The console; standard error by default.
    """

    def __init__(self, validator: Engine, console: Console | None = None) -> None:
        """Keep the validator and the console."""
        super().__init__(console)
        self.validator = validator

    def started(self, engine: Engine) -> None:
        """Show the bar."""
        self.show(
            "training",
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]}  {task.fields[dice]}"),
            total=engine.state.max_epochs * engine.state.epoch_length,
            epoch="0",
            loss="-",
            dice="",
        )

    def iteration_completed(self, engine: Engine) -> None:
        """Move the bar."""
        self.update(
            completed=engine.state.iteration,
            epoch=f"{engine.state.epoch}/{engine.state.max_epochs}",
            loss=f"{_loss(engine):.3f}",
        )

    def details(self, fields: Mapping[str, Any]) -> str:
        """Return epoch and loss."""
        return f"epoch {fields['epoch']}, loss {fields['loss']}"

    def epoch_completed(self, engine: Engine) -> None:
        """Show the validation Dice."""
        metrics = self.validator.state.metrics
        dice = f"val Dice {next(iter(metrics.values())):.3f}" if metrics else ""
        if dice:
            self.update(dice=dice)
        if self.lines is not None:
            state = engine.state
            done = f"epoch {state.epoch}/{state.max_epochs} done, loss {_loss(engine):.3f}"
            self.lines.update(
                state.iteration, ", ".join(part for part in (done, dice) if part), now=True
            )


def _versions(network: nn.Module) -> list[tuple[int, int]]:
    """Return which tensors the trainable parameters are, and how often each was written to."""
    return [(id(p), p._version) for p in network.parameters() if p.requires_grad]


def _validated(validator: Engine, epoch: int) -> bool:
    # MONAI's ValidationHandler runs the evaluator with the trainer's epoch as its own.
    return bool(validator.state.metrics) and validator.state.epoch == epoch


def _key_metric(validator: Engine) -> float:
    return float(validator.state.metrics[validator.state.key_metric_name])


def _other_metrics(validator: Engine) -> dict[str, float]:
    """Return the validator's metrics other than its key metric."""
    key = validator.state.key_metric_name
    return {name: float(v) for name, v in validator.state.metrics.items() if name != key}


def _learning_rate(optimizer: torch.optim.Optimizer | None) -> float | None:
    return None if optimizer is None else float(optimizer.param_groups[0]["lr"])


def _loss(engine: Engine) -> float:
    return float(engine.state.output[CommonKeys.LOSS].item())
