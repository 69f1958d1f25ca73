"""`samonai demo`: training, evaluation and prediction on generated phantom patients."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options

EXAMPLE = "Example: samonai demo --out demo-output"


def demo(
    out: Annotated[Path, typer.Option(help="The folder to leave.")],
    seed: options.Seed = 0,
) -> None:
    """Train, evaluate and predict on phantom patients, with the embedded model and offline.

    Takes some minutes on two cores, and writes overlays, the learning curve, a Dice table and
    label maps, with a page that shows them all.
    """
    from rich.console import Console

    from samonai.report.tables import metrics_table
    from samonai.workflows.demo import run_demo

    result = run_demo(out, seed=seed, say=lambda line: typer.echo(line, err=True))
    Console().print(metrics_table(result.metrics, "Held-out patients"))
    for mask in result.masks:
        typer.echo(f"mask: {mask}")
    typer.echo(f"Look at {result.page}")
