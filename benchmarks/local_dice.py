"""Held-out Dice and CPU time of decoders trained on windows of image tokens and on all of them.

`python -m benchmarks.local_dice --data FOLDER --out DIR [--cases N] [--held-out N] [--seeds N]
[--epochs N]`

FOLDER is that of `benchmarks.regimes`. Every seed trains twice on the same subjects and store, with
`decoder_window=all` and `auto`; the CPU seconds of an epoch are those of a training on stored
embeddings, start and validation included. Dice is the best epoch's on the held-out subjects, with
boxes of 5 % jitter: in 3D by subject and class, on the low-res frames, each decoder on the tokens
that it was trained on. A seed whose row is there is skipped. Leaves `DIR/local_dice.md`.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

import samonai
from benchmarks import markdown
from benchmarks.regimes import Split, folders, read_split
from samonai.core.files import write_atomically
from samonai.settings.choices import ALL_TOKENS, LOCAL
from samonai.workflows.run import Run


def main(arguments: list[str] | None = None) -> int:
    """Train and measure what has no row yet; write the table after each seed."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    split = read_split(options.data, options.cases, options.held_out)
    console.print(f"{len(split['train'])} subjects to train on, {len(split['val'])} held out")
    rows = []
    for seed in range(options.seeds):
        path = options.out / f"seed_{seed}" / "row.json"
        if not path.is_file():
            row = _measure(seed, split, options)
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        rows.append(json.loads(path.read_text(encoding="utf-8")))
        with write_atomically(options.out / "local_dice.md") as temporary:
            temporary.write_text(table(rows) + "\n", encoding="utf-8")
        console.print(table(rows))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Dice and seconds of each seed, and their means, as a Markdown table."""
    lines: list[list[str]] = []
    for name in rows[0]:
        of_seeds = [row[name] for row in rows]
        dice = [one["dice"] for one in of_seeds]
        lines.append(
            [
                f"`{name}`",
                f"{mean(one['epoch_cpu_seconds'] for one in of_seeds):.0f}",
                " / ".join(f"{value:.4f}" for value in dice),
                f"{mean(dice):.4f}",
            ]
        )
    return markdown.table(
        ["`decoder_window`", "CPU s per epoch", "Dice of each seed", "mean"], lines
    )


def _measure(seed: int, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """Return, by setting, the Dice and the CPU seconds of an epoch."""
    found: dict[str, Any] = {}
    folder = options.out / f"seed_{seed}"
    _train(folder / "filled", seed, 1, LOCAL, split, options)  # its frames are stored from now on
    for windows in (ALL_TOKENS, LOCAL):
        start = time.process_time()
        run = _train(folder / windows, seed, options.epochs, windows, split, options)
        seconds = (time.process_time() - start) / options.epochs
        found[windows] = {"epoch_cpu_seconds": seconds, "dice": run.metadata.metrics["val_dice"]}
    return found


def _train(
    out: Path, seed: int, epochs: int, windows: str, split: Split, options: argparse.Namespace
) -> Run:
    images, labels = folders(options.data)
    return samonai.finetune(
        options.model,
        images,
        labels,
        out=out,
        epochs=epochs,
        split=split,
        seed=seed,
        store=options.out / "store",
        decoder_window=windows,
        progress=False,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.local_dice", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="rows, runs, store, table")
    parser.add_argument("--cases", type=int, default=16, help="train on the first so many")
    parser.add_argument("--held-out", type=int, default=8, help="measure on the first so many")
    parser.add_argument("--seeds", type=int, default=1, help="seeds, from 0 on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--model", default="micro")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
