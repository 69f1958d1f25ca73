"""Learning curve: Dice of the decoder over growing shares of the cases, beside a U-Net's.

All points share the held-out cases and the store, and each share contains the smaller ones. The
U-Net has, for each point, the wall time of the decoder's training, plus that of encoding
the frames of the same cases if this call encoded them.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.domains.base import metric_spacing
from samonai.domains.capabilities import capabilities
from samonai.embeddings import EmbeddingStore, encode_cases
from samonai.metrics.summary import write_metrics
from samonai.metrics.volumes import case_rows
from samonai.report.curves import data_efficiency
from samonai.selection.job import Job
from samonai.selection.members import SplitLike, make_job
from samonai.selection.run_plan import differing_keys, locked_plan, read_plan, write_plan
from samonai.selection.unet_baseline import UNetSettings, train_unet
from samonai.settings.choices import PROMPTABLE, SEMANTIC
from samonai.training.data.folds import group_cases, read_groups
from samonai.workflows.run import Run
from samonai.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    from samonai.domains.base import Case
    from samonai.sam.network import SamNetwork

CURVE_FILE, PICTURE_FILE = "curve.json", "curve.png"
SHARES = (1, 2, 5, 10, 25, 50, 100)
"""Percent of the training cases."""

_PROMPTED, _AUTOMATIC, _UNET = "prompted", "automatic", "unet"


@dataclass(frozen=True)
class Curve:
    """A finished curve.

    Attributes:
        path: Its folder, with a run's folder for each point, `curve.json` and `curve.png`.
        document: Content of `curve.json`.
    """

    path: Path
    document: dict[str, Any]


def curve(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    out: Path | str,
    shares: Sequence[float] = SHARES,
    groups: Path | str | None = None,
    split: SplitLike = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    unet: float = 1.0,
    overwrite: bool = False,
    **settings: Any,
) -> Curve:
    """Train on shares of the training cases, and measure all on the same held-out cases.

    Args:
        sam: A network, or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: The folder of all points.
        shares: Percent of the training cases; those of the same number of cases are one point.
        groups: JSON file with the patient of each case; a patient's cases are added
            to a share together. None: each case is a patient.
        split: Cases to train on and to hold out; None: drawn.
        val_fraction: Share of the cases to hold out, without a split.
        seed: Seed of the split, of the order of the cases, and of every run.
        unet: The U-Net's wall time as a multiple of ours; 0 leaves it out.
        overwrite: Start over if `out` holds a curve already.
        **settings: As for `cross_validate`. With `heads=both` the semantic head, which
            needs no prompts like the U-Net, is measured beside the prompted one.

    Raises:
        InputError: An argument cannot be used.
    """
    if not 0 <= unet < math.inf:
        raise InputError(f"the U-Net's time is a multiple of ours, 0 or more; got {unet}")
    job = make_job(sam, images, labels, out, settings)
    if not capabilities(get_domain(job.domain)).frames_are_whole:
        raise InputError(f"the U-Net reads volumes and pictures; there is no curve of {job.domain}")
    names = job.split(split, val_fraction, groups, seed)
    chosen = growing_shares(names["train"], shares, groups, seed)
    document: dict[str, Any] = {
        "seed": seed,
        "job": job.fingerprint(),
        "train": chosen[-1],
        "val": names["val"],
        "sizes": [len(cases) for cases in chosen],
        "unet_time": unet,
        "encode_seconds": {},
        "points": {},
    }
    path = job.out / CURVE_FILE
    same = differing_keys(document, ("seed", "job", "train", "val", "sizes", "unet_time"))
    with locked_plan(path, document, same, overwrite=overwrite, others=[PICTURE_FILE]):
        document = read_plan(path)
        for number, cases in enumerate(chosen, start=1):
            job.say(f"{len(cases)} cases (point {number} of {len(chosen)})")
            _point(job, document, path, cases)
            document["frames"] = job.frames.to_json()
            write_plan(path, document)
            data_efficiency(document, job.out / PICTURE_FILE)
    return Curve(job.out, document)


def growing_shares(
    train: Sequence[str], shares: Sequence[float], groups: Path | str | None, seed: int
) -> list[list[str]]:
    """Return the cases of each share, each containing the one before, the smallest first.

    Args:
        train: Case names.
        shares: Percent.
        groups: See `read_groups`; a group is added as a whole.
        seed: Seed of the order of groups.

    Raises:
        InputError: A share is not from above 0 to 100.
    """
    if not shares or not all(0 < share <= 100 for share in shares):
        raise InputError(f"shares are percent, above 0 up to 100; got {list(shares)}")
    bundles = group_cases(train, None if groups is None else read_groups(groups))
    order = np.random.default_rng(seed).permutation(len(bundles)).tolist()
    found: dict[int, list[str]] = {}
    for share in sorted(shares):
        count = max(1, round(len(bundles) * share / 100))
        cases = [case for number in order[:count] for case in bundles[number]]
        found[len(cases)] = cases
    return list(found.values())


def _point(job: Job, document: dict[str, Any], path: Path, cases: Sequence[str]) -> None:
    """Train, measure and compare one point, unless that is done already."""
    key, val = str(len(cases)), document["val"]
    point = document["points"].setdefault(key, {"cases": len(cases), "seconds": 0.0})
    for name in (*val, *cases):
        if name not in document["encode_seconds"]:
            document["encode_seconds"][name] = _encode(job, name)
            write_plan(path, document)
    run = _train(job, document, path, point, cases)
    if _PROMPTED not in point and PROMPTABLE in run.metadata.heads:
        metrics = job.evaluate(run, val, zero_shot=len(document["points"]) == 1)
        point[_PROMPTED] = _means(metrics)
        if metrics["summary"]["dice"]["zero_shot"] is not None:
            document["before"] = _means(metrics, "zero_shot")
    if _AUTOMATIC not in point and SEMANTIC in run.metadata.heads:
        point[_AUTOMATIC] = _means(job.evaluate(run, val, _AUTOMATIC, prompts="none"))
    if _UNET not in point and document["unet_time"]:
        encoding = sum(document["encode_seconds"][name] for name in (*val, *cases))
        budget = document["unet_time"] * (point["seconds"] + encoding)
        job.say(f"U-Net on the same {len(cases)} cases, {budget:.0f} seconds")
        point["unet_seconds"] = budget
        point[_UNET] = _unet(job, run, cases, val, budget)


def _encode(job: Job, name: str) -> float:
    """Encode a case's labelled frames that the store lacks; return the seconds."""
    start = time.monotonic()
    settings = job.all_settings
    report = encode_cases(
        job.network,
        job.reader,
        [case for case in job.cases if case.case_id == name],
        EmbeddingStore(job.store_path),
        precision=settings["precision"],
        min_area=settings["min_area"],
        progress=False,
    )
    job.frames.add(report)
    return time.monotonic() - start


