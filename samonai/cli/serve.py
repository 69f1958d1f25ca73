"""`samonai serve`: annotate in a browser, and train on corrected labels."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from samonai.cli import options
from samonai.core.errors import InputError

EXAMPLE = (
    "Example: samonai serve medical --images scans --out annotation --classes liver,spleen; or "
    "samonai serve --demo"
)


def serve(
    domain: Annotated[
        str, typer.Argument(help="Kind of data: medical, satellite or documents.")
    ] = "",
    images: Annotated[Path | None, typer.Option(help="Folder of images to annotate.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The workspace: annotations, labels, their history, trained decoders."),
    ] = None,
    labels: options.Labels = None,
    run: Annotated[Path | None, typer.Option(help="A run to begin with; else --model.")] = None,
    model: options.Model = "micro",
    checkpoint: options.Checkpoint = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of structures, separated by commas.")
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Also write each saved label as dicom-seg, rtstruct, …; see predict."
        ),
    ] = None,
    store: options.Store = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to bind to. Another one than loopback needs the secret address that "
            "is printed."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A further host name that the server is reached under."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Who annotates, for the audit log; by default the login.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 20,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Heads of each training: promptable; semantic or both also give proposals and "
            "the order of active learning. By default as `samonai train`."
        ),
    ] = None,
    ranking: Annotated[
        Path | None,
        typer.Option(help="The CSV file of `samonai rank`: the order in which cases come next."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Annotate phantom patients; opens the page.")
    ] = False,
    ohif: Annotated[
        Path | None,
        typer.Option(help="A build of OHIF with the MONAI Label extension, to serve at /ohif/."),
    ] = None,
    dicomweb: Annotated[
        str | None,
        typer.Option(
            help="A PACS whose series are annotated, instead of --images: "
            "dicomweb://HOST/PATH?StudyDate=… or dimse://AET@HOST:PORT?…; with --ohif also the "
            "address of the DICOMweb server that OHIF shows."
        ),
    ] = None,
    send: options.Send = None,
    device: options.Device = None,
    set_: options.Set = None,
) -> None:
    """Annotate in a browser with boxes and clicks, save labels, and train on them."""
    from samonai.domains import DEFAULT_DOMAIN, DOMAINS
    from samonai.serve.server import ServeOptions
    from samonai.serve.server import serve as start
    from samonai.settings.choices import HEADS
    from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
    from samonai.workflows.settings import parse_settings

    if demo:
        from samonai.serve.demo import demo_images

        if images is not None or labels is not None:
            raise InputError("--demo makes its own images; leave --images and --labels out")
        domain, out = domain or DEFAULT_DOMAIN, out or Path("samonai-annotation")
        images, labels, named = demo_images(out)
        classes, browser = classes or ",".join(named.values()), True
    if domain not in DOMAINS:
        raise InputError(f"give the kind of data first: {', '.join(sorted(DOMAINS))}")
    if heads is not None and heads not in HEADS:
        raise InputError(f"--heads {heads}: use one of {', '.join(HEADS)}")
    for option, value in (("--images", images or dicomweb), ("--out", out)):
        if value is None:
            raise InputError(f"{option} is missing; `samonai serve --demo` needs neither")
    assert out is not None
    config = read_config(config_files(domain, INFERENCE))
    start(
        ServeOptions(
            domain, images, out, labels, run, model, checkpoint, store,
            [part.strip() for part in (classes or "").split(",") if part.strip()],
            format_ or (), host, port, name or (), _login() if user is None else user,
            device, epochs, heads, ranking, parse_settings(set_ or [], config), ohif, dicomweb,
            send,
        ),
        browser=browser,
        ready=lambda address: typer.echo(f"{address}  (Ctrl-C ends the server)"),
    )  # fmt: skip


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in a container
        return ""
