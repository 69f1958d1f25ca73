"""`samonai train`: fine-tune the mask decoder."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.errors import InputError

EXAMPLE = (
    "Example: samonai train medical --images imagesTr --labels labelsTr --out runs/spleen "
    "--epochs 40 --set window=soft_tissue"
)


def train(
    domain: options.Domain,
    images: options.Images,
    out: Annotated[Path, typer.Option(help="The run's folder; the same command again resumes.")],
    labels: options.Labels = None,
    model: options.Model = "micro",
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most often each frame is seen.")] = 20,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the cases held out; 0.2 without a split.")
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(help='JSON {"train": [case, …], "val": [case, …]}; a case is a file\'s name.'),
    ] = None,
    seed: options.Seed = 0,
    store: options.Store = None,
    device: options.Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the run over.")] = False,
    set_: options.Set = None,
) -> None:
    """Fine-tune the mask decoder on a folder of images and labels.

    Every frame is encoded once, into a store; then only the decoder is trained. Killed at any
    moment, the same command goes on and ends with the weights of an uninterrupted run.
    """
    from samonai import api
    from samonai.bundles import TRAIN, config_files, parse_settings, read_config

    if split is not None and val_fraction is not None:
        raise InputError("give --split or --val-fraction, not both")
    config = read_config(config_files(domain, TRAIN))
    settings = parse_settings(set_ or [], config, options.HAVE_OPTIONS)
    run = api.finetune(
        model,
        images,
        labels,
        domain=domain,
        out=out,
        epochs=epochs,
        split=split,
        val_fraction=0.2 if val_fraction is None else val_fraction,
        seed=seed,
        checkpoint=checkpoint,
        sha256=sha256,
        store=store,
        device=device,
        overwrite=overwrite,
        **settings,
    )
    metrics = run.metadata.metrics
    done = run.metadata.training.get("epochs_done")
    typer.echo(
        f"{run.folder.decoder}: validation Dice {metrics['val_dice']:.3f} after epoch "
        f"{metrics['epoch']} of {done}"
    )
