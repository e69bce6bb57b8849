"""What every answer carries, whatever gave it: CORS, security headers; and preflights, answered here.

Litestar's own CORS middleware says `*` in places, drops a Vary and answers a refused preflight in plain
text; its middlewares do not see 404 and 405. So this stands around the whole application.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from litestar.enums import HttpMethod
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from api.http.errors import DETAIL_BY_STATUS, Forbidden
from api.http.headers import header_lines
from api.http.problems import ErrorCode, encode_error
from api.http.proxies import TrustedProxies

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FOREIGN_ORIGIN = "This origin is not allowed"
LOCALHOST_ORIGIN = re.compile(r"http://localhost(:[1-9][0-9]{0,4})?")
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
DEFAULT_PORTS = {"http": "80", "https": "443"}
HAS_PORT = re.compile(r":[0-9]+$")
EXPOSED_HEADERS = (
    "Retry-After, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Request-Id, ETag"
)
SECURITY_HEADERS: dict[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-site",
    b"cache-control": b"no-store",
}


RawHeaders = list[tuple[bytes, bytes]]
ALWAYS_SENT: RawHeaders = [*SECURITY_HEADERS.items(), (b"vary", b"Origin")]
SENT_TO_LISTED_ORIGINS: RawHeaders = [
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", EXPOSED_HEADERS.encode()),
]
OUR_NAMES = {name for name, _ in [*ALWAYS_SENT, *SENT_TO_LISTED_ORIGINS]} | {
    b"x-request-id",
    b"strict-transport-security",
    b"access-control-allow-origin",
}


def header_value(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


class Origins:
    """The listed ones; for a developer, whose tools choose ports, all of http://localhost besides."""

    def __init__(self, listed: Iterable[str], *, any_local_port: bool = False) -> None:
        self.listed = frozenset(listed)
        self.any_local_port = any_local_port

    def __contains__(self, origin: object) -> bool:
        is_local = self.any_local_port and LOCALHOST_ORIGIN.fullmatch(str(origin)) is not None
        return is_local or origin in self.listed


class OutermostMiddleware:
    def __init__(self, app: ASGIApp, origins: Origins, proxies: TrustedProxies) -> None:
        self.app = app
        self.origins = origins
        self.proxies = proxies

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.proxies.tell(scope)
        origin = header_value(scope, b"origin")
        ours = self.headers_of(scope, origin)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = merge_headers(message, ours)
            await send(message)

        is_preflight = scope["method"] == HttpMethod.OPTIONS and origin is not None
        if is_preflight and (asked := header_value(scope, b"access-control-request-method")) is not None:
            refused = self.refused_preflight(str(origin), asked)
            if refused:
                await refuse(scope, send_with_headers, 400, *refused)
            else:  # whatever the path: otherwise the page could not read that the answer is 404
                await respond(send_with_headers, 204, preflight_headers(scope), b"")
        elif not is_plain_path(scope):
            await refuse(scope, send_with_headers, 404, DETAIL_BY_STATUS[HTTPStatus.NOT_FOUND])
        else:
            try:
                await self.app(scope, receive, send_with_headers)
            except asyncio.CancelledError:  # the server stops, and this took too long
                if not started:
                    unavailable = DETAIL_BY_STATUS[HTTPStatus.SERVICE_UNAVAILABLE]
                    later = [(b"retry-after", b"1")]
                    await refuse(scope, send_with_headers, 503, unavailable, headers=later)
                raise

    def headers_of(self, scope: Any, origin: str | None) -> RawHeaders:
        request_id = uuid4()
        scope.setdefault("state", {})["request_id"] = request_id
        ours = [*ALWAYS_SENT, (b"x-request-id", str(request_id).encode())]
        if scope["scheme"] == "https":
            ours.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
        if origin is not None and origin in self.origins:
            ours.append((b"access-control-allow-origin", origin.encode("latin-1")))
            ours += SENT_TO_LISTED_ORIGINS
        return ours

    def refused_preflight(self, origin: str, method: str) -> tuple[str, ErrorCode] | None:
        if origin not in self.origins:
            return FOREIGN_ORIGIN, ErrorCode.ORIGIN_NOT_ALLOWED
        return None if method in ALLOWED_METHODS else ("Method not allowed", ErrorCode.METHOD_NOT_ALLOWED)


