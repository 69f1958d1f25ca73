"""`samonai listen`: a storage SCP that predicts each series that arrives, and sends the result."""

from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError
from samonai.domains import DEFAULT_DOMAIN

EXAMPLE = (
    "Example: samonai listen --run runs/spleen --out queue --aet SAMONAI --port 11112 "
    "--send dicomweb://127.0.0.1:8042/dicom-web"
)


def listen(
    out: Annotated[
        Path,
        typer.Option(help="Folder of the queue; it holds patients' images until they are sent."),
    ],
    send: Annotated[
        str,
        typer.Option(
            help="The PACS that results go to: dicomweb://HOST[:PORT]/PATH or dimse://AET@HOST:PORT."
        ),
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="A run with a semantic head (trained with --heads semantic or both), or several."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A stock model, with --set automatic=grid.")
    ] = None,
    aet: Annotated[str, typer.Option(help="Our AE title.")] = "SAMONAI",
    host: Annotated[
        str,
        typer.Option(help="The address to bind to. Another one than loopback needs --allow."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 11112,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="AE title that may send; may be repeated. By default any, on loopback."),
    ] = None,
    quiet: Annotated[
        float,
        typer.Option(help="Seconds without a new instance after which a series is complete."),
    ] = 30.0,
    attempts: Annotated[
        int, typer.Option(min=1, help="Attempts before a series is set aside.")
    ] = 3,
    largest: Annotated[
        float, typer.Option(min=0.001, help="GB of waiting images; more is refused.")
    ] = 50.0,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try series again that were set aside.")
    ] = False,
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", help="dicom-seg (the default), rtstruct; may be repeated."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also send measurements as DICOM SR.")
    ] = False,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    precision: options.Precision = None,
    allow_gaps: options.AllowGaps = False,
    set_: options.Set = None,
) -> None:
    """Predict each DICOM series that arrives by C-STORE, and send the result to a PACS.

    The queue is on disk: a stopped or killed listener goes on where it stopped, and sends nothing
    twice.
    """
    from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
    from samonai.workflows.listening import listening
    from samonai.workflows.pacs_ends import receiver_options
    from samonai.workflows.run import open_runs

    if bool(run) == (model is not None):
        raise InputError("give --run for a fine-tuned decoder, or --model for a stock model")
    config = read_config(config_files(DEFAULT_DOMAIN, INFERENCE))
    settings = options.given_settings(
        config, set_, allow_gaps=allow_gaps, case_map=None, precision=precision
    )
    receiver = receiver_options(aet, host, port, allow or ())
    network = (
        open_runs(run, checkpoint=checkpoint, device=device, domain=DEFAULT_DOMAIN)
        if run
        else model
    )
    with listening(
        network, out, send, receiver, quiet=quiet, largest=int(largest * 1e9), retry=retry,
        formats=format_ or (), measure=measure, attempts=attempts, tell=typer.echo,
        checkpoint=checkpoint, device=device, **settings,
    ) as (listener, bound):  # fmt: skip
        typer.echo(f"{aet} listens on {host}:{bound}  (Ctrl-C ends it)")
        listener.run()
