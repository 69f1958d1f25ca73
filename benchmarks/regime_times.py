"""The time of a training step under each regime, all of them taking turns on the clock."""

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Events

from samonai.core.files import write_atomically
from samonai.workflows.bundle_engine import opened_bundle, quiet_third_parties

TIMES_FILE = "times.json"

Say = Callable[[str], None]


class Stepper:
    """Takes steps of a training as it is, and times them.

    A step is what the engine does from asking for a batch to having learnt from it. The training
    itself is interrupted in between, as ignite can, and goes on with the next batch.

    Args:
        trainer: The trainer of an opened bundle.
    """

    def __init__(self, trainer: Any) -> None:
        """Attach to the trainer, after its own handlers."""
        self.trainer = trainer
        self._left = 0
        self._start = 0.0
        self._taken: list[float] = []
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._started)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._completed)

    def __call__(self, steps: int) -> list[float]:
        """Take so many steps; return the seconds of each."""
        self._left, self._taken = steps, []
        self.trainer.run()
        return self._taken

    def _started(self) -> None:
        self._start = time.perf_counter()

    def _completed(self) -> None:
        self._taken.append(time.perf_counter() - self._start)
        self._left -= 1
        if self._left <= 0:
            self.trainer.interrupt()


def take_turns(
    steppers: Mapping[str, Callable[[int], list[float]]], steps: int, turns: int, say: Say
) -> dict[str, float]:
    """Return the median seconds of a step of each, over the steps of all turns.

    The first step of each turn finds the caches full of another regime's data: it does not count.

    Args:
        steppers: By name: takes so many steps, returns their seconds.
        steps: How many count, for each.
        turns: In how many turns; whatever slows the machine for a while slows all of them.
        say: Told what runs now.
    """
    taken: dict[str, list[float]] = {name: [] for name in steppers}
    shares = [steps // turns + (turn < steps % turns) for turn in range(min(turns, steps))]
    for turn, share in enumerate(shares, start=1):
        for name, stepper in steppers.items():
            say(f"{name}: turn {turn} of {len(shares)}")
            taken[name] += stepper(share + 1)[1:]
    return {name: median(seconds) for name, seconds in taken.items()}


def rounds_of(settings: Mapping[str, Any]) -> int:
    """Return how often a step decodes each object."""
    return (
        1
        + int(settings.get("interactive.click_rounds", 0))
        + int(settings.get("interactive.mask_only_rounds", 0))
    )


@contextmanager
def opened_trainers(
    files: Sequence[Path], overrides: Mapping[str, Mapping[str, Any]], say: Say
) -> Iterator[dict[str, Stepper]]:
    """Open the training of each regime, ready to step; nothing that they write is kept.

    Args:
        files: The bundle's configuration.
        overrides: By regime, as `opened_bundle` takes them, without the output's folder.
        say: Told what runs now.
    """
    with tempfile.TemporaryDirectory() as scratch, quiet_third_parties():
        steppers = {}
        for name, values in overrides.items():
            say(f"{name}: opening")
            steppers[name] = _open(files, values, Path(scratch) / name)
        try:
            yield steppers
        finally:
            # Interrupted for good: ignite logs an error of that, which is none.
            steppers.clear()
            gc.collect()


def _open(files: Sequence[Path], overrides: Mapping[str, Any], folder: Path) -> Stepper:
    folder.mkdir()
    chosen = {**overrides, "output_dir": folder, "progress": False, "resume": False}
    with opened_bundle(files, chosen) as workflow:
        return Stepper(workflow.parser.get_parsed_content("train::trainer"))


def read_times(out: Path) -> dict[str, float]:
    """Return the seconds per step by regime, as far as they were measured."""
    path = out / TIMES_FILE
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.is_file() else {}


def write_times(out: Path, seconds: Mapping[str, float]) -> None:
    """Add times to those that are there, which keep what these do not name."""
    facts = {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    document = {**facts, "seconds": {**read_times(out), **seconds}}
    with write_atomically(out / TIMES_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