def preflight_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What the answer to OPTIONS carries for a page of ours (Fetch standard, "CORS-preflight fetch")."""
    allowed = [
        (b"access-control-allow-methods", ", ".join(ALLOWED_METHODS).encode()),
        (b"access-control-max-age", b"600"),
    ]
    requested = header_value(scope, b"access-control-request-headers") or ""
    named = [name for part in requested.split(",") if (name := part.strip()) and name != "*"]
    if named:
        allowed.append((b"access-control-allow-headers", ", ".join(named).encode("latin-1")))
    return allowed


def merge_headers(message: HTTPResponseStartEvent, ours: RawHeaders) -> RawHeaders:
    """The answer's headers, and ours where it has none of that name; an own Vary gains ours. Accept chooses
    how an error is written, and nothing else."""
    theirs = list(message["headers"])
    if message["status"] >= HTTPStatus.BAD_REQUEST:
        ours = [(name, b"Origin, Accept") if name == b"vary" else (name, value) for name, value in ours]
    present = {name.lower() for name, _ in theirs}
    if present.isdisjoint(OUR_NAMES):
        return theirs + ours
    vary = dict(ours)[b"vary"]
    theirs = [(name, value + b", " + vary if name.lower() == b"vary" else value) for name, value in theirs]
    return theirs + [(name, value) for name, value in ours if name not in present]


def is_plain_path(scope: Scope) -> bool:
    """Whether the path, as it was sent, may be one of the contract's. A server would take `/%61pi/users` for
    `/api/users`, and Litestar `//api/users/`; a proxy in front, with rules by path, might not."""
    path = scope.get("raw_path") or scope["path"].encode()
    is_one = path.startswith(b"/") and b"%" not in path and b"//" not in path
    return is_one and (path == b"/" or not path.endswith(b"/"))


async def refuse(
    scope: Scope,
    send: Send,
    status: int,
    detail: str,
    code: ErrorCode | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    media_type, body = encode_error(scope, status, detail, code)
    await respond(send, status, [(b"content-type", media_type.encode()), *headers], body)


async def respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class OriginCheckMiddleware:
    """Refuse an unsafe method from a foreign page: SameSite ignores ports, so the browser would send the
    cookies along (ASVS 5.0, 3.5). A request without Origin comes from no page. OPTIONS ends here too,
    because Litestar's own answer forgets methods."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == HttpMethod.OPTIONS:
            await respond(send, 204, [(b"allow", allowed_methods(scope).encode())], b"")
            return
        if scope["method"] not in SAFE_METHODS and self.is_foreign(scope):
            raise Forbidden(FOREIGN_ORIGIN, ErrorCode.ORIGIN_NOT_ALLOWED)
        await self.app(scope, receive, send)

    def is_foreign(self, scope: Scope) -> bool:
        origins = header_lines(scope, b"origin")
        if not origins:
            return False
        if len(origins) > 1:
            return True
        [origin] = origins
        return origin not in self.origins and not is_same_origin(origin, header_value(scope, b"host") or "")


def is_same_origin(origin: str, host: str) -> bool:
    """Whether the origin's host and port are those of the Host header. Which of the two schemes it is only
    the proxy knows, and whether it names the scheme's own port is its choice."""
    scheme, _, place = origin.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    return bool(host) and port is not None and with_port(place, port) == with_port(host, port)


def with_port(place: str, default: str) -> str:
    return place.lower() if HAS_PORT.search(place) else f"{place.lower()}:{default}"


def allowed_methods(scope: Any) -> str:
    """Every method that the path knows, as in a 405's Allow."""
    methods = {
        method
        for route in scope["litestar_app"].routes
        if route.path_format == scope["path_template"]
        for method in getattr(route, "methods", ())
    }
    return ", ".join(sorted(methods))
