"""The annotation server: opens the session and the workspace, and serves them on one address."""

import csv
import logging
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import no_empty_folders
from samonai.core.locks import locked_folder
from samonai.domains.base import Case
from samonai.serve.learning import Learner, latest_run
from samonai.serve.pacs_cases import PacsCases, http_address
from samonai.serve.scoring import CaseScorer
from samonai.serve.workspace import Workspace
from samonai.workflows.inputs import data_paths
from samonai.workflows.session import Session
from samonai.workflows.trained_run import TrainedRun

logger = logging.getLogger(__name__)

INSTALL = "pip install 'samonai[serve]'"


@dataclass(frozen=True)
class ServeOptions:
    """Options of a server.

    Attributes:
        domain: The kind of data.
        images: Folder of images; None: the series of `dicomweb`.
        out: The workspace: annotations, labels, history, trained decoders.
        labels: Folder of given labels; None: there are none.
        run: A run to begin with; None: the stock model.
        model: The model, where there is no run.
        checkpoint: The model's weights, where they are not the published ones.
        store: Where embeddings are kept; None: in the workspace.
        classes: Names of structures that annotation begins with.
        formats: Written beside each saved label.
        host: The address to bind to.
        port: The port; 0: a free one.
        names: Further names that the server is reached under.
        user: Who annotates, for the audit log.
        device: Where to compute.
        epochs: Epochs of each training.
        heads: Heads of each training, see `samonai train`; None: the domain's default.
        ranking: The CSV file of `samonai rank` (active learning), which orders the cases; None: by
            name.
        settings: Settings of the domain and of prediction.
        ohif: A build of OHIF to serve; None: none.
        dicomweb: Address of the DICOMweb server that OHIF shows, and without `images` of the PACS
            whose series are annotated, with a query; then also a DIMSE address.
        send: Address of the PACS that saved labels are sent to as DICOM objects; None: none.
    """

    domain: str
    images: Path | None
    out: Path
    labels: Path | None = None
    run: Path | None = None
    model: str = "micro"
    checkpoint: Path | None = None
    store: str | None = None
    classes: Sequence[str] = ()
    formats: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    names: Sequence[str] = ()
    user: str = ""
    device: str | None = None
    epochs: int = 20
    heads: str | None = None
    ranking: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    ohif: Path | None = None
    dicomweb: str | None = None
    send: str | None = None


def open_workspace(options: ServeOptions) -> tuple[Workspace, Learner]:
    """Return the workspace and what trains on it.

    Raises:
        InputError: Something that was given cannot be used.
    """
    source = options.dicomweb if options.images is None else None
    pacs = PacsCases(source, options.send, options.domain, options.out)
    if options.images is not None:
        data_paths(options.images, options.labels)
    elif options.labels is not None:
        raise InputError("--labels: given labels belong to a folder of --images")
    store = options.store or str(options.out / "store")

    def opened(run: Path | None) -> Session:
        chosen = run or options.run
        return Session(
            options.model if chosen is None else chosen,
            domain=options.domain,
            store=store,
            checkpoint=options.checkpoint,
            device=options.device,
            **options.settings,
        )

    session = opened(latest_run(options.out))
    if not session.classes and not options.classes and options.labels is None:
        logger.info("structures have no names yet; name them in the page or with --classes")
    labels = _labelled(session, options)
    workspace = Workspace(
        session,
        ranked(_cases(session, options, pacs), options.ranking),
        options.out,
        labels,
        options.user,
        pacs.formats(options.formats),
        classes=_classes(session, options),
        pacs=pacs,
    )
    checkpoint: Path | str | None = options.checkpoint
    if checkpoint is None and session.decoders:
        checkpoint = TrainedRun(session.decoders[0].parent).checkpoint
    learner = Learner(
        workspace, opened, checkpoint=checkpoint, heads=options.heads, store=store,
        epochs=options.epochs,
    )  # fmt: skip
    return workspace, learner


def _cases(session: Session, options: ServeOptions, pacs: PacsCases) -> list[Case]:
    if options.images is None:
        return pacs.cases(session.domain)
    return session.cases(options.images)


def ranked(cases: Sequence[Case], ranking: Path | None) -> list[Case]:
    """Return cases in the order of `samonai rank`, the others behind them.

    Raises:
        InputError: The file cannot be read, is no ranking, or ranks none of the cases.
    """
    if ranking is None:
        return list(cases)
    try:
        with ranking.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{ranking}: the ranking cannot be read ({error})") from error
    place = {row["case"]: number for number, row in enumerate(rows) if row.get("case")}
    if not any(case.case_id in place for case in cases):
        raise InputError(f"{ranking} ranks none of the cases; give the CSV of `samonai rank`")
    return sorted(cases, key=lambda case: place.get(case.case_id, len(place)))


def _labelled(session: Session, options: ServeOptions) -> dict[str, Case]:
    """Return the cases that have a given label, by id."""
    if options.labels is None or options.images is None:
        return {}
    found = session.domain.find_cases(options.images, options.labels)
    return {case.case_id: case for case in found if case.label is not None}


def _classes(session: Session, options: ServeOptions) -> dict[int, str]:
    """Return label value to name: the run's, else as given, else the labels', else one object."""
    if session.classes:
        if options.classes:
            raise InputError("--classes: the run has its own classes; leave it out")
        return dict(session.classes)
    if options.classes:
        return dict(enumerate(options.classes, 1))
    if options.images is None:
        return {1: "object"}
    named = session.domain.class_names(options.images, options.labels)
    return dict(named) if named else {1: "object"}


def serve(
    options: ServeOptions, *, browser: bool = False, ready: Callable[[str], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        options: The data, the model and the address.
        browser: Open the page.
        ready: Called with the page's address.

    Raises:
        InputError: The server extra is not installed, another server works on the workspace, or
            the address cannot be bound.
    """
    try:
        import uvicorn

        from samonai.serve.guard import Guard, limits_of
        from samonai.serve.monailabel import monailabel_routes
        from samonai.serve.monailabel.ohif import OhifOptions, ohif_routes
        from samonai.serve.routes import annotation_app
    except ImportError as error:
        raise InputError(f"serving needs {error.name}: {INSTALL}") from error
    with ExitStack() as stack:
        stack.enter_context(no_empty_folders(options.out, options.store or options.out / "store"))
        stack.enter_context(locked_folder(options.out, "annotating in"))
        workspace, learner = open_workspace(options)
        if options.ranking is None and options.images is not None:  # it would fetch all series
            CaseScorer(workspace)
        limits = limits_of(options.host, options.names)
        clients = monailabel_routes(workspace, learner)
        if options.ohif is not None:
            clients += ohif_routes(OhifOptions(options.ohif, http_address(options.dicomweb or "")))
        app = Guard(annotation_app(workspace, learner, clients), limits)
        config = uvicorn.Config(
            app, host=options.host, port=options.port, log_level="warning", access_log=False,
            server_header=False, ws="none", timeout_graceful_shutdown=5,
        )  # fmt: skip
        server = uvicorn.Server(config)
        try:
            socket = config.bind_socket()
        except SystemExit as error:
            raise InputError(
                f"{options.host}:{options.port} cannot be bound; another program may use the port: "
                f"give another --port"
            ) from error
        port = socket.getsockname()[1]
        shown = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{shown}:{port}/" + (f"t/{limits.token}/" if limits.token else "")
        ready(address)
        if browser:
            webbrowser.open(address)
        server.run(sockets=[socket])
