"""`samonai evaluate`: metrics of a run beside its baselines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samonai.cli import options
from samonai.core.errors import InputError
from samonai.core.json_files import read_json

EXAMPLE = (
    "Example: samonai evaluate medical --run runs/spleen --images imagesTs --labels labelsTs "
    "--out runs/spleen/test"
)


def evaluate(
    domain: options.Domain,
    run: Annotated[
        list[Path],
        typer.Option(
            help="The run's folder, or a folder of folds; several are measured as an "
            "ensemble, and each by itself."
        ),
    ],
    images: options.Images,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, metrics.csv, index.html.")],
    labels: options.Labels = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            help="A case to measure; may be repeated; or all. By default the run's held-out "
            "cases, or all if none of them is there; for several runs those that none trained on."
        ),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="Measure the `val` cases of this split file.")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="`slices`: a box per slice and object; `volume`: one 3D box per class; `middle`: "
            "one box per class on its middle slice, propagated; `middle_click`: one click there; "
            "`keyframes`: boxes on the first, middle and last slice, interpolated; "
            "`clicks`: 1, 3, 5 and 9 clicks per slice and object (`--set evaluation.clicks=...`); "
            "`none`: the semantic head, which has no baselines."
        ),
    ] = "slices",
    planes: options.Planes = 1,
    box_jitter: Annotated[
        float | None,
        typer.Option(help="Jitter: each side of a box moves by up to this share; 0.05 by default."),
    ] = None,
    seed: options.Seed = 0,
    groups: options.Groups = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    precision: options.Precision = None,
    report: Annotated[bool, typer.Option(help="Draw overlays and write index.html.")] = True,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Measure a run on labelled cases, beside the model before fine-tuning and the filled box.

    All three get the same boxes. All metrics are computed in 3D on the cases' own grids, in mm,
    slices without the structure included.
    """
    from samonai.workflows import arguments
    from samonai.workflows.bundle_files import EVALUATE, TRAIN, config_files, read_config

    if split is not None and cases:
        raise InputError("give --split or --cases, not both")
    config = read_config(config_files(domain, TRAIN, EVALUATE))
    settings = options.given_settings(
        config, set_, allow_gaps=allow_gaps, case_map=case_map, precision=precision
    )
    settings |= options.plane_settings(config, planes)
    chosen = _chosen(cases, split)
    arguments.check_runs(run, domain, checkpoint, device)
    arguments.check_data(images, labels)

    from rich.console import Console

    from samonai.report.statistics import interval_lines
    from samonai.report.tables import clicks_table, ensemble_lines, metrics_table
    from samonai.workflows import run as workflow
    from samonai.workflows.run import open_runs

    metrics = workflow.evaluate(
        open_runs(run, checkpoint=checkpoint, device=device, domain=domain),
        images,
        labels,
        out,
        cases=chosen,
        prompts=prompts,
        box_jitter=box_jitter,
        seed=seed,
        report=report,
        groups=groups,
        **settings,
    )
    Console().print(metrics_table(metrics))
    if "clicks" in metrics:
        Console().print(clicks_table(metrics))
    for line in (*ensemble_lines(metrics), *interval_lines(metrics)):
        typer.echo(line)
    typer.echo(f"{out / 'metrics.json'}, metrics.csv" + (", index.html" if report else ""))


def _chosen(cases: list[str] | None, split: Path | None) -> str | list[str] | None:
    if split is None:
        return "all" if cases == ["all"] else cases or None
    try:
        content: Any = read_json(split)
    except (OSError, InputError) as error:
        raise InputError(f"the split file {split} cannot be read: {error}") from error
    names = content.get("val") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(f'the split file {split} has no list of cases under "val"')
    return names
