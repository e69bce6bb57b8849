"""What surrounds Litestar, whose middlewares do not see 404 and 405: the request's id, the client's address,
the headers of every answer, preflights, and paths that are not written as the contract writes them."""

import asyncio
from http import HTTPStatus
from uuid import UUID

from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from api.http.cors import (
    ALLOW_ORIGIN,
    LISTED_ORIGIN_HEADERS,
    Origins,
    is_preflight,
    preflight_headers,
    preflight_refusal,
)
from api.http.headers import HttpScope, RawHeaders, header_value
from api.http.proxies import TrustedProxies
from api.http.responses import send_error, send_response
from api.http.security_headers import HSTS, SECURITY_HEADERS
from persistence.postgres.deadline import start_clock

REQUEST_ID = b"x-request-id"
COMMON_HEADERS: RawHeaders = [*SECURITY_HEADERS, (b"vary", b"Origin")]
OUR_NAMES = {name for name, _ in [*COMMON_HEADERS, *LISTED_ORIGIN_HEADERS, HSTS]} | {REQUEST_ID, ALLOW_ORIGIN}


class OutermostMiddleware:
    def __init__(self, app: ASGIApp, origins: Origins, proxies: TrustedProxies) -> None:
        self.app = app
        self.origins = origins
        self.proxies = proxies

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        start_clock()
        request_id = self.proxies.request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        self.proxies.apply_forwarded(scope)
        origin = header_value(scope, b"origin")
        ours = self.headers_of(scope, origin, request_id)
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                message["headers"] = merge_headers(message, ours)
            await send(message)

        if is_preflight(scope, origin):
            await self.answer_preflight(scope, send_with_headers)
        elif not is_plain_path(scope):
            await send_error(scope, send_with_headers, HTTPStatus.NOT_FOUND)
        else:
            try:
                await self.app(scope, receive, send_with_headers)
            except asyncio.CancelledError:  # the server stops, and does not wait for this request any longer
                if not has_started:
                    later = [(b"retry-after", b"1")]
                    await send_error(scope, send_with_headers, HTTPStatus.SERVICE_UNAVAILABLE, headers=later)
                raise

    async def answer_preflight(self, scope: Scope, send: Send) -> None:
        """Whatever the path: if a preflight were 404, the page could not read the 404 of the request
        itself."""
        refusal = preflight_refusal(scope, self.origins)
        if refusal:
            await send_error(scope, send, HTTPStatus.BAD_REQUEST, *refusal)
        else:
            await send_response(send, HTTPStatus.NO_CONTENT, preflight_headers(scope))

    def headers_of(self, scope: HttpScope, origin: str | None, request_id: UUID) -> RawHeaders:
        """What every answer carries."""
        ours = [*COMMON_HEADERS, (REQUEST_ID, str(request_id).encode())]
        if scope["scheme"] == "https":
            ours.append(HSTS)
        if origin is not None and origin in self.origins:
            ours.append((ALLOW_ORIGIN, origin.encode("latin-1")))
            ours += LISTED_ORIGIN_HEADERS
        return ours


def merge_headers(message: HTTPResponseStartEvent, ours: RawHeaders) -> RawHeaders:
    """The answer's headers, and ours where it has none of that name; its own Vary gains ours. Accept chooses
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
