"""Train every regime on the same subjects and write the rows of docs/regimes.md.

`python -m benchmarks.regimes --data FOLDER --out DIR [--only NAME …] [--cases N] [--epochs N]`
`python -m benchmarks.regimes --data FOLDER --out DIR --only-times [--steps N] [--cases N]`

FOLDER holds `manifest.csv` (columns task, use, image, ...) and `msd-hippocampus`; subjects marked
`train` are trained on, those marked `val` are measured. All regimes share one store, the seed and
the model. A regime that has its row already is skipped, and one that was interrupted goes on, so
the same command can be given until all is there. Leaves `DIR/regimes.md` and a folder per regime.

With `--only-times` nothing is trained to an end: all regimes take turns at a few steps each, so
that the machine is the same for all, and `DIR/times.json` gets the median seconds of a step.
"""

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import samonai
from benchmarks import markdown
from benchmarks.regime_list import REGIMES, Regime, command
from benchmarks.regime_times import opened_trainers, read_times, rounds_of, take_turns, write_times
from samonai.core.files import write_atomically
from samonai.workflows.bundle_files import EVALUATE, TRAIN, config_files, read_config
from samonai.workflows.inputs import network_overrides, store_location
from samonai.workflows.settings import plain_settings

_ROW = "row.json"
_CLICKS = "1,3,5,9"
_TURNS = 2
_NEVER = 10**6
_TASK, _FOLDER = "hippocampus", "msd-hippocampus"

Split = dict[str, list[str]]


def main(arguments: list[str] | None = None) -> int:
    """Train and measure what has no row yet; write the tables after each regime."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    split = read_split(options.data, options.cases, options.held_out)
    console.print(f"{len(split['train'])} subjects to train on, {len(split['val'])} held out")
    chosen = [r for r in REGIMES if not options.only or r.name in options.only]
    if options.only_times:
        time_steps(chosen, split, options, console)
        write_tables(options.out)
    else:
        measure_all(chosen, split, options, console)
    console.print(f"written to {options.out / 'regimes.md'}")
    return 0


def measure_all(
    regimes: Sequence[Regime], split: Split, options: argparse.Namespace, console: Console
) -> None:
    """Train and measure each regime without a row, and write it."""
    known = plain_settings(read_config(config_files("medical", TRAIN, EVALUATE)))
    for regime in regimes:
        if missing := sorted(set(regime.settings) - set(known)):
            console.print(f"{regime.name}: left out, the bundle has no setting {missing[0]}")
            continue
        path = options.out / regime.name / _ROW
        if not path.is_file():
            console.print(f"{regime.name}: {command(regime)}")
            row = measure(regime, split, options)
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        write_tables(options.out)


def time_steps(
    regimes: Sequence[Regime], split: Split, options: argparse.Namespace, console: Console
) -> None:
    """Time a step of each regime, trained as `measure` trains it, and keep the times."""
    options.out.mkdir(parents=True, exist_ok=True)
    split_file = options.out / "split.json"
    with write_atomically(split_file) as temporary:
        temporary.write_text(json.dumps(split), encoding="utf-8")
    images, labels = folders(options.data)
    shared = {
        **network_overrides(options.model, options.checkpoint),
        "images": images,
        "labels": labels,
        "split": split_file,
        "store": store_location(options.out / "store"),
        # The training never ends, so nothing is measured there.
        "epochs": _NEVER,
    }
    overrides = {
        regime.name: {**shared, **trained_with(regime, options), "val_interval": _NEVER}
        for regime in regimes
    }
    with opened_trainers(config_files("medical", TRAIN), overrides, console.print) as steppers:
        seconds = take_turns(steppers, options.steps, _TURNS, console.print)
    write_times(options.out, seconds)


def read_split(data: Path, cases: int | None = None, held_out: int | None = None) -> Split:
    """Return the manifest's subjects, or the first so many of both sides."""
    split: Split = {"train": [], "val": []}
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["task"] == _TASK and row["use"] in split:
                split[row["use"]].append(Path(row["image"]).name.removesuffix(".nii.gz"))
    return {"train": split["train"][:cases], "val": split["val"][:held_out]}


def folders(data: Path) -> tuple[Path, Path]:
    """Return the folders of images and labels."""
    return data / _FOLDER / "imagesTr", data / _FOLDER / "labelsTr"