def _train(
    job: Job, document: dict[str, Any], path: Path, point: dict[str, Any], cases: Sequence[str]
) -> Run:
    """Train the point's run, and add up the time, also of interrupted attempts."""
    name = f"cases{len(cases):04d}"
    unfinished = not RunFolder(job.out / name).is_complete
    start = time.monotonic()
    try:
        split = {"train": list(cases), "val": document["val"]}
        run = job.train(name, split, seed=document["seed"])
    finally:
        if unfinished and path.parent.is_dir():
            point["seconds"] += time.monotonic() - start
            write_plan(path, document)
    return run


def _unet(
    job: Job, run: Run, cases: Sequence[str], val: Sequence[str], budget: float
) -> dict[str, Any]:
    """Train the U-Net and measure it like a run."""
    domain = _domain_of(run)
    known = {case.case_id: case for case in job.cases}
    model = train_unet(
        domain,
        [known[name] for name in cases],
        [known[name] for name in val],
        UNetSettings(budget, seed=run.settings["settings"]["seed"]),
        job.network.device,
    )
    folder = job.out / f"unet{len(cases):04d}"
    model.save(folder / "unet.safetensors")
    facts = {"seconds": model.seconds, "steps": model.steps, "history": model.history}
    (folder / "history.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    found = _measured(job, run, val, lambda source: model.predict(domain, source), folder)
    return {**found, "steps": model.steps, "seconds": model.seconds}


def _measured(
    job: Job, run: Run, val: Sequence[str], predict: Callable[[Any], Any], folder: Path
) -> dict[str, Any]:
    """Measure label maps of the held-out cases in 3D at native resolution; write `metrics.json`."""
    domain, rows = _domain_of(run), []
    classes = {int(value): name for value, name in run.metadata.classes.items()}
    known: dict[str, Case] = {case.case_id: case for case in job.cases}
    for name in val:
        source = domain.read(known[name])
        rows += case_rows(
            predict(source),
            source.label,
            spacing=metric_spacing(source),
            classes=classes,
            case_id=name,
            known=getattr(source, "known", None),
        )
    return _means(write_metrics(folder, rows))


def _domain_of(run: Run) -> Any:
    from samonai.inference import trained_domain

    return trained_domain(run.folder.decoder, run.domain)


def _means(metrics: dict[str, Any], method: str = "finetuned") -> dict[str, Any]:
    return {
        "dice": metrics["summary"]["dice"][method],
        "per_class": {name: means["dice"][method] for name, means in metrics["per_class"].items()},
    }
