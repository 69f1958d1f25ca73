"""`samonai report`: the page of a run, and methods paragraphs with its facts."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: samonai report runs/spleen --evaluation runs/spleen/test"


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Folder of an evaluation; by default the only one in the run's folder."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; by default `report` in the run's.")
    ] = None,
) -> None:
    """Write a run's page and methods paragraphs for a paper, with its facts filled in."""
    from samonai.workflows import run_report

    page = run_report.report(run, out, evaluation=evaluation)
    typer.echo(f"{page}, {run_report.METHODS_FILE}")
