"""`samonai curve`: learning curve, Dice over the number of training cases."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError

EXAMPLE = (
    "Example: samonai curve medical --images imagesTr --labels labelsTr --out runs/curve "
    "--shares 5,25,100 --epochs 10 --heads both"
)


def curve(
    domain: options.Domain,
    images: options.Images,
    out: Annotated[Path, typer.Option(help="Folder of all points; the same command resumes.")],
    labels: options.Labels = None,
    model: options.TrainedModel = "micro",
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    heads: options.Heads = None,
    shares: Annotated[
        str, typer.Option(help="Percentages of the training cases, separated by commas.")
    ] = "1,2,5,10,25,50,100",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each point.")] = 20,
    unet: Annotated[
        float, typer.Option(min=0, help="The U-Net's wall time in multiples of ours; 0: none.")
    ] = 1.0,
    val_fraction: options.ValFraction = None,
    split: options.SplitFile = None,
    groups: options.Groups = None,
    seed: options.Seed = 0,
    store: options.Store = None,
    device: options.Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over.")] = False,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Train on shares of the cases, beside a U-Net from scratch in the same wall time.

    All points are measured on the same held-out cases. With --heads both the semantic head is
    measured too: like the U-Net, it needs no prompts.
    """
    from samonai.workflows import arguments
    from samonai.workflows.bundle_files import TRAIN, config_files, read_config

    if split is not None and val_fraction is not None:
        raise InputError("give --split or --val-fraction, not both")
    config = read_config(config_files(domain, TRAIN))
    settings = options.given_settings(
        config, set_, allow_gaps=allow_gaps, case_map=case_map, heads=heads
    )
    arguments.check_model(model, checkpoint, sha256, device)
    arguments.check_data(images, labels)
    options.tell_of_demonstration(model)

    from rich.console import Console

    from samonai import selection
    from samonai.report.curves import curve_table, verdict

    found = selection.curve(
        model,
        images,
        labels,
        out=out,
        shares=_percentages(shares),
        groups=groups,
        split=split,
        val_fraction=0.2 if val_fraction is None else val_fraction,
        seed=seed,
        unet=unet,
        overwrite=overwrite,
        domain=domain,
        epochs=epochs,
        checkpoint=checkpoint,
        sha256=sha256,
        store=store,
        device=device,
        **settings,
    )
    Console().print(curve_table(found.document))
    if said := verdict(found.document):
        typer.echo(said)
    typer.echo(f"{out / 'curve.json'}, curve.png")


def _percentages(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--shares {text}: expected percent such as 5,25,100") from error
