"""`samonai calibrate`: temperature scaling on held-out cases."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options

EXAMPLE = (
    "Example: samonai calibrate medical --run runs/cv --images imagesTr --labels labelsTr, which "
    "fits each fold on its own held-out cases"
)


def calibrate(
    domain: options.Domain,
    run: Annotated[
        list[Path], typer.Option(help="A run's folder, or a folder of folds; may be repeated.")
    ],
    images: options.Images,
    labels: options.Labels = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(help="A case to fit on; may be repeated; by default the held-out cases."),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="`slices`: a box per slice and object; `volume`: one 3D box per class."),
    ] = "slices",
    box_jitter: Annotated[
        float, typer.Option(help="Jitter: each side of a box moves by up to this share.")
    ] = 0.05,
    seed: options.Seed = 0,
    planes: options.Planes = 1,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    precision: options.Precision = None,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Fit each run's temperature on held-out cases and write it into the decoder's file.

    Probabilities, uncertainty maps and the ECE use it from then on; masks do not change. Give the
    settings with which the run will predict: they change its logits.
    """
    from samonai.workflows import arguments

    arguments.check_runs(run, domain, checkpoint, device)
    arguments.check_data(images, labels)

    from samonai.selection import calibrate as fit
    from samonai.workflows.run import open_runs

    settings = options.prediction_settings(
        domain, set_, planes, allow_gaps=allow_gaps, case_map=case_map, precision=precision
    )
    for opened in open_runs(run, checkpoint=checkpoint, device=device, domain=domain):
        found = fit(
            opened,
            images,
            labels,
            cases=cases,
            prompts=prompts,
            box_jitter=box_jitter,
            seed=seed,
            **settings,
        )
        typer.echo(
            f"{opened.folder.decoder}: temperature {found.temperature:.3f} on "
            f"{len(found.cases)} cases; NLL {found.nll[0]:.4f} to {found.nll[1]:.4f}, "
            f"ECE {found.ece[0]:.4f} to {found.ece[1]:.4f}"
        )
