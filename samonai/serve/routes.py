"""HTTP routes of the annotation server: cases, frames, prompts, saving, training.

Ids of cases are looked up in the workspace and never become paths. Every change names the revision
that it was made to; where another tab was faster, the answer is 409.
"""

import base64
import logging
from collections.abc import Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from samonai.core.errors import InputError
from samonai.domains.base import metric_spacing
from samonai.domains.capabilities import capabilities
from samonai.serve.annotation import FrameObject, decoded_png
from samonai.serve.display import FLAT, display_of
from samonai.serve.json_body import json_of
from samonai.serve.open_cases import NotThereError, RevisionError
from samonai.serve.views import Views, case_name, frame_number
from samonai.serve.workspace import Workspace
from samonai.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from samonai.serve.learning import Learner

logger = logging.getLogger(__name__)

PAGE = "page"


def annotation_app(
    workspace: Workspace, learner: "Learner | None" = None, clients: Sequence[Route] = ()
) -> Starlette:
    """Return the application of a workspace.

    Args:
        workspace: Cases and annotations.
        learner: Trains on finished cases; None: nothing is trained.
        clients: Routes of other clients, before the page's; see `samonai.serve.monailabel`.
    """
    api = Api(workspace, learner)
    page = str(files("samonai.serve") / PAGE)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> "AsyncIterator[None]":
        yield
        if learner is not None:
            learner.stop()
        workspace.close()

    return Starlette(
        routes=[
            Mount("/api", routes=api.routes()),
            *clients,
            Mount("/", StaticFiles(directory=page, html=True)),
        ],
        exception_handlers={InputError: _input_error, HTTPException: _http_error},  # type: ignore[dict-item]
        lifespan=lifespan,
    )


