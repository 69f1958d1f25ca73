"""Messages over HTTP: forms, multipart answers, and messages without paths."""

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from samonai.core.errors import InputError
from samonai.core.json_files import parse_json

UPLOADED_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Volumes in one file. Headers whose voxels lie in another file are refused."""
SEGMENTATION_ENDING = ".seg.nrrd"
"""Segmentations of 3D Slicer, cropped to their segments, with names in the header."""

_MOST_FILES, _MOST_FIELDS = 4, 20
_BLOCK = 1 << 20
_BELOW = r"(?:/[^\s/:'\"]+)*/"
_FOLDERS = re.compile(r"(?<![\w.:/])(?:/[^\s/:'\"]+)+/")


def form_of(request: Request) -> AbstractAsyncContextManager[FormData]:
    """Open the parts of a multipart request; none where the body is another kind."""
    return request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS)


def query_of(request: Request, key: str) -> str:
    """Return a parameter of the address.

    Raises:
        InputError: The parameter is missing or empty.
    """
    found = request.query_params.get(key)
    if not found:
        raise InputError(f"{key}: it is missing in the address")
    return found


def params_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part `params`, JSON text.

    Raises:
        InputError: The part is no JSON object.
    """
    given = form.get("params")
    if given is None or given == "":
        return {}
    if not isinstance(given, str):
        raise InputError("params: expected JSON text, not a file")
    found = parse_json(given, "params")
    if not isinstance(found, dict):
        raise InputError("params: expected a JSON object")
    return found


def file_of(form: FormData, name: str) -> UploadFile:
    """Return the only file of a name.

    Raises:
        InputError: There is none, or there are several.
    """
    found = [part for part in form.getlist(name) if isinstance(part, UploadFile)]
    if len(found) != 1:
        raise InputError(f"{name}: expected one file, got {len(found)}")
    return found[0]


def ending_of(file: UploadFile, *, label: bool = False) -> str:
    """Return the ending of an uploaded volume; the rest of its name is not used.

    Args:
        file: The upload.
        label: Whether it is a label map, which may be a segmentation of 3D Slicer.

    Raises:
        InputError: The ending is none of `UPLOADED_ENDINGS`.
    """
    name = (file.filename or "").lower()
    known = (*UPLOADED_ENDINGS, SEGMENTATION_ENDING) if label else UPLOADED_ENDINGS
    is_segmentation = name.endswith(SEGMENTATION_ENDING)
    for ending in known:
        if name.endswith(ending) and is_segmentation == (ending == SEGMENTATION_ENDING):
            return ending
    raise InputError(
        f"the uploaded file: expected one of {', '.join(known)}; set the module's file extension "
        "to .nii.gz"
    )


def stem_of(file: UploadFile) -> str:
    """Return an uploaded file's own name without folders and endings."""
    name = PurePosixPath(PureWindowsPath(file.filename or "").name).name
    return name.split(".")[0]


async def write_upload(file: UploadFile, path: Path) -> None:
    """Write an uploaded file to a path."""
    with path.open("wb") as target:
        while block := await file.read(_BLOCK):
            target.write(block)


def multipart(params: Mapping[str, Any], nrrd: bytes) -> Response:
    """Return an answer of two parts: JSON `params` without a file name, and a NRRD file.

    3D Slicer's client needs a Content-Length, both parts, and the file's ending.
    """
    boundary, name = secrets.token_hex(16), f"mask-{secrets.token_hex(8)}.nrrd"
    body = b"".join(
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
            f"Content-Type: application/json\r\n\r\n{json.dumps(params)}\r\n"
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode(),
            nrrd,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")


def attachment(data: bytes, name: str) -> Response:
    """Return a file to download; the client uses its name's ending."""
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


def without_paths(message: str, known: Iterable[Path]) -> str:
    """Return a message without the folders of this machine.

    Args:
        message: The message.
        known: Folders and files that it may name.
    """
    for folder in sorted({str(path) for path in known}, key=len, reverse=True):
        if len(folder) > 1:
            message = re.sub(re.escape(folder) + _BELOW, "", message)
            message = message.replace(folder, "the image")
    return _FOLDERS.sub("", message)
