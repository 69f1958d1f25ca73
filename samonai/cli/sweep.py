"""`samonai sweep`: hyper-parameter search."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError

EXAMPLE = (
    "Example: samonai sweep medical --images imagesTr --labels labelsTr --out runs/sweep "
    "--trials 20 --epochs 10 --set loss_recipe=dice_bce"
)


def sweep(
    domain: options.Domain,
    images: options.Images,
    out: Annotated[Path, typer.Option(help="Folder of all trials; the same command resumes.")],
    labels: options.Labels = None,
    model: options.TrainedModel = "micro",
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    heads: options.Heads = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each trial.")] = 20,
    val_fraction: options.ValFraction = None,
    split: options.SplitFile = None,
    groups: options.Groups = None,
    seed: options.Seed = 0,
    store: options.Store = None,
    device: options.Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the sweep over.")] = False,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Hyper-parameter search for the highest Dice of held-out cases, over one store.

    Searched are the learning rate, weight decay, warm-up, box jitter, batch size and loss, except
    those given with --set.
    """
    from samonai.workflows import arguments
    from samonai.workflows.bundle_files import TRAIN, config_files, read_config

    if split is not None and (val_fraction is not None or groups is not None):
        raise InputError("give --split, or --val-fraction and --groups, not both")
    config = read_config(config_files(domain, TRAIN))
    settings = options.given_settings(
        config, set_, allow_gaps=allow_gaps, case_map=case_map, heads=heads
    )
    arguments.check_model(model, checkpoint, sha256, device)
    arguments.check_data(images, labels)
    options.tell_of_demonstration(model)

    from rich.console import Console

    from samonai import selection
    from samonai.report.selection import sweep_table

    found = selection.sweep(
        model,
        images,
        labels,
        out=out,
        trials=trials,
        groups=groups,
        split=split,
        val_fraction=0.2 if val_fraction is None else val_fraction,
        seed=seed,
        overwrite=overwrite,
        domain=domain,
        epochs=epochs,
        checkpoint=checkpoint,
        sha256=sha256,
        store=store,
        device=device,
        **settings,
    )
    Console().print(sweep_table(found.document))
    best = found.document["best"]
    given = (f"--set {shlex.quote(f'{key}={value}')}" for key, value in best["settings"].items())
    typer.echo(f"{out / best['run']}: {' '.join(given)}")
