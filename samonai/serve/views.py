"""HTTP routes that only look: pictures, masks, volumes, figures, uncertainty, saved versions."""

import math
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from samonai.core.errors import InputError
from samonai.serve.figures import figures, uncertainty
from samonai.serve.open_cases import NotThereError
from samonai.serve.pictures import Range, frame_png, heat_png, label_file, volume_file
from samonai.serve.saving import versions
from samonai.serve.workspace import Workspace

_LASTING = {"cache-control": "private, max-age=31536000, immutable"}


class Views:
    """Requests that change nothing.

    Args:
        workspace: Cases and annotations.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Keep the workspace."""
        self.workspace = workspace

    def routes(self, case: str, frame: str) -> list[Route]:
        """Return the routes below the addresses of a case and of a frame."""
        return [
            Route(case + "/figures", self.figures),
            Route(case + "/history", self.history),
            Route(case + "/volume.nii", self.volume),
            Route(case + "/label.nii.gz", self.label),
            Route(case + "/masks/{mask}.png", self.mask),
            Route(frame + ".png", self.picture),
            Route(frame + "/uncertainty.png", self.uncertainty),
        ]

    async def picture(self, request: Request) -> Response:
        """Answer with a frame's picture as the model sees it, or in a window."""
        name, index, window = case_name(request), frame_number(request), _window(request)
        return await _file(
            lambda: frame_png(self.workspace, name, index, window), "image/png",
            {"cache-control": "private"},
        )  # fmt: skip

    async def mask(self, request: Request) -> Response:
        """Answer with a mask's PNG; its name is the hash of its content, so it never changes."""
        folder = self.workspace.folder(case_name(request))
        mask = str(request.path_params["mask"])
        return await _file(lambda: folder.masks.png(mask), "image/png", _LASTING)

    async def uncertainty(self, request: Request) -> Response:
        """Answer with the entropy of a frame in bits, as a grey PNG; 404: none is known."""
        name, index = case_name(request), frame_number(request)

        def png() -> bytes:
            found = uncertainty(self.workspace, name, index)
            if found is None:
                raise NotThereError("no model has said anything of this frame; click or draw a box")
            return heat_png(found)

        return await _file(png, "image/png")

    async def volume(self, request: Request) -> Response:
        """Answer with a volume as NIfTI, for the three planes and 3D."""
        name = case_name(request)
        return await _file(lambda: volume_file(self.workspace, name), "application/octet-stream")

    async def label(self, request: Request) -> Response:
        """Answer with a case's masks as a NIfTI label map on the volume's grid."""
        name = case_name(request)
        return await _file(lambda: label_file(self.workspace, name), "application/octet-stream")

    async def figures(self, request: Request) -> Response:
        """Answer with volumes and Dice by structure, of a frame too if one is named."""
        given, name = request.query_params.get("frame"), case_name(request)
        if given is not None and not given.isdecimal():
            raise InputError("frame: expected a number")
        index = None if given is None else int(given)
        return JSONResponse(await run_in_threadpool(figures, self.workspace, name, index))

    async def history(self, request: Request) -> Response:
        """Answer with the saved versions of a case, the latest first."""
        name = case_name(request)
        self.workspace.folder(name)  # refuses names of no case
        return JSONResponse(await run_in_threadpool(versions, self.workspace.out, name))


def case_name(request: Request) -> str:
    """Return the case in a request's address."""
    return str(request.path_params["case"])


def frame_number(request: Request) -> int:
    """Return the frame in a request's address."""
    return int(request.path_params["frame"])


def _window(request: Request) -> Range | None:
    """Return the window that a picture is wanted in; None: as the model sees it.

    Raises:
        InputError: The two ends are no numbers.
    """
    ends = [request.query_params.get(key) for key in ("low", "high")]
    if ends == [None, None]:
        return None
    try:
        low, high = (float(end or "") for end in ends)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("window: expected two numbers, low and high")
    return low, high


async def _file(
    content: Callable[[], bytes], kind: str, headers: dict[str, str] | None = None
) -> Response:
    data = await run_in_threadpool(content)
    return Response(data, media_type=kind, headers=headers)
