"""Limits of requests: hosts, origins, tokens and sizes, and the headers of every answer.

The server has one user on one machine. A page of another site, open in the same browser, must not
read or write here: requests under a foreign Host name are refused (DNS rebinding), and
writes that a foreign page sends, by their Origin and Sec-Fetch-Site headers (Fetch Metadata Request
Headers, W3C). Beyond the loopback interface a secret path prefix or a bearer token is needed, which
3D Slicer's and OHIF's MONAI Label clients can carry.
"""

import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samonai.core.hosts import is_loopback

LARGEST_BODY = 64 << 20
"""Bytes of a request's body, unless more is allowed: a mask or a label volume, not an archive."""

SECURITY_HEADERS = {
    # NiiVue draws with WebGL from blobs; nothing comes from other sites.
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'wasm-unsafe-eval'; "
    "worker-src 'self' blob:; connect-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        hosts: Names in the Host header, without ports, that are this server.
        token: Secret that the path begins with (`/t/TOKEN/`) or an Authorization header bears;
            empty: none is needed.
        body: Bytes of a request's body.
    """

    hosts: frozenset[str]
    token: str = ""
    body: int = LARGEST_BODY


class Guard:
    """ASGI application that passes on what the limits allow.

    Args:
        app: The application.
        limits: The limits.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Keep both."""
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSockets
            return
        answer = _with_headers(send)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(answer, *refusal)
            return
        body = _LimitedBody(receive, self.limits.body)
        await self.app(self._without_prefix(scope), body, answer)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the reason of a refusal; None: the request is allowed."""
        host = host_name(headers.get("host", ""))
        if host not in self.limits.hosts:
            return 400, "this Host name is not this server's; see --host"
        if scope["method"] not in _SAFE_METHODS and is_foreign(headers):
            return 403, "a page of another site may not change anything here"
        if not self._is_known(scope, headers):
            # 404, so that the secret prefix is not found by trying.
            return 404, "not found; use the address that the server printed"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limits.body:
            return 413, f"the body is larger than {self.limits.body} bytes"
        return None

    def _is_known(self, scope: Scope, headers: dict[str, str]) -> bool:
        token = self.limits.token
        if not token:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode()):
            return True
        parts = scope["path"].split("/", 3)
        return (
            len(parts) > 3
            and parts[1] == "t"
            and hmac.compare_digest(parts[2].encode(), token.encode())
        )

    def _without_prefix(self, scope: Scope) -> Scope:
        """Return the request as it would be without the secret prefix."""
        prefix = f"/t/{self.limits.token}"
        if not self.limits.token or not scope["path"].startswith(prefix + "/"):
            return scope
        raw = scope.get("raw_path")
        changed = {**scope, "path": scope["path"][len(prefix) :]}
        if isinstance(raw, bytes):
            changed["raw_path"] = raw[len(prefix.encode()) :]
        return changed


class _LimitedBody:
    """Body of a request that is refused once it is beyond the limit, whatever its length said."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._left = receive, limit, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, f"the body is larger than {self._limit} bytes")
        return message


def is_foreign(headers: dict[str, str]) -> bool:
    """Return whether a page of another site sent a request.

    Programs such as 3D Slicer send neither header, and are allowed.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _OWN_SITES:
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def host_name(host: str) -> str:
    """Return the name in a Host header in lower case, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def limits_of(host: str, names: Sequence[str] = (), *, body: int = LARGEST_BODY) -> Limits:
    """Return the limits of a server: a token where it is reached from other machines.

    Args:
        host: The address that it binds to.
        names: Further names that it is reached under.
        body: See `Limits`.
    """
    own = {"localhost", "127.0.0.1", "::1", host.lower(), *(name.lower() for name in names)}
    own -= {"0.0.0.0", "::"}
    return Limits(frozenset(own), "" if is_loopback(host) else secrets.token_urlsafe(24), body)


def _with_headers(send: Send) -> Send:
    added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", [])}
            extra = [pair for pair in added if pair[0] not in own]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