class Api:
    """Requests of the page.

    Args:
        workspace: See `annotation_app`.
        learner: See `annotation_app`.
    """

    def __init__(self, workspace: Workspace, learner: "Learner | None") -> None:
        """Keep both."""
        self.workspace, self.learner = workspace, learner

    def routes(self) -> list[Route]:
        """Return the routes below `/api`."""
        case, frame = "/cases/{case}", "/cases/{case}/frames/{frame:int}"
        one = frame + "/objects/{object}"
        return [
            Route("/info", self.info),
            Route("/cases", self.cases),
            Route("/next", self.next_case),
            Route(case, self.case),
            Route(case + "/view", self.view, methods=["POST"]),
            Route(case + "/structures", self.structure, methods=["POST"]),
            Route(case + "/propose", self.propose, methods=["POST"]),
            Route(case + "/accept", self.accept, methods=["POST"]),
            Route(case + "/dismiss", self.dismiss, methods=["POST"]),
            Route(case + "/begin", self.begin, methods=["POST"]),
            Route(case + "/history/{version:int}", self.restore_version, methods=["POST"]),
            Route(case + "/save", self.save, methods=["POST"]),
            Route(case + "/restore", self.restore, methods=["POST"]),
            Route(case + "/objects/{object}", self.remove_everywhere, methods=["DELETE"]),
            Route(one, self.prompt, methods=["PUT"]),
            Route(one, self.remove, methods=["DELETE"]),
            Route(one + "/paint", self.paint, methods=["PUT"]),
            Route(one + "/carry", self.carry, methods=["POST"]),
            Route("/learn", self.learn, methods=["GET", "POST", "DELETE"]),
            Route("/learn/back", self.go_back, methods=["POST"]),
            *Views(self.workspace).routes(case, frame),
        ]

    async def info(self, _: Request) -> Response:
        """Answer with the model, its classes, and what can be done."""
        space = self.workspace
        session = space.session
        return JSONResponse(
            {
                "version": __version__,
                "domain": session.domain.name,
                "model": session.networks[0].name,
                "decoders": len(session.decoders),
                "classes": _by_value(session.classes),
                "proposes": space.proposes,
                "learns": self.learner is not None,
                "labels": bool(space.labels),
            }
        )

    async def cases(self, _: Request) -> Response:
        """Answer with the cases, their states, and their scores of active learning."""
        states = await run_in_threadpool(self.workspace.states)
        scores = self.workspace.scores
        return JSONResponse(
            [
                {"case": name, "state": state, "score": scores.get(name)}
                for name, state in states.items()
            ]
        )

    async def next_case(self, request: Request) -> Response:
        """Answer with the case to annotate next; null: all are done."""
        after = request.query_params.get("after")
        return JSONResponse({"case": await run_in_threadpool(self.workspace.next_case, after)})

    async def case(self, request: Request) -> Response:
        """Answer with a case's frames, annotation, and which frames are encoded."""
        return JSONResponse(await run_in_threadpool(self._case, case_name(request)))

    def _case(self, name: str) -> dict[str, Any]:
        one = self.workspace.opened(name)
        domain = self.workspace.session.domain
        count = domain.frame_count(one.source)
        able = capabilities(domain)
        planes, viewer = able.planes, able.viewer
        spacing = None if planes is None else metric_spacing(one.source)
        height, width = domain.frame(one.source, 0).size
        return {
            "case": name,
            "frames": count,
            "size": [height, width],
            "spacing_mm": None if spacing is None else list(map(float, spacing)),
            "volume": planes is not None,
            "grid": None if planes is None else _grid(one.source, planes.axis),
            "windows": {} if viewer is None else viewer.windows(one.source),
            "display": (FLAT if planes is None else display_of(one.source.affine, planes.axis)),
            "labelled": getattr(one.source, "label", None) is not None,
            "ready": self.workspace.queue.ready(name),
            "failure": self.workspace.queue.failure(name),
            **one.annotation.facts(),
            "objects": [drawn.document() for drawn in one.annotation.objects],
        }

    async def view(self, request: Request) -> Response:
        """Encode the visible frame first; answer with the frames that are encoded."""
        given = await json_of(request)
        frame, name = given.get("frame"), case_name(request)
        if not isinstance(frame, int):
            raise InputError("frame: expected a number")
        await run_in_threadpool(self.workspace.look_at, name, frame)
        queue = self.workspace.queue
        return JSONResponse({"ready": queue.ready(name), "failure": queue.failure(name)})

    async def prompt(self, request: Request) -> Response:
        """Segment an object from a box and clicks."""
        given = await json_of(request)
        name, index = case_name(request), frame_number(request)
        drawn = await run_in_threadpool(
            self.workspace.prompt, name, _object(request), index, given, _revision(given)
        )
        return await self._drawn(name, [drawn])

    async def paint(self, request: Request) -> Response:
        """Take a painted mask."""
        given = await json_of(request)
        name, index = case_name(request), frame_number(request)
        png = decoded_png(given.get("png"))
        drawn = await run_in_threadpool(
            self.workspace.paint,
            name, _object(request), index, given.get("value"), png, _revision(given),
        )  # fmt: skip
        return await self._drawn(name, [drawn])

    async def restore(self, request: Request) -> Response:
        """Put an object back as it was."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(self.workspace.restore, name, given, _revision(given))
        return await self._drawn(name, [drawn])

    async def remove(self, request: Request) -> Response:
        """Remove an object from a frame."""
        given, name = await json_of(request), case_name(request)
        index = frame_number(request)
        await run_in_threadpool(
            self.workspace.remove, name, _object(request), index, _revision(given)
        )
        return await self._drawn(name, [])

    async def remove_everywhere(self, request: Request) -> Response:
        """Remove an object from all frames."""
        given, name = await json_of(request), case_name(request)
        await run_in_threadpool(
            self.workspace.remove, name, _object(request), None, _revision(given)
        )
        return await self._drawn(name, [])

    async def carry(self, request: Request) -> Response:
        """Carry an object to the frames beside it."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(
            self.workspace.carry,
            name, _object(request), frame_number(request), given.get("reach"),
            _revision(given),
        )  # fmt: skip
        return await self._drawn(name, drawn)

    async def propose(self, request: Request) -> Response:
        """Segment everything that the model knows."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(self.workspace.propose, name, _revision(given))
        return await self._drawn(name, drawn)

    async def accept(self, request: Request) -> Response:
        """Accept the proposals of an object, or all."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(
            self.workspace.accept, name, given.get("object"), _revision(given)
        )
        return await self._drawn(name, drawn)

    async def dismiss(self, request: Request) -> Response:
        """Remove the proposals of an object, or all; answer with those removed."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(
            self.workspace.dismiss, name, given.get("object"), _revision(given)
        )
        return await self._drawn(name, drawn)

    async def restore_version(self, request: Request) -> Response:
        """Put a case's objects back as they were saved in an earlier version."""
        given, name = await json_of(request), case_name(request)
        version = int(request.path_params["version"])
        await run_in_threadpool(self.workspace.restore_version, name, version, _revision(given))
        return JSONResponse(await run_in_threadpool(self._case, name))

    async def begin(self, request: Request) -> Response:
        """Begin with the given label."""
        given, name = await json_of(request), case_name(request)
        drawn = await run_in_threadpool(self.workspace.begin_with_label, name, _revision(given))
        return await self._drawn(name, drawn)

    async def structure(self, request: Request) -> Response:
        """Name a structure."""
        given, name = await json_of(request), case_name(request)
        await run_in_threadpool(
            self.workspace.name_structure,
            name, given.get("value"), given.get("name"), _revision(given),
        )  # fmt: skip
        return await self._drawn(name, [])

    async def save(self, request: Request) -> Response:
        """Write the label map."""
        given, name = await json_of(request), case_name(request)
        return JSONResponse(
            await run_in_threadpool(
                self.workspace.save, name, _revision(given), done=bool(given.get("done", True))
            )
        )

    async def learn(self, request: Request) -> Response:
        """Start training, stop it, or answer with how it stands."""
        if self.learner is None:
            raise InputError("this server does not train")
        if request.method == "POST":
            await run_in_threadpool(self.learner.start)
        elif request.method == "DELETE":
            await run_in_threadpool(self.learner.stop)
        return JSONResponse(await run_in_threadpool(self.learner.status))

    async def go_back(self, _: Request) -> Response:
        """Go back to the decoder before the last one."""
        if self.learner is None:
            raise InputError("this server does not train")
        await run_in_threadpool(self.learner.go_back)
        return JSONResponse(await run_in_threadpool(self.learner.status))

    async def _drawn(self, name: str, drawn: list[FrameObject]) -> Response:
        """Answer with objects and their masks, and the annotation's new revision."""

        def content() -> dict[str, Any]:
            one = self.workspace.opened(name)
            masks = self.workspace.folder(name).masks
            few = {o.mask for o in drawn} if len(drawn) == 1 else ()
            return {
                "objects": [one_object.document() for one_object in drawn],
                "masks": {m: base64.b64encode(masks.png(m)).decode() for m in few},
                **one.annotation.facts(),
            }

        return JSONResponse(await run_in_threadpool(content))


def _grid(source: Any, axis: int) -> dict[str, Any]:
    """Return where frames lie in a volume: its shape, the axis across, the part that they show."""
    return {
        "shape": list(source.shape),
        "axis": axis,
        "start": [side.start for side in source.part],
        "affine": source.affine.tolist(),
    }


def _by_value(classes: Any) -> dict[str, str]:
    return {str(value): name for value, name in sorted(classes.items())}


def _object(request: Request) -> str:
    return str(request.path_params["object"])


def _revision(given: dict[str, Any]) -> int:
    revision = given.get("revision")
    if not isinstance(revision, int) or isinstance(revision, bool):
        raise InputError("revision: expected the number of the annotation that is changed")
    return revision


async def _input_error(_: Request, error: InputError) -> Response:
    status = (
        409
        if isinstance(error, RevisionError)
        else 404
        if isinstance(error, NotThereError)
        else 400
    )
    return JSONResponse({"detail": str(error)}, status)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"detail": error.detail}, error.status_code)
