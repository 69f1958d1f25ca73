"""JSON bodies of requests."""

from typing import Any

from starlette.requests import Request

from samonai.core.errors import InputError
from samonai.core.json_files import parse_json


async def json_of(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object; an empty one for an empty body.

    Raises:
        InputError: The body is no JSON object.
    """
    found = parse_json(await request.body() or b"{}", "the request")
    if not isinstance(found, dict):
        raise InputError("the request: expected a JSON object")
    return found
