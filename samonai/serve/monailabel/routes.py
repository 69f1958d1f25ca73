"""Routes of MONAI Label's protocol over a workspace."""

import functools
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from samonai.core.errors import InputError
from samonai.domains.capabilities import capabilities
from samonai.domains.medical.formats.nrrd import nrrd_bytes
from samonai.domains.medical.volume import Volume
from samonai.serve.json_body import json_of
from samonai.serve.learning import Learner
from samonai.serve.monailabel import labels, wire
from samonai.serve.monailabel.images import CaseIndex, ImageFiles
from samonai.serve.monailabel.inference import SCRIBBLES, Inference, answer
from samonai.serve.monailabel.sent_labels import SentLabel, read_sent_label
from samonai.serve.monailabel.training import TRAINER, TrainingTask
from samonai.serve.monailabel.uploads import Uploads
from samonai.serve.open_cases import NotThereError
from samonai.serve.workspace import Workspace
from samonai.version import __version__

logger = logging.getLogger(__name__)

STRATEGY = "next"

_MOST_CLIENTS = 64
_LOG_LINES = 300

Handler = Callable[["Protocol", Request], Awaitable[Response]]


def monailabel_routes(workspace: Workspace, learner: Learner | None = None) -> list[Route]:
    """Return the routes that 3D Slicer's and OHIF's MONAI Label clients use.

    Args:
        workspace: Cases of volumes.
        learner: Trains on finished cases; None: nothing is trained.

    Returns:
        The routes; none where the workspace holds no volumes.
    """
    if capabilities(workspace.session.domain).planes is None:
        return []
    return Protocol(workspace, learner).routes()


def _answered(handler: Handler) -> Callable[["Protocol", Request], Awaitable[Response]]:
    """Answer errors as the clients show them: JSON with `detail`, without paths."""

    @functools.wraps(handler)
    async def answering(self: "Protocol", request: Request) -> Response:
        try:
            return await handler(self, request)
        except InputError as error:
            status = 404 if isinstance(error, NotThereError) else 400
            detail = wire.without_paths(str(error), self.folders())
            return JSONResponse({"detail": detail}, status)
        except (RuntimeError, MemoryError, OSError) as error:  # CUDA out of memory, full disk
            logger.error("%s failed: %s", handler.__name__, error)
            detail = "the request failed; the server's own log has the reason"
            return JSONResponse({"detail": detail}, 500)

    return answering


