"""`samonai rank`: active learning, the order of cases for annotation."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options

EXAMPLE = (
    "Example: samonai rank medical --run runs/cv --images unlabelled --boxes boxes "
    "--out ranking.csv, where boxes holds a JSON file for each case"
)

_SHOWN = 10


def rank(
    domain: options.Domain,
    run: Annotated[
        list[Path],
        typer.Option(help="A run's folder, or a folder of folds; several measure disagreement."),
    ],
    images: Annotated[
        Path, typer.Option(help="Folder of images; cases of the runs' own data are left out.")
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write, first to annotate on top.")],
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with a case column, or a folder with boxes or a coarse label map per "
            "case. Without it the semantic head is used."
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="`case` or `slice`.")] = "case",
    score: Annotated[
        str | None,
        typer.Option(
            help="`disagreement` of several runs, `iou` as predicted by the decoder, or "
            "`uncertainty`; by default the first of these that is available."
        ),
    ] = None,
    planes: options.Planes = 1,
    store: options.Store = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    precision: options.Precision = None,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Active learning: rank unlabelled cases or slices by the uncertainty of the runs.

    Ranked is what `samonai predict` gives with the same options and settings.
    """
    from samonai.workflows import arguments

    settings = options.prediction_settings(
        domain, set_, planes, allow_gaps=allow_gaps, case_map=case_map, precision=precision
    )
    arguments.check_runs(run, domain, checkpoint, device)
    arguments.check_data(images)

    from rich.console import Console

    from samonai.report.selection import ranking_table
    from samonai.selection import rank as rank_cases
    from samonai.workflows.run import open_runs

    ranked = rank_cases(
        open_runs(run, checkpoint=checkpoint, device=device, domain=domain),
        images,
        out,
        boxes=boxes,
        by=by,
        score=score,
        store=store,
        **settings,
    )
    Console().print(ranking_table([one.row(n) for n, one in enumerate(ranked[:_SHOWN], 1)]))
    typer.echo(f"{out}: {len(ranked)} {'slices' if by == 'slice' else 'cases'}")
