"""Run the benchmarks: `python -m benchmarks [--quick] [--out DIR] [--only SUBJECT …]`."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.status import Status

from benchmarks import (
    attention,
    crowd,
    crowd_trees,
    decoder,
    embedding,
    encoder,
    ensemble,
    freed,
    hour,
    house,
    local_decoding,
    many_cases,
    scaling,
    serving,
    store,
    training,
    validation,
    volume,
)
from benchmarks.report import table_of, write_report
from benchmarks.rows import Row
from benchmarks.setting import QUICK, Setting
from benchmarks.timing import Progress

SUBJECTS: dict[str, Callable[[Setting, Progress], list[Row]]] = {
    "training": training.measure,
    "training_vit_h": training.measure_huge,
    "encoder": encoder.measure,
    "attention": attention.measure,
    "decoder": decoder.measure,
    "crowd": crowd.measure,
    "crowd_trees": crowd_trees.measure,
    "local_decoding": local_decoding.measure,
    "ensemble": ensemble.measure,
    "freed": freed.measure,
    "hour": hour.measure,
    "house": house.measure,
    "store": store.measure,
    "scaling": scaling.measure,
    "many_cases": many_cases.measure,
    "validation": validation.measure,
    "serving": serving.measure,
    "volume": volume.measure,
    "embedding": embedding.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write `results.json`; return 1 when a bar is missed."""
    options = _parser().parse_args(arguments)
    setting = QUICK if options.quick else Setting()
    console = Console()
    rows: list[Row] = []
    with console.status("starting") as status:
        for subject in options.only or SUBJECTS:
            rows += SUBJECTS[subject](setting, partial(_show, status, subject))
            # After each subject, so that a stopped run keeps its results.
            write_report(rows, setting, options.out / "results.json")
    console.print(table_of(rows))
    console.print(f"written to {options.out / 'results.json'}")
    return 1 if any(row.met is False for row in rows) else 0


def _show(status: Status, subject: str, text: str) -> None:
    status.update(f"{subject}: {text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small model, few rounds: shows that all works"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), help="folder")
    parser.add_argument(
        "--only", action="append", choices=sorted(SUBJECTS), help="a subject; may be repeated"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
