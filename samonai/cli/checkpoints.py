"""`samonai checkpoints`: list, fetch and verify models, and write fine-tuned ones for others."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError

app = typer.Typer(
    no_args_is_help=True, help="List, fetch and verify models; write fine-tuned ones for others."
)

Name = Annotated[str, typer.Argument(help="vit_b, vit_l, vit_h, vit_t or medsam_vit_b.")]


@app.command("list")
def list_all() -> None:
    """List the models, where they come from, and whether they are here."""
    from samonai.sam.checkpoints import CHECKPOINTS, cached_path

    for checkpoint in CHECKPOINTS.values():
        if checkpoint.url is None:
            typer.echo(f"{checkpoint.name}: embedded")
            continue
        path = cached_path(checkpoint)
        state = str(path) if path.is_file() else "not fetched"
        size = f"{checkpoint.size / 1e6:,.0f} MB" if checkpoint.size else "size not published"
        typer.echo(f"{checkpoint.name}: {state}; {size}, {checkpoint.url}")


@app.command(epilog="Example: samonai checkpoints download vit_b")
def download(name: Name, sha256: options.Sha256 = None) -> None:
    """Fetch a model into the cache, resume where it stopped, and verify it."""
    from samonai.sam.checkpoints import find_checkpoint
    from samonai.sam.download import fetch

    checkpoint = find_checkpoint(name)
    typer.echo("embedded" if checkpoint.url is None else fetch(checkpoint, sha256))


@app.command(epilog="Example: samonai checkpoints verify vit_b")
def verify(name: Name, sha256: options.Sha256 = None) -> None:
    """Check the size and the sha256 of a fetched model."""
    from samonai.sam.checkpoints import (
        cached_path,
        expected_sha256,
        find_checkpoint,
        verify_file,
    )

    checkpoint = find_checkpoint(name)
    if checkpoint.url is None:
        typer.echo(f"{name}: embedded, nothing to verify")
        return
    path = cached_path(checkpoint)
    if not path.is_file():
        raise InputError(f"{name} is not here; fetch it with samonai checkpoints download {name}")
    verify_file(path, expected_sha256(checkpoint, sha256), checkpoint.size)
    typer.echo(f"{path}: as published")


@app.command(epilog="Example: samonai checkpoints export --run runs/spleen --out spleen.pth")
def export(
    run: Annotated[Path, typer.Option(help="The folder that training wrote.")],
    out: Annotated[Path, typer.Option(help="File ending in .pth, .pt or .safetensors.")],
    format: Annotated[  # noqa: A002
        str, typer.Option(help="sam: a full state that sam_model_registry loads.")
    ] = "sam",
    checkpoint: options.Checkpoint = None,
) -> None:
    """Write a fine-tuned model, encoder included, for the tools that take SAM."""
    from samonai.sam import save_sam
    from samonai.workflows import run as workflow

    if format != "sam":
        raise InputError(f"--format {format} is not known; use sam")
    typer.echo(save_sam(workflow.Run(run, checkpoint=checkpoint, device="cpu").network, out))
