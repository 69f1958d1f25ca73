"""`samonai checkpoints`: list, download and verify models."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError

app = typer.Typer(no_args_is_help=True, help="List, download and verify models.")

Name = Annotated[str, typer.Argument(help="vit_b, vit_l, vit_h, vit_t or medsam_vit_b.")]


@app.command("list")
def list_all() -> None:
    """List the models, their sources, and whether they are in the cache."""
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
def download(
    name: Name,
    sha256: options.Sha256 = None,
    to: Annotated[
        Path | None,
        typer.Option(help="A file to copy it to, for a machine without internet (--checkpoint)."),
    ] = None,
) -> None:
    """Download a model into the cache, resuming an interrupted download, and verify it."""
    from samonai.core.files import sha256_file, write_atomically
    from samonai.sam.checkpoints import find_checkpoint
    from samonai.sam.download import fetch

    checkpoint = find_checkpoint(name)
    if checkpoint.url is None:
        typer.echo("embedded")
        return
    path = fetch(checkpoint, sha256)
    if to is not None:
        to = to / path.name if to.is_dir() else to
        with write_atomically(to) as temporary:
            shutil.copyfile(path, temporary)
        typer.echo(f"{to}: sha256 {sha256_file(to)}")
        return
    typer.echo(path)


@app.command(epilog="Example: samonai checkpoints verify vit_b")
def verify(
    name: Name,
    sha256: options.Sha256 = None,
    file: Annotated[Path | None, typer.Option(help="A copy elsewhere than in the cache.")] = None,
) -> None:
    """Check the size and the sha256 of a downloaded model."""
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
    path = cached_path(checkpoint) if file is None else file
    if file is not None and not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{name} is not here; fetch it with samonai checkpoints download {name}")
    verify_file(path, expected_sha256(checkpoint, sha256), checkpoint.size)
    typer.echo(f"{path}: as published")
