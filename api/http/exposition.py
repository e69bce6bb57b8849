"""`/metrics`: on a port of its own, or beside the API for whoever knows METRICS_TOKEN."""

import asyncio
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from litestar.types import ASGIApp, Receive, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server

from api.http.headers import HttpScope, header_lines
from api.http.metrics import exposed
from api.http.observation import Word
from api.http.responses import send_error, send_response

PATH = "/metrics"
CHALLENGE = (b"www-authenticate", b'Bearer realm="metrics"')


class MetricsMiddleware:
    """Answers `/metrics`. It is no operation of the contract, whose callers have cookies."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, token: str) -> None:
        self.app = app
        self.registry = registry
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        scope["state"]["operation"] = Word.METRICS
        if scope["method"] != "GET":
            allow = [(b"allow", b"GET")]
            await send_error(scope, send, HTTPStatus.METHOD_NOT_ALLOWED, headers=allow)
        elif not self.is_allowed(scope):
            detail = "METRICS_TOKEN is needed, as a bearer token"
            await send_error(scope, send, HTTPStatus.UNAUTHORIZED, detail, headers=[CHALLENGE])
        else:
            text = await asyncio.to_thread(generate_latest, exposed(self.registry))
            headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
            await send_response(send, HTTPStatus.OK, headers, text)

    def is_allowed(self, scope: HttpScope) -> bool:
        given = [value.encode("latin-1") for value in header_lines(scope, b"authorization")]
        return len(given) == 1 and hmac.compare_digest(given[0], self.expected)


@contextmanager
def metrics_listener(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Answer on a port of its own, from a thread, within this block. Raises OSError, or UnicodeError for
    what is no name of a host."""
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
