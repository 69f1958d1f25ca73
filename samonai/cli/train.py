"""`samonai train`: fine-tune the mask decoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samonai.cli import options
from samonai.core.errors import InputError

if TYPE_CHECKING:
    from samonai.selection import RunSet
    from samonai.workflows.run import Run

EXAMPLE = (
    "Example: samonai train medical --images imagesTr --labels labelsTr --out runs/spleen "
    "--epochs 40 --set window=soft_tissue"
)


def train(
    domain: options.Domain,
    images: options.Images,
    out: Annotated[Path, typer.Option(help="The run's folder; the same command again resumes.")],
    labels: options.Labels = None,
    model: options.TrainedModel = "micro",
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    heads: options.Heads = None,
    epochs: Annotated[int, typer.Option(min=1, help="Largest number of epochs.")] = 20,
    val_fraction: options.ValFraction = None,
    split: options.SplitFile = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validation: number of runs, each with one part held out."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Number of runs that differ in the seed only.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"case": "patient", …}: one patient\'s cases stay together. By '
            "default each case is a patient."
        ),
    ] = None,
    parts: Annotated[
        str,
        typer.Option(
            "--train",
            help="Trainable parts, joined by +: decoder, prompts, iou_head, decoder-lora, and of "
            "the encoder one of encoder-lora, encoder-adapters, encoder-last-K, encoder-norms.",
        ),
    ] = "decoder",
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the decoder of an earlier run instead of the model's own.",
        ),
    ] = None,
    seed: options.Seed = 0,
    store: options.Store = None,
    device: options.Device = None,
    precision: options.Precision = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the run over.")] = False,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Fine-tune the mask decoder on a folder of images and labels.

    Every frame is encoded once, into a store; then only the decoder is trained, unless --train
    names other parts. Killed at any moment, the same command resumes and ends with the weights of
    an uninterrupted run.

    With --folds or --seeds the folder holds several runs over one store; the folds divide the
    split's training cases if a split is given.
    """
    from samonai.workflows import arguments
    from samonai.workflows.bundle_files import TRAIN, config_files, read_config

    _check_together(split, val_fraction, folds, seeds, groups)
    config = read_config(config_files(domain, TRAIN))
    settings = options.given_settings(
        config, set_, allow_gaps=allow_gaps, case_map=case_map, heads=heads, precision=precision
    )
    arguments.check_model(model, checkpoint, sha256, device)
    arguments.check_data(images, labels)
    if from_ is not None:
        settings["initial_decoder"] = arguments.check_initial_run(from_, domain, model)

    options.tell_of_demonstration(model)
    from samonai import selection
    from samonai.workflows import train as workflow

    common: dict[str, Any] = {
        **settings,
        "train_parts": parts,
        "domain": domain,
        "out": out,
        "epochs": epochs,
        "split": split,
        "seed": seed,
        "checkpoint": checkpoint,
        "sha256": sha256,
        "store": store,
        "device": device,
        "overwrite": overwrite,
    }
    data = (model, images, labels)
    if folds is not None:
        _show(selection.cross_validate(*data, folds=folds, groups=groups, **common))
        return
    common["val_fraction"] = 0.2 if val_fraction is None else val_fraction
    if seeds is not None:
        _show(selection.repeat_seeds(*data, seeds=seeds, groups=groups, **common))
    else:
        _tell(workflow.finetune(*data, **common))


def _check_together(
    split: Path | None,
    val_fraction: float | None,
    folds: int | None,
    seeds: int | None,
    groups: Path | None,
) -> None:
    """Refuse options that exclude each other."""
    if split is not None and val_fraction is not None:
        raise InputError("give --split or --val-fraction, not both")
    if folds is not None and seeds is not None:
        raise InputError("give --folds or --seeds, not both")
    if folds is not None and val_fraction is not None:
        raise InputError("--folds holds each part out once; leave out --val-fraction")
    if groups is not None and folds is None and (seeds is None or split is not None):
        raise InputError("--groups goes with --folds, or with --seeds without --split")


def _tell(run: "Run") -> None:
    """Print the path of a run's decoder and its validation Dice."""
    metrics = run.metadata.metrics
    done = run.metadata.training.get("epochs_done")
    typer.echo(
        f"{run.folder.decoder}: validation Dice {metrics['val_dice']:.3f} after epoch "
        f"{metrics['epoch']} of {done}"
    )
    from samonai.training.data.split import held_out_line

    training = run.metadata.training
    if rule := training.get("held_out_by"):
        typer.echo(held_out_line(training["train_cases"], training["val_cases"], rule))


def _show(runs: "RunSet") -> None:
    """Print the table of several runs."""
    from rich.console import Console

    from samonai.report.selection import members_table

    Console().print(members_table(runs.document))
    frames = runs.document["frames"]
    typer.echo(f"{runs.path}: {frames['encoded']} frames encoded, {frames['reused']} reused")
