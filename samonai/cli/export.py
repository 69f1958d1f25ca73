"""`samonai export`: write a fine-tuned model for other software."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.export.formats import FORMATS, export_run

EXAMPLE = "Example: samonai export --run runs/spleen --format hf --out spleen-hf"


def export(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    out: Annotated[Path, typer.Option(help="The file or the new folder to write.")],
    format_name: Annotated[
        str,
        typer.Option("--format", help="; ".join(f"{k}: {v}" for k, v in FORMATS.items()) + "."),
    ] = "sam",
    checkpoint: options.Checkpoint = None,
) -> None:
    """Write a fine-tuned model, encoder included, for other software, and verify it there."""
    from samonai.workflows.run import Run

    checks = export_run(Run(run, checkpoint=checkpoint, device="cpu"), out, format_name)
    typer.echo(out)
    for what, difference in checks.items():
        typer.echo(f"largest difference of {what}: {difference:.2g}")
