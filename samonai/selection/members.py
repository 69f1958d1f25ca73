"""Cross-validation and seeds: several runs of one recipe, with mean and spread of their Dice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from samonai.core.files import as_path
from samonai.core.settings import check_count
from samonai.selection.job import Job
from samonai.selection.run_plan import differing_keys, locked_plan, write_plan
from samonai.settings import flat
from samonai.training.data.folds import SplitNames
from samonai.workflows.inputs import model_name
from samonai.workflows.run import Run
from samonai.workflows.run_folder import FOLDS_FILE, SEEDS_FILE

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

SplitLike = Path | str | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True)
class RunSet:
    """Finished runs of one recipe.

    Attributes:
        path: Their folder.
        runs: The runs.
        document: Content of `folds.json` or `seeds.json`: each member's cases and Dice, the mean
            and the spread, and the frames that this call encoded and reused.
    """

    path: Path
    runs: list[Run]
    document: dict[str, Any]


def cross_validate(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    out: Path | str,
    folds: int = 5,
    groups: Path | str | None = None,
    split: SplitLike = None,
    seed: int = 0,
    overwrite: bool = False,
    **settings: Any,
) -> RunSet:
    """Cross-validation: train k runs over one store, each with another part of the cases held out.

    The same call on the same `out` resumes. Each fold is a run of its own in
    `out/fold0`, `out/fold1`, …, measured on its held-out cases at native resolution. These cases
    also chose the fold's best epoch, so the estimate is optimistic; a split's `val` cases
    are in no fold, and can measure the folds' ensemble.

    Args:
        sam: A network, or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: The folder of all folds.
        folds: Number of folds.
        groups: JSON file with the patient of each case; None: each case is a patient.
        split: Folds are made of its `train` cases only; None: of all cases.
        seed: Seed of the distribution of cases, and of every run.
        overwrite: Start over if `out` holds folds already.
        **settings: `domain`, `checkpoint`, `sha256`, `store`, `device` and `progress` as for
            `finetune`; `epochs` and the bundle's other settings.

    Raises:
        InputError: An argument cannot be used.
    """
    check_count("folds", folds, 2)
    job = make_job(sam, images, labels, out, settings)
    plan = {f"fold{n}": (s, seed) for n, s in enumerate(job.folds(split, folds, groups, seed))}
    return _train_members(job, FOLDS_FILE, plan, seed, overwrite)


def repeat_seeds(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    out: Path | str,
    seeds: int = 5,
    groups: Path | str | None = None,
    split: SplitLike = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    **settings: Any,
) -> RunSet:
    """Train one recipe on one split with several seeds, to measure the spread by chance.

    The split depends on `seed` alone and is the same for all; the runs' own seeds are `seed`,
    `seed + 1`, …, in `out/seed0`, `out/seed1`, …

    Args:
        sam: A network, or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: The folder of all runs.
        seeds: Number of runs.
        groups: JSON file with the patient of each case; None: each case is a patient.
        split: Cases to train on and to hold out; None: drawn.
        val_fraction: Share of the cases to hold out, without a split.
        seed: The first seed.
        overwrite: Start over if `out` holds runs already.
        **settings: As for `cross_validate`.

    Raises:
        InputError: An argument cannot be used.
    """
    check_count("seeds", seeds, 2)
    job = make_job(sam, images, labels, out, settings)
    names = job.split(split, val_fraction, groups, seed)
    plan = {f"seed{seed + n}": (names, seed + n) for n in range(seeds)}
    return _train_members(job, SEEDS_FILE, plan, seed, overwrite)


def make_job(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None,
    out: Path | str,
    settings: Mapping[str, Any],
) -> Job:
    """Build a job from a caller's settings."""
    own = ("domain", "checkpoint", "sha256", "store", "device", "progress")
    given = {key: settings[key] for key in own if key in settings}
    rest = flat({key: value for key, value in settings.items() if key not in own})
    model_name(sam)
    return Job(sam, images, labels, as_path(out, "the output folder"), **given, settings=rest)


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Return number, mean, standard deviation (of a sample), least and greatest."""
    known = [value for value in values if value is not None]
    if not known:
        return {"n": 0, "mean": None, "sd": None, "min": None, "max": None}
    return {
        "n": len(known),
        "mean": fmean(known),
        "sd": stdev(known) if len(known) > 1 else None,
        "min": min(known),
        "max": max(known),
    }


def _train_members(
    job: Job, file: str, plan: Mapping[str, tuple[SplitNames, int]], seed: int, overwrite: bool
) -> RunSet:
    path = job.out / file
    document: dict[str, Any] = {
        "seed": seed,
        "job": job.fingerprint(),
        "members": {name: {**names, "seed": own} for name, (names, own) in plan.items()},
    }
    runs: list[Run] = []
    plan_of = {"plan": _plans(document), **document}
    differences = differing_keys(plan_of, ("seed", "job", "plan"))
    with locked_plan(
        path,
        document,
        lambda found: differences({"plan": _plans(found), **found}),
        overwrite=overwrite,
    ):
        for number, (name, (names, own)) in enumerate(plan.items(), start=1):
            job.say(f"{name} ({number} of {len(plan)})")
            run = job.train(name, names, seed=own)
            document["members"][name] |= _result(run, job.evaluate(run, names["val"]))
            document["frames"] = job.frames.to_json()
            document |= _summary(document["members"].values())
            write_plan(path, document)
            runs.append(run)
    return RunSet(job.out, runs, document)


def _result(run: Run, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's figures at native resolution: means over its held-out cases."""
    return {
        "epoch": run.metadata.metrics["epoch"],
        "dice": metrics["summary"]["dice"]["finetuned"],
        "per_class": {k: v["dice"]["finetuned"] for k, v in metrics["per_class"].items()},
        "case_dice": [row["dice"] for row in metrics["cases"]],
    }


def _summary(members: Any) -> dict[str, Any]:
    done = [member for member in members if "dice" in member]
    classes = list(dict.fromkeys(name for member in done for name in member["per_class"]))
    return {
        "dice": spread([member["dice"] for member in done]),
        "per_class": {
            name: spread([member["per_class"].get(name) for member in done]) for name in classes
        },
        "case_dice": spread([value for member in done for value in member["case_dice"]]),
    }


def _plans(document: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("train", "val", "seed")
    return {
        name: {key: member.get(key) for key in wanted}
        for name, member in document["members"].items()
    }
