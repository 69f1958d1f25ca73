"""Clicks that annotation costs while the decoder learns from it, by a simulated user.

    python -m benchmarks.annotation_loop --images FOLDER --labels FOLDER --out DIR [--cases 24]

The user goes through the cases in turn. On three slices of each, every structure gets a box (5 %
jitter), then clicks into the middle of the largest error until Dice is 0.9 or the clicks run out.
After every `--every` finished cases the server's own training runs on them (`samonai serve`'s
"train on finished cases", in processes of its own). Beside it stands the same user with a decoder
that is never trained. Printed are the clicks and seconds per case, by thirds, and the two ratios;
`loop.json` has every case.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.metrics.objects import pixel_metrics
from samonai.prompts.clicks import interior_pixel
from samonai.prompts.sampling import jitter_boxes
from samonai.serve.learning import Learner
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

GOOD_DICE = 0.9
MOST_CLICKS = 12
SLICES = 3
JITTER = 0.05


def main(arguments: Sequence[str] | None = None) -> None:
    """Play both users, print the table and write `loop.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=24, help="number of cases, by name")
    parser.add_argument("--every", type=int, default=4, help="cases between trainings")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    settings = dict(text.split("=", 1) for text in given.set)
    learning = _play(given, given.out / "learning", settings, given.every)
    never = _play(given, given.out / "never", settings, None)
    third = max(1, len(learning) // 3)
    print("| cases | clicks a case, learning | never trained | seconds a case, learning |")  # noqa: T201
    print("|---|---|---|---|")  # noqa: T201
    for begin in range(0, third * 3, third):
        ours, theirs = learning[begin : begin + third], never[begin : begin + third]
        clicks, others = (fmean(row["clicks"] for row in rows) for rows in (ours, theirs))
        seconds = fmean(row["seconds"] for row in ours)
        print(f"| {begin + 1} to {begin + third} | {clicks:.1f} | {others:.1f} | {seconds:.1f} |")  # noqa: T201
    first, last, plain = (
        fmean(row["clicks"] for row in rows)
        for rows in (learning[:third], learning[-third:], never[-third:])
    )
    print(f"last third / first: {last / first:.2f}; last third / never trained: {last / plain:.2f}")  # noqa: T201
    document = {"learning": learning, "never": never}
    (given.out / "loop.json").write_text(json.dumps(document, indent=1))


def _play(
    given: argparse.Namespace, folder: Path, settings: dict[str, str], every: int | None
) -> list[dict[str, Any]]:
    """Annotate all cases; train after every so many, if a number is given."""
    store = str(folder / "store")

    def opened(run: Path | None) -> Session:
        return Session(given.model if run is None else run, store=store, device="cpu")

    session = opened(None)
    cases = session.domain.find_cases(given.images, given.labels)[: given.cases]
    values = {v for t in _truths(session, session.domain.read(cases[0])).values() for v in t.flat}
    names = {int(value): f"structure {value}" for value in sorted(values - {0})}
    workspace = Workspace(session, cases, folder / "out", classes=names)
    learner = Learner(workspace, opened, store=store, settings=settings, epochs=given.epochs)
    random = np.random.default_rng(0)
    rows = []
    for number, case in enumerate(cases, start=1):
        began = time.perf_counter()
        clicks, dice = _annotate(workspace, case.case_id, random)
        rows.append(
            {
                "case": case.case_id,
                "clicks": clicks,
                "dice": dice,
                "seconds": time.perf_counter() - began,
            }
        )
        if every is not None and number % every == 0 and number < len(cases):
            learner.start()
            learner.join()
            status = learner.status()
            if status["state"] == "failed":
                raise SystemExit(f"training failed: {status['reason']}")
            latest = status["rounds"][-1]
            rows[-1]["trained"] = {k: latest[k] for k in ("before", "after", "better", "held_out")}
            print(f"after {number} cases: {rows[-1]['trained']}", flush=True)  # noqa: T201
    return rows


def _annotate(
    workspace: Workspace, case_id: str, random: np.random.Generator
) -> tuple[int, list[float]]:
    """Annotate three slices of a case and save it; return the clicks, and the Dice of each mask."""
    one = workspace.opened(case_id)
    truths = _truths(workspace.session, one.source)
    shown = list(truths)
    total, dice = 0, []
    for index in sorted({shown[len(shown) * (2 * n + 1) // (2 * SLICES)] for n in range(SLICES)}):
        truth = truths[index]
        for value in np.unique(truth[truth > 0]).tolist():
            clicks, reached = _segment(workspace, case_id, index, value, truth == value, random)
            total += clicks
            dice.append(reached)
    workspace.save(case_id, one.annotation.revision)
    return total, dice


def _truths(session: Session, source: Any) -> dict[int, npt.NDArray[np.integer]]:
    """Return the labels of a source's frames that have objects, by frame index."""
    frames = (session.domain.frame(source, n) for n in range(session.domain.frame_count(source)))
    labels = {index: frame.label for index, frame in enumerate(frames)}
    return {n: label for n, label in labels.items() if label is not None and label.any()}


def _segment(
    workspace: Workspace,
    case_id: str,
    index: int,
    value: int,
    truth: npt.NDArray[np.bool_],
    random: np.random.Generator,
) -> tuple[int, float]:
    """Draw a box around a structure and click into its errors until its mask is good."""
    one = workspace.opened(case_id)
    rows, columns = np.nonzero(truth)
    exact = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    box = jitter_boxes(exact, JITTER, truth.shape[::-1], random)[0].tolist()
    clicks: list[list[float]] = []
    while True:
        given = {"value": value, "box": box, "clicks": clicks}
        drawn = workspace.prompt(case_id, f"o{value}", index, given, one.annotation.revision)
        found = workspace.folder(case_id).masks.read(drawn.mask)
        reached = pixel_metrics(found, truth)["dice"] or 0.0
        if reached >= GOOD_DICE or len(clicks) == MOST_CLICKS:
            return len(clicks), reached
        missed, extra = truth & ~found, found & ~truth
        region = missed if missed.sum() >= extra.sum() else extra
        row, column = interior_pixel(region)
        clicks.append([column + 0.5, row + 0.5, int(region is missed)])


if __name__ == "__main__":
    main()