def trained_with(regime: Regime, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that a regime is trained with."""
    return {
        "learning_rate": options.learning_rate,
        "amp": options.amp,
        "val_interval": options.val_interval,
        **regime.settings,
    }


def measure(regime: Regime, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """Train one regime and measure it on the held-out subjects; return its row."""
    folder: Path = options.out / regime.name
    images, labels = folders(options.data)
    run = samonai.finetune(
        options.model,
        images,
        labels,
        out=folder / "run",
        epochs=options.epochs,
        split=split,
        seed=0,
        checkpoint=options.checkpoint,
        store=options.out / "store",
        **trained_with(regime, options),
    )

    row = {
        "regime": regime.name,
        "group": regime.group,
        "command": command(regime),
        "trainable_parameters": run.metadata.training.get("trainable_parameters"),
        "epochs": run.metadata.training["epochs_done"],
        "val_dice": run.metadata.metrics["val_dice"],
    }
    evaluate = partial(
        run.evaluate,
        images,
        labels,
        cases=split["val"],
        report=False,
        # The Dice before fine-tuning is the same for all regimes; the tables show it once.
        zero_shot=regime.clicks,
    )
    if regime.automatic:
        row["automatic"] = _dice(evaluate(folder / "none", prompts="none"), "finetuned")
    if regime.settings.get("heads") != "semantic":
        row |= _prompted(regime, evaluate, folder)
    return row


def _prompted(
    regime: Regime, evaluate: Callable[..., dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """Return a row's metrics with boxes and clicks; `evaluate` takes a folder and settings."""
    boxes = evaluate(folder / "slices", prompts="slices")
    counts = _CLICKS if regime.clicks else "1"
    clicks = evaluate(folder / "clicks", prompts="clicks", evaluation={"clicks": counts})["clicks"]

    def first(method: str) -> dict[str, Any]:
        return {"box": _dice(boxes, method), "point": _dice(clicks[0], method)}

    row = first("finetuned")
    if regime.clicks:
        row["before"] = first("zero_shot")
        row["clicks"] = {
            method: {entry["clicks"]: _dice(entry, method) for entry in clicks}
            for method in ("zero_shot", "finetuned")
        }
    return row


def write_tables(out: Path) -> None:
    """Write `regimes.md` from the rows that are there."""
    rows = [
        json.loads((out / regime.name / _ROW).read_text(encoding="utf-8"))
        for regime in REGIMES
        if (out / regime.name / _ROW).is_file()
    ]
    seconds = read_times(out)
    tables = [regime_table(rows, seconds), click_table(rows), round_table(seconds)]
    with write_atomically(out / "regimes.md") as temporary:
        temporary.write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def regime_table(rows: Sequence[dict[str, Any]], seconds: Mapping[str, float]) -> str:
    """Return the regimes as a Markdown table, with the seconds of a step by name."""
    classes = list(dict.fromkeys(name for row in rows for name in row.get("box", {})))
    header = ["regime", "command", "trainable", "s/step"]
    header += [f"{prompt}, {name}" for prompt in ("box", "click") for name in classes]
    header.append("no prompt")
    before = next((row["before"] for row in rows if "before" in row), None)
    lines: list[list[str]] = []
    if before is not None:
        dice = [markdown.number(before[p].get(name)) for p in ("box", "point") for name in classes]
        lines.append(["before fine-tuning", "", "", "", *dice, ""])
    for row in rows:
        dice = [
            markdown.number(row.get(p, {}).get(name)) for p in ("box", "point") for name in classes
        ]
        automatic = " / ".join(
            markdown.number(value) for value in row.get("automatic", {}).values()
        )
        count, step = row["trainable_parameters"], seconds.get(row["regime"])
        lines.append(
            [
                row["regime"],
                f"`{row['command']}`",
                "" if count is None else f"{count:,}",
                "" if step is None else f"{step:.2f}",
                *dice,
                automatic,
            ]
        )
    return markdown.table(header, lines)


def click_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Dice by number of clicks as a Markdown table, the mean over the classes."""
    counted = [row for row in rows if "clicks" in row]
    counts = list(counted[0]["clicks"]["finetuned"]) if counted else []
    lines = []
    parts = [("before fine-tuning", counted[0]["clicks"]["zero_shot"])] if counted else []
    parts += [(row["regime"], row["clicks"]["finetuned"]) for row in counted]
    for name, dice in parts:
        means = [sum(dice[n].values()) / len(dice[n]) for n in counts]
        lines.append([name, *(markdown.number(mean) for mean in means)])
    return markdown.table(["clicks", *counts], lines)


def round_table(seconds: Mapping[str, float]) -> str:
    """Return the cost of a round, for steps with several, as a Markdown table."""
    lines = [
        [regime.name, rounds, f"{step:.2f}", f"{step / rounds:.2f}"]
        for regime in REGIMES
        if (step := seconds.get(regime.name)) is not None
        and ((rounds := rounds_of(regime.settings)) > 1 or regime is REGIMES[0])
    ]
    return markdown.table(["rounds", "number", "s/step", "s/round"], lines)


def _dice(means: dict[str, Any], method: str) -> dict[str, float]:
    return {name: values["dice"][method] for name, values in means["per_class"].items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regimes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="rows, runs, store, tables")
    parser.add_argument("--only", nargs="+", choices=[regime.name for regime in REGIMES])
    parser.add_argument("--cases", type=int, help="train on the first so many subjects")
    parser.add_argument("--held-out", type=int, help="measure on the first so many subjects")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--val-interval", type=int, default=1, help="epochs from check to check")
    parser.add_argument("--amp", action="store_true", help="train in bfloat16 where that serves")
    parser.add_argument("--only-times", action="store_true", help="time steps, train nothing")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--model", default="micro")
    parser.add_argument("--checkpoint", type=Path, help="the model's weights, if not its own")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
