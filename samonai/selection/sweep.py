"""Hyper-parameter search (sweep): each trial is a run, all share one split and one store.

Optuna's tree-structured Parzen estimator proposes settings from the trials before and a seed of its
own for each trial, so that a stopped sweep continues like an uninterrupted one: an interrupted
trial is finished first, from its last epoch.
"""

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samonai.core.errors import InputError
from samonai.core.settings import check_count
from samonai.selection.job import Job
from samonai.selection.members import SplitLike, make_job
from samonai.selection.run_plan import differing_keys, locked_plan, write_plan
from samonai.training.data.folds import SplitNames

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

SWEEP_FILE, JOURNAL_FILE = "sweep.json", "trials.log"

Range = tuple[float, float, bool] | tuple[str | int, ...]

RANGES: dict[str, dict[str, Any]] = {
    "learning_rate": {"low": 1e-5, "high": 3e-3, "log": True},
    "weight_decay": {"low": 1e-4, "high": 0.1, "log": True},
    "warmup_fraction": {"low": 0.0, "high": 0.2},
    "sampler.box_jitter": {"low": 0.0, "high": 0.15},
    "batch_size": {"choices": [2, 4, 8]},
    "loss_recipe": {"choices": ["dice_bce", "dice_focal", "dice_ce", "bce"]},
}
"""Search space: uniform, log-uniform, or categorical."""


@dataclass(frozen=True)
class Sweep:
    """A finished search.

    Attributes:
        path: Its folder, with a run's folder for each trial.
        document: Content of `sweep.json`: the ranges, each trial's settings and Dice, the best.
    """

    path: Path
    document: dict[str, Any]


def sweep(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    out: Path | str,
    trials: int = 20,
    groups: Path | str | None = None,
    split: SplitLike = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    **settings: Any,
) -> Sweep:
    """Search the settings of `RANGES` for the highest Dice of the held-out cases.

    The Dice is measured in 3D at native resolution. The best of many trials on the same held-out
    cases is optimistic; measure it on other cases.

    Args:
        sam: A network, or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: The folder of all trials.
        trials: Total number of trials; a larger number in a later call continues.
        groups: JSON file with the patient of each case; None: each case is a patient.
        split: Cases to train on and to hold out; None: drawn.
        val_fraction: Share of the cases to hold out, without a split.
        seed: Seed of the split, of every run, and of the proposals.
        overwrite: Start over if `out` holds a sweep already.
        **settings: As for `cross_validate`. Settings given here are not searched.

    Raises:
        InputError: An argument cannot be used, or Optuna is missing.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError("a sweep needs Optuna: pip install 'samonai[sweep]'")
    check_count("trials", trials)
    job = make_job(sam, images, labels, out, settings)
    ranges = {name: values for name, values in RANGES.items() if name not in (job.settings or {})}
    names = job.split(split, val_fraction, groups, seed)
    document: dict[str, Any] = {
        "seed": seed,
        "job": job.fingerprint(),
        "ranges": ranges,
        "split": names,
        "trials": [],
    }
    path = job.out / SWEEP_FILE
    same = differing_keys(document, ("seed", "job", "ranges", "split"))
    with locked_plan(path, document, same, overwrite=overwrite, others=[JOURNAL_FILE]):
        study = _study(job.out / JOURNAL_FILE)
        document |= _outcome(study)
        while number := _next(study, ranges, trials, seed):
            trial = study.get_trials(deepcopy=False)[number - 1]
            job.say(f"trial {number} of {trials}: {_text(trial.params)}")
            _run(job, study, trial, names, seed)
            document |= {**_outcome(study), "frames": job.frames.to_json()}
            write_plan(path, document)
    return Sweep(job.out, document)


def _study(journal: Path) -> "Study":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="samonai",
        direction="maximize",
        load_if_exists=True,
    )


def _next(study: "Study", ranges: Mapping[str, Any], trials: int, seed: int) -> int:
    """Return the number, from 1, of the next trial: an interrupted one, or a new one; or 0."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    known = study.get_trials(deepcopy=False)
    stopped = [trial for trial in known if trial.state == TrialState.RUNNING]
    # A trial that was stopped before all of its settings were drawn cannot be resumed.
    for trial in stopped:
        if set(trial.params) == set(ranges):
            return trial.number + 1
        study.tell(trial.number, state=TrialState.FAIL)
    if sum(trial.state == TrialState.COMPLETE for trial in known) >= trials:
        return 0
    if len(known) >= 2 * trials:
        raise InputError("more than every other trial failed; look into the ranges or the data")
    state = np.random.SeedSequence((seed, len(known))).generate_state(1)
    study.sampler = TPESampler(seed=int(state[0]))
    trial_ = study.ask()
    for name, values in ranges.items():
        _suggest(trial_, name, values)
    return trial_.number + 1


def _suggest(trial: "Trial", name: str, values: Mapping[str, Any]) -> None:
    if "choices" in values:
        trial.suggest_categorical(name, values["choices"])
    else:
        trial.suggest_float(name, values["low"], values["high"], log=values.get("log", False))


def _run(job: Job, study: "Study", trial: "FrozenTrial", names: SplitNames, seed: int) -> None:
    """Train and measure one trial; report a failed one, unless none has succeeded before."""
    from optuna.trial import TrialState

    try:
        run = job.train(_folder(trial.number), names, seed=seed, **trial.params)
        metrics = job.evaluate(run, names["val"])
        dice = metrics["summary"]["dice"]["finetuned"]
    except InputError as error:
        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            study.tell(trial.number, state=TrialState.FAIL)
            raise
        logger.warning("trial %d failed: %s", trial.number + 1, error)
        dice = None
    if dice is None:
        study.tell(trial.number, state=TrialState.FAIL)
    else:
        study.tell(trial.number, dice)


def _outcome(study: "Study") -> dict[str, Any]:
    """Return the results of the trials, as JSON values."""
    rows = [
        {
            "trial": trial.number + 1,
            "run": _folder(trial.number),
            "state": trial.state.name.lower(),
            "dice": trial.value,
            "settings": trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    done = [row for row in rows if row["dice"] is not None]
    best = max(done, key=lambda row: float(str(row["dice"])), default=None)
    return {"trials": rows, "best": best}


def _folder(number: int) -> str:
    return f"trial{number + 1:03d}"


def _text(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )
