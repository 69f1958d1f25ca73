"""Dice in 3D of a run, by its prompts: a box per slice, one in 3D, or on one slice.

    python -m benchmarks.prompts3d --run RUN --images FOLDER --labels FOLDER --out DIR

Measured are the cases that the run held out, or those named with `--case`; prompts are exact. With
several `--run`, such as folds, each measures what it held out, and the table is over all of these.
Each row is one `samonai evaluate` per run, whose files stay in a folder of DIR.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "a box on every slice": {"prompts": "slices"},
    "one 3D box": {"prompts": "volume"},
    "one 3D box, three planes": {"prompts": "volume", "planes": 3},
    "boxes on first, middle and last slice, interpolated": {"prompts": "keyframes"},
    "one box on the middle slice, propagated": {"prompts": "middle"},
    "one click on the middle slice, propagated": {"prompts": "middle_click"},
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=Path, required=True, action="append", help="may be given again"
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", action="append", help="may be given again")
    parser.add_argument(
        "--row", action="append", type=int, help=f"1 to {len(ROWS)}, may be given again"
    )
    asked = parser.parse_args(arguments)
    from samonai.workflows.run import Run

    runs = [Run(path) for path in asked.run]
    if len(runs) > 1 and asked.case:
        parser.error("--case goes with one --run; several measure what each held out")
    for number, (title, regime) in enumerate(ROWS.items(), 1):
        if asked.row and number not in asked.row:
            continue
        folder = asked.out / title.replace(",", "").replace(" ", "_")
        found = [
            run.evaluate(
                asked.images,
                asked.labels,
                folder / run.path.name if len(runs) > 1 else folder,
                cases=asked.case,
                box_jitter=0.0,
                zero_shot=False,
                report=False,
                **regime,
            )
            for run in runs
        ]
        print(_line(title, [row for one in found for row in one["cases"]]), flush=True)  # noqa: T201


def _line(title: str, rows: list[dict[str, Any]]) -> str:
    """Return a line of the table: each class's mean Dice over the cases, and the lowest."""
    cells = []
    for name in dict.fromkeys(row["class"] for row in rows):
        dice = [row["dice"] for row in rows if row["class"] == name]
        known = [value for value in dice if value is not None]
        cells.append(f"{name} {fmean(known):.3f} ({min(known):.2f})" if known else f"{name} none")
    count = len({row["case"] for row in rows})
    return f"| {title} | {' | '.join(cells)} | {count} cases |"


if __name__ == "__main__":
    main()
