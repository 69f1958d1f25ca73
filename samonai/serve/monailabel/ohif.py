"""OHIF beside the annotation server: its files, and its requests to a DICOMweb server.

OHIF's MONAI Label extension and the annotation server then have one origin, so that nothing is
opened to other sites. What the DICOMweb server says about addresses is never followed.
"""

import base64
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from samonai.core.errors import InputError

USER, PASSWORD = "SAMONAI_DICOMWEB_USER", "SAMONAI_DICOMWEB_PASSWORD"
"""Environment variables with the DICOMweb server's credentials."""

_INDEX = "index.html"
# No segment of dots alone: it would lead out of the DICOMweb server's path.
_PATH = re.compile(r"(?:studies|series|instances)(?:/(?!\.+(?:/|$))[A-Za-z0-9.,_-]+)*")
_SECONDS = 60.0
_MOST_BYTES = 1 << 30
# OHIF's build has inline scripts, and compiles shaders and filters at run time.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "connect-src 'self' blob: data:; font-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True)
class OhifOptions:
    """Where OHIF is, and where its images come from.

    Attributes:
        folder: A build of OHIF with the MONAI Label extension, made for the path `/ohif/`.
        dicomweb: Address of a DICOMweb server.
    """

    folder: Path
    dicomweb: str


def ohif_routes(options: OhifOptions) -> list[Route]:
    """Return the routes of OHIF's files and of its requests to the DICOMweb server.

    Raises:
        InputError: The folder holds no build of OHIF, or the address is no http address.
    """
    found = Ohif(options)
    return [
        Route("/ohif/{path:path}", found.file),
        Route("/proxy/dicom/{kind}/{path:path}", found.dicomweb),
    ]


class Ohif:
    """Requests of OHIF.

    Args:
        options: See `ohif_routes`.
    """

    def __init__(self, options: OhifOptions) -> None:
        """Check the options."""
        self._folder = options.folder.resolve()
        if not (self._folder / _INDEX).is_file():
            raise InputError(f"--ohif: {options.folder} has no {_INDEX}; give a build of OHIF")
        address = urlsplit(options.dicomweb)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError("--dicomweb: expected an address such as http://host:8042/dicom-web")
        if address.username or address.password or address.query:
            raise InputError(
                f"--dicomweb: expected an address without name and password; put these into the "
                f"environment variables {USER} and {PASSWORD}"
            )
        self._base = options.dicomweb.rstrip("/")
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    async def file(self, request: Request) -> Response:
        """Send a file of OHIF; its page for any other path, as its router needs."""
        path = (self._folder / str(request.path_params["path"])).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            path = self._folder / _INDEX
        return FileResponse(path, headers={"content-security-policy": _POLICY})

    async def dicomweb(self, request: Request) -> Response:
        """Pass a request for studies, series or instances on."""
        path = str(request.path_params["path"]).strip("/")
        if request.path_params["kind"] not in ("qido", "wado") or not _PATH.fullmatch(path):
            return JSONResponse({"detail": "there is no such resource"}, 404)
        query = request.scope["query_string"].decode("latin-1")
        accept = request.headers.get("accept", "*/*")
        return await run_in_threadpool(self._passed_on, path, query, accept)

    def _passed_on(self, path: str, query: str, accept: str) -> Response:
        url = f"{self._base}/{path}" + (f"?{query}" if query else "")
        asked = urllib.request.Request(url, headers={"Accept": accept, **_authorization()})
        try:
            with self._opener.open(asked, timeout=_SECONDS) as found:
                status, kind = found.status, found.headers.get("content-type")
                content = found.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            return JSONResponse({"detail": "the DICOMweb server refused the request"}, error.code)
        except OSError:
            return JSONResponse({"detail": "the DICOMweb server cannot be reached"}, 502)
        if len(content) > _MOST_BYTES:
            return JSONResponse({"detail": "the DICOMweb server's answer is too large"}, 502)
        return Response(content, status, headers={"content-type": kind or "application/json"})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no address that a server gives."""

    def redirect_request(self, *_: object) -> None:
        """Return no request."""
        return


def _authorization() -> dict[str, str]:
    user = os.environ.get(USER)
    if not user:
        return {}
    both = f"{user}:{os.environ.get(PASSWORD, '')}".encode()
    return {"Authorization": "Basic " + base64.b64encode(both).decode()}
