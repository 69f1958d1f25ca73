"""Active learning: ranking of cases or frames for annotation, the most uncertain first.

- `disagreement`: one minus the mean Dice between pairs of runs, mean over the structures.
- `iou`: one minus the decoders' own estimate of their masks' IoU, mean over the prompts.
- `uncertainty`: the mean uncertainty (entropy in bits) of the voxels predicted inside.
"""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from samonai.core.csv_cells import csv_row
from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.inference.case_dataset import prompted
from samonai.inference.frame_outputs import Automatic
from samonai.sam.decoder_metadata import trained_cases
from samonai.workflows.inputs import existing, shows_progress
from samonai.workflows.run import Run, open_runs
from samonai.workflows.trained_run import Runs

if TYPE_CHECKING:
    from samonai.core.frame import Frame
    from samonai.domains.base import Case
    from samonai.inference import Certainty
    from samonai.inference.case_dataset import PromptSource
    from samonai.inference.inferer import FrameOutput, FramePrompts
    from samonai.workflows.session import Session

logger = logging.getLogger(__name__)

SCORES = ("disagreement", "iou", "uncertainty")
UNITS = ("case", "slice")
COLUMNS = ("rank", "case", "slice", "score", *SCORES, "voxels", "reason")


@dataclass(frozen=True)
class Ranked:
    """A ranked case or frame, with the uncertainty of the runs.

    Attributes:
        case: The case's name.
        slice: The frame's index; None for a whole case.
        score: Ranking score, 0..1; the highest is first.
        figures: All known values of `SCORES`.
        voxels: Number of voxels predicted inside.
        reason: The score in words.
    """

    case: str
    slice: int | None
    score: float
    figures: dict[str, float | None]
    voxels: int
    reason: str

    def row(self, rank: int) -> dict[str, Any]:
        """Return the row of the CSV file."""
        return {
            "rank": rank,
            "case": self.case,
            "slice": "" if self.slice is None else self.slice,
            "score": f"{self.score:.6f}",
            **{k: "" if v is None else f"{v:.6f}" for k, v in self.figures.items()},
            "voxels": self.voxels,
            "reason": self.reason,
        }