class Protocol:
    """Requests of MONAI Label's clients.

    Args:
        workspace: See `monailabel_routes`.
        learner: See `monailabel_routes`.
    """

    def __init__(self, workspace: Workspace, learner: Learner | None) -> None:
        """Find what clients uploaded before."""
        self.workspace = workspace
        self.uploads = Uploads(workspace)
        self.index = CaseIndex(workspace, self.uploads)
        self.files = ImageFiles(workspace)
        self.training = TrainingTask(learner)
        self.inference = Inference(workspace, self.uploads, self.index)
        self._last: OrderedDict[str, str] = OrderedDict()
        self._events: deque[str] = deque(maxlen=_LOG_LINES)

    def routes(self) -> list[Route]:
        """Return the routes."""
        store, train, session = "/datastore", "/train", "/session"
        table: list[tuple[str, Handler, str]] = [
            ("/auth/{rest:path}", Protocol.no_auth, "GET POST"),
            ("/info/", Protocol.info, "GET"),
            ("/infer/", Protocol.infer, "POST"),
            ("/infer/{model}", Protocol.infer, "POST"),
            (session + "/", Protocol.add_session, "PUT POST"),
            (session + "/{session}", Protocol.session, "GET DELETE"),
            (store + "/", Protocol.datastore, "GET"),
            (store + "/", Protocol.add_image, "PUT"),
            (store + "/image", Protocol.image, "GET"),
            (store + "/image", Protocol.add_image, "PUT"),
            (store + "/label", Protocol.label, "GET"),
            (store + "/label", Protocol.save_label, "PUT"),
            ("/activelearning/{strategy}", Protocol.next_sample, "POST"),
            (train + "/", Protocol.train_status, "GET"),
            (train + "/", Protocol.train_all, "POST"),
            (train + "/", Protocol.train_stop, "DELETE"),
            (train + "/{model}", Protocol.train_start, "POST"),
            ("/logs/", Protocol.logs, "GET"),
        ]
        return [
            Route(path, functools.partial(_answered(handler), self), methods=methods.split())
            for path, handler, methods in table
        ]

    def folders(self) -> set[Path]:
        """Return the folders that no answer names."""
        images = {case.image for case in self.workspace.cases.values()}
        return {self.workspace.out, *images, *(image.parent for image in images)}

    async def no_auth(self, _: Request) -> Response:
        """Answer that there is no login; what protects the server is its address."""
        raise NotThereError("there is no login; use the address that the server printed")

    async def info(self, _: Request) -> Response:
        """Answer with models, labels, strategies, trainers and progress."""
        return JSONResponse(await run_in_threadpool(self._info))

    def _info(self) -> dict[str, Any]:
        return {
            "name": "samonai",
            "description": "Segment Anything with a decoder that learns from corrections",
            "version": __version__,
            "labels": list(labels.ranks_of(self.workspace.classes)),
            "models": self.inference.models(),
            "trainers": self.training.trainers(),
            "strategies": {STRATEGY: {"description": "The first case that is not finished"}},
            "scoring": {},
            "train_stats": self.training.stats(),
            "datastore": {
                "total": len(self.workspace.cases),
                "completed": len(self.workspace.done()),
            },
        }

    async def infer(self, request: Request) -> Response:
        """Segment, and answer with the mask on the image's own grid."""
        model = str(request.path_params.get("model", ""))
        query = request.query_params
        if model and model not in self.inference.models():
            raise NotThereError(f"model {model[:40]!r}: there is no such model")
        async with wire.form_of(request) as form:
            params = wire.params_of(form)
            source = await run_in_threadpool(
                self.inference.source, query.get("image", ""), query.get("session_id", "")
            )
            label = await self._sent_label(form, source, params) if model == SCRIBBLES else None
        image = query.get("image", "")
        result = await run_in_threadpool(
            lambda: self.inference.segment(model, image, source, params, label)
        )
        self._note(f"infer {model}")
        return await run_in_threadpool(answer, query.get("output"), params, result)

    async def add_session(self, request: Request) -> Response:
        """Keep an image for a session."""
        async with wire.form_of(request) as form:
            file = wire.file_of(form, "files")
            ending = wire.ending_of(file)
            with self.uploads.incoming() as folder:
                await wire.write_upload(file, folder / f"image{ending}")
                path = folder / f"image{ending}"
                session_id = await run_in_threadpool(self.uploads.add_session, path, ending)
        self._note("session")
        info = self.uploads.session(session_id)
        return JSONResponse({"session_id": session_id, "session_info": info})

    async def session(self, request: Request) -> Response:
        """Answer whether a session is there, or delete it."""
        session_id = str(request.path_params["session"])
        if request.method == "DELETE":
            return JSONResponse(await run_in_threadpool(self.uploads.remove_session, session_id))
        return JSONResponse(await run_in_threadpool(self.uploads.session, session_id))

    async def _sent_label(
        self, form: FormData, source: Volume, params: Mapping[str, Any]
    ) -> SentLabel:
        file = wire.file_of(form, "label")
        with self.uploads.incoming() as folder:
            path = folder / f"label{wire.ending_of(file, label=True)}"
            await wire.write_upload(file, path)
            return await run_in_threadpool(read_sent_label, path, source, params.get("label_info"))

    async def datastore(self, request: Request) -> Response:
        """Answer with the number of cases, or with each case and its labels."""
        return JSONResponse(
            await run_in_threadpool(self.index.datastore, request.query_params.get("output"))
        )

    async def add_image(self, request: Request) -> Response:
        """Make a case of an image that a client sends."""
        async with wire.form_of(request) as form:
            file = wire.file_of(form, "file")
            name, ending = request.query_params.get("image") or wire.stem_of(file), None
            ending = wire.ending_of(file)
            with self.uploads.incoming() as folder:
                path = folder / f"image{ending}"
                await wire.write_upload(file, path)
                name = await run_in_threadpool(self.uploads.add_image, name, path, ending)
        self._note("image uploaded")
        return JSONResponse({"image": name})

    async def image(self, request: Request) -> Response:
        """Send a case's image as it was read."""
        case_id = await run_in_threadpool(self.index.case_of, wire.query_of(request, "image"))
        data = await run_in_threadpool(self.files.take, case_id)
        await run_in_threadpool(self._look_at_middle, case_id)
        return wire.attachment(data, "image.nrrd")

    def _look_at_middle(self, case_id: str) -> None:
        """Encode from the middle of the image outward, where viewers open it."""
        source = self.workspace.opened(case_id).source
        self.workspace.look_at(case_id, self.workspace.session.domain.frame_count(source) // 2)

    async def label(self, request: Request) -> Response:
        """Send a case's label map with values 1..N."""
        name, tag = wire.query_of(request, "label"), request.query_params.get("tag") or labels.FINAL

        def content() -> bytes:
            case_id = self.index.case_of(name)
            one = self.workspace.opened(case_id)
            found = labels.label_of(self.workspace, case_id, tag)
            found = labels.ranked(found, one.annotation.structures)
            return nrrd_bytes(found, one.source.affine, compress=True)

        return wire.attachment(await run_in_threadpool(content), "label.nrrd")

    async def save_label(self, request: Request) -> Response:
        """Save a label map; without a tag, or as "final", the case is finished."""
        name, tag = wire.query_of(request, "image"), request.query_params.get("tag") or labels.FINAL
        case_id = await run_in_threadpool(self.index.case_of, name)
        async with wire.form_of(request) as form:
            params = wire.params_of(form)
            source = (await run_in_threadpool(self.workspace.opened, case_id)).source
            sent = await self._sent_label(form, source, params)
        saved = await run_in_threadpool(
            lambda: labels.save_sent_label(self.workspace, case_id, sent, done=tag == labels.FINAL)
        )
        self._note(f"label saved, version {saved['version']}")
        return JSONResponse({"image": name, "label": name, "version": saved["version"]})

    async def next_sample(self, request: Request) -> Response:
        """Answer with the case to annotate next; an empty object: all are finished."""
        if request.path_params["strategy"] != STRATEGY:
            raise NotThereError("there is no such strategy")
        client = str((await json_of(request)).get("client_id", ""))[:80]
        return JSONResponse(await run_in_threadpool(self._next_sample, client))

    def _next_sample(self, client: str) -> dict[str, Any]:
        case_id = self.workspace.next_case(self._last.get(client))
        if case_id is None:
            return {}
        self._last[client] = case_id
        self._last.move_to_end(client)
        while len(self._last) > _MOST_CLIENTS:
            self._last.popitem(last=False)
        digest = self.files.prepare(case_id)
        return {
            "id": case_id,
            # 3D Slicer keeps what it downloaded by name, also from other servers.
            "name": f"{case_id}-{digest[:12]}.nrrd",
            "checksum": f"SHA256:{digest}",
            "ts": int(datetime.now(UTC).timestamp()),
            **self.index.dicom_facts(case_id),
        }

    async def train_status(self, request: Request) -> Response:
        """Answer with the latest training; 404 where there is none, or none runs."""
        running = request.query_params.get("check_if_running", "").lower() in ("1", "true", "yes")
        return JSONResponse(
            await run_in_threadpool(lambda: self.training.status(only_running=running))
        )

    async def train_start(self, request: Request) -> Response:
        """Start training."""
        model, params = str(request.path_params["model"]), await json_of(request)
        task = await run_in_threadpool(self.training.start, model, params)
        self._note("training started")
        return JSONResponse(task)

    async def train_all(self, request: Request) -> Response:
        """Start the only trainer, as OHIF does it."""
        given = (await json_of(request)).get(TRAINER)
        params = given if isinstance(given, dict) else {}
        task = await run_in_threadpool(self.training.start, TRAINER, params)
        self._note("training started")
        return JSONResponse({TRAINER: {"result": task, "detail": None}})

    async def train_stop(self, _: Request) -> Response:
        """Stop training."""
        return JSONResponse(await run_in_threadpool(self.training.stop))

    async def logs(self, request: Request) -> Response:
        """Answer with the latest requests as plain text; no cases, no names."""
        asked = request.query_params.get("lines", "")
        lines = list(self._events)[-int(asked) if asked.isdigit() and int(asked) else 0 :]
        return PlainTextResponse("\n".join(lines) + "\n")

    def _note(self, event: str) -> None:
        self._events.append(f"{datetime.now(UTC).isoformat(timespec='seconds')} {event}")
