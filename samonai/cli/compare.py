"""`samonai compare`: runs, evaluations and label maps of other tools on the same cases."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options

EXAMPLE = (
    "Example: samonai compare runs/a runs/b nnunet-predictions --images imagesTs --labels labelsTs "
    "--out compared"
)


def compare(
    items: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more: a run's folder; an evaluation's (with metrics.json); a folder of "
            "label maps of any tool, a file per case or a folder of structures per case."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for compare.json, compare.csv, index.html.")],
    images: Annotated[Path | None, typer.Option(help="Images, to evaluate runs on.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Reference labels, for runs and label maps.")
    ] = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(help="A case of the runs to measure; may be repeated; or all."),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="Prompts of the runs, as of `samonai evaluate`.")
    ] = "slices",
    groups: options.Groups = None,
    seed: options.Seed = 0,
) -> None:
    """Compare runs, evaluations and label maps of other tools (nnU-Net, TotalSegmentator).

    Cases are matched by their names, structures by theirs; the first is compared with each other
    one by a paired test over patients.
    """
    from samonai.workflows import compare as workflow

    document = workflow.compare(
        items,
        out,
        images=images,
        labels=labels,
        cases="all" if cases == ["all"] else cases or None,
        prompts=prompts,
        groups=groups,
        seed=seed,
    )
    from rich.console import Console

    from samonai.report.comparison import comparison_tables

    for table in comparison_tables(document):
        Console().print(table)
    typer.echo(f"{out / 'compare.json'}, compare.csv, index.html")