def rank(
    runs: Runs,
    images: Path | str,
    out: Path | str,
    *,
    boxes: Path | str | None = None,
    by: str = "case",
    score: str | None = None,
    store: Path | str | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> list[Ranked]:
    """Active learning: rank cases by the uncertainty of runs that were not trained on them.

    Args:
        runs: A run or several; a folder of folds means all of them.
        images: Folder of images; cases that a run was trained or validated on are left out.
        out: The CSV file to write.
        boxes: Prompts, as for `predict` on several cases; None: the semantic head.
        by: "case" or "slice".
        score: One of `SCORES`; None: disagreement for several runs, else the estimated IoU with
            prompts, else the uncertainty.
        store: Embedding store; None: the first run's.
        progress: Show a bar; by default if standard error is a terminal.
        **settings: Settings of prediction, see `Session`: ranked is the result of `predict`.

    Raises:
        InputError: An argument cannot be used, or no case is left.
    """
    opened = open_runs(runs)
    chosen = _score(score, len(opened), prompted=boxes is not None)
    if by not in UNITS:
        raise InputError(f"ranking is by {' or '.join(UNITS)}, got {by!r}")
    found: list[Ranked] = []
    for case_id, index, structures in _observed(
        opened, images, boxes, by, store, shows_progress(progress), settings
    ):
        found.append(_ranked(case_id, index, structures, chosen))
    found.sort(key=lambda one: (-one.score, one.case, one.slice or 0))
    with write_atomically(Path(out)) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(csv_row(one.row(number)) for number, one in enumerate(found, start=1))
    return found


def rank_case(session: "Session", case: "Case", pause: Callable[[], None]) -> Ranked:
    """Return how uncertain a session is of a case, without prompts.

    Args:
        session: Its networks have a semantic head.
        case: The case.
        pause: Called after each frame, so that others may go first; may raise to end the work.
    """
    from samonai.inference.ensemble import temperatures

    watch = _Watch(temperatures(session.decoders), each_frame=False, pause=pause)
    item = prompted(session.domain, case, session.domain.read(case), _everything)
    session.decode(item, uncertainty=False, observers=[watch])
    seen = watch.seen.get(None)
    structures = {} if seen is None else seen.document(session.classes)
    score = _score(None, len(session.networks), prompted=False)
    return _ranked(case.case_id, None, structures, score)


class _Watch:
    """Collects one `Certainty` for the whole source, or one for each frame."""

    def __init__(
        self,
        scales: Sequence[float],
        *,
        each_frame: bool,
        pause: Callable[[], None] | None = None,
    ) -> None:
        self.scales, self.each_frame, self.pause = scales, each_frame, pause
        self.seen: dict[int | None, Certainty] = {}

    def observe(self, frame: "Frame", prompts: "FramePrompts", output: "FrameOutput") -> None:
        """Collect one frame."""
        from samonai.inference import Certainty

        if self.pause is not None:
            self.pause()
        key = frame.location.index if self.each_frame else None
        certainty = self.seen.setdefault(key, Certainty(self.scales))
        certainty.observe(frame, prompts, output)
        certainty.maps.clear()  # only the figures are needed


def _observed(
    runs: Sequence[Run],
    images: Path | str,
    boxes: Path | str | None,
    by: str,
    store: Path | str | None,
    shown: bool,
    settings: Mapping[str, Any],
) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Yield case, frame and the figures of its structures, for cases new to the runs."""
    from samonai.inference.ensemble import temperatures
    from samonai.workflows.session import Session

    session = Session(
        list(runs), store=runs[0].folder.store() if store is None else store, **settings
    )
    cases = session.cases(existing(images, "images"))
    known = {name for run in runs for name in _known_cases(run)}
    new = [case for case in cases if case.case_id not in known]
    if not new:
        raise InputError(f"all {len(cases)} cases in {images} are part of the runs' own data")
    if len(new) < len(cases):
        logger.warning("%d cases of the runs' own data are left out", len(cases) - len(new))
    watch = _Watch(temperatures(session.decoders), each_frame=by == "slice")
    prompts = _prompts(session, runs[0], boxes, len(new))
    console = Console(stderr=True)
    for case in track(new, "ranking", console=console, disable=not shown):
        watch.seen = {}
        item = prompted(session.domain, case, session.domain.read(case), prompts)
        session.decode(item, uncertainty=False, observers=[watch])
        for index, seen in watch.seen.items():
            yield case.case_id, index, seen.document(session.classes)


def _prompts(
    session: "Session", run: Run, boxes: Path | str | None, cases: int
) -> "PromptSource[Any]":
    """Return the source of each case's prompts: a file, or the semantic head."""
    if boxes is not None:
        return session.prompts(existing(boxes, "boxes"), several=cases > 1)[0]
    if run.network.semantic_head is None:
        raise InputError(
            f"{run.path} has no semantic head, so it needs prompts: give a folder of boxes or of "
            f"coarse label maps with --boxes"
        )
    return _everything


def _everything(domain: Any, case: Any, source: Any) -> Automatic:
    """Request no objects one by one: only the map of classes has an uncertainty."""
    return Automatic()


def _known_cases(run: Run) -> list[str]:
    training = run.metadata.training
    return [*trained_cases(training), *training.get("val_cases", [])]


def _score(asked: str | None, runs: int, *, prompted: bool) -> str:
    if asked is None:
        return "disagreement" if runs > 1 else "iou" if prompted else "uncertainty"
    if asked not in SCORES:
        raise InputError(f"the score {asked!r} is not known; use one of {', '.join(SCORES)}")
    if asked == "disagreement" and runs < 2:
        raise InputError("disagreement is between runs; give --run twice, or a folder of folds")
    if asked == "iou" and not prompted:
        raise InputError("the semantic head estimates no IoU; rank by uncertainty or disagreement")
    return asked


def _ranked(case: str, index: int | None, structures: dict[str, Any], score: str) -> Ranked:
    each = {
        "disagreement": _one_minus(structures, "agreement"),
        "iou": _one_minus(structures, "predicted_iou"),
        "uncertainty": {
            name: found["uncertainty"]
            for name, found in structures.items()
            if found["uncertainty"] is not None
        },
    }
    figures = {name: fmean(values.values()) if values else None for name, values in each.items()}
    value = figures[score]
    return Ranked(
        case,
        index,
        0.0 if value is None else min(max(value, 0.0), 1.0),
        figures,
        sum(found["voxels"] for found in structures.values()),
        _reason(score, each[score]),
    )


def _one_minus(structures: dict[str, Any], figure: str) -> dict[str, float]:
    """Return by structure one minus a figure, if it is known."""
    known = {name: found[figure] for name, found in structures.items()}
    return {name: 1 - value for name, value in known.items() if value is not None}


def _reason(score: str, uncertainties: dict[str, float]) -> str:
    """Return the structure with the highest uncertainty and its value, as text."""
    if not uncertainties:
        return "nothing is predicted"
    name, value = max(uncertainties.items(), key=lambda item: item[1])
    said = {
        "disagreement": f"the runs agree at Dice {1 - value:.2f}",
        "iou": f"the decoder predicts IoU {1 - value:.2f}",
        "uncertainty": f"the mean entropy is {value:.2f} bit",
    }
    return f"{name}: {said[score]}"
