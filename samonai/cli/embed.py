"""`samonai embed`: encode a data set into an embedding store."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samonai.cli import options
from samonai.core.errors import InputError

EXAMPLE = (
    "Example: samonai embed medical --images imagesTr --labels labelsTr --store embeddings "
    "--model vit_b; then give --store embeddings to train"
)


def embed(
    domain: options.Domain,
    images: Annotated[
        str,
        typer.Option(
            help="As for train; with --archive also series of a PACS: dicomweb://HOST/PATH?… or "
            "dimse://AET@HOST:PORT?…."
        ),
    ],
    store: Annotated[str, typer.Option(help="A folder, or a URL that fsspec supports (s3://…).")],
    labels: options.Labels = None,
    archive: options.Archive = False,
    out: Annotated[
        Path | None, typer.Option(help="With --archive: the folder for the manifest.")
    ] = None,
    readers: options.Readers = None,
    limit: options.Limit = None,
    dry_run: options.DryRun = False,
    retry_failed: options.RetryFailed = False,
    part: options.ArchivePart = None,
    model: options.TrainedModel = "micro",
    heads: options.Heads = None,
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    device: options.Device = None,
    precision: options.Precision = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Number format of a new store: float16, or int8 in half the bytes."),
    ] = None,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Encode a data set once, into a store that training and evaluation read.

    Both encode missing frames themselves; this does it ahead, possibly on another machine. Frames
    already in the store are skipped. With labels only the frames that have objects are encoded,
    and for the semantic head those without too; without labels all.
    """
    from samonai.workflows import arguments
    from samonai.workflows.bundle_files import TRAIN, config_files, read_config

    config = read_config(config_files(domain, TRAIN))
    settings = options.given_settings(
        config,
        set_,
        allow_gaps=allow_gaps,
        case_map=case_map,
        heads=heads,
        precision=precision,
        dtype=dtype,
    )
    asked: dict[str, Any] = {
        **settings,
        "store": store,
        "domain": domain,
        "checkpoint": checkpoint,
        "sha256": sha256,
        "device": device,
    }
    assigned = options.archive_part(archive, part)
    going = options.archive_settings(archive, readers, limit, dry_run, retry_failed, assigned)
    if archive and (out is None or labels is not None):
        raise InputError("--archive needs --out for the manifest, and takes no --labels")
    arguments.check_model(model, checkpoint, sha256, device)
    arguments.check_data(images, labels)
    options.tell_of_demonstration(model)
    if archive and out is not None:
        from samonai.workflows.archive.archive import embed_archive

        asked["device"] = device or assigned.device
        state = embed_archive(model, images, out, **going, **asked)
        raise typer.Exit(options.tell(state, out, dry_run, assigned))
    from samonai.workflows import train as workflow

    report = workflow.embed(model, images, labels, **asked)
    typer.echo(f"{store}: {report.encoded} frames encoded, {report.reused} already stored")
