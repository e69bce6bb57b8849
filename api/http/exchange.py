"""One request on a connection and its answer, which is written at once if its body comes in one piece."""

import asyncio
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.http.cors import LISTED_ORIGIN_HEADERS
from api.http.errors import BadRequest
from api.http.observation import CLIENT_GONE, Observer
from api.http.outermost import COMMON_HEADERS
from api.http.problems import ErrorCode

ENCODED_HEADERS = {
    (name, value): b"%b: %b\r\n" % (name, value)
    for name, value in (*COMMON_HEADERS, *LISTED_ORIGIN_HEADERS, (b"content-type", b"application/json"))
}
STALLED_SECONDS = 60.0  # for which a client may take nothing of what waits for it
CONTROL_CHARACTERS = bytes([*range(9), *range(10, 32), 127])  # forbidden in the value of a header


class LingeringTransport(asyncio.Transport):
    """The connection as the application's answer sees it: closing it first reads what is unread
    (StrictProtocol.close)."""

    def __init__(
        self, transport: asyncio.Transport, is_closing: Callable[[], bool], close: Callable[[], None]
    ) -> None:
        super().__init__()
        self.write = transport.write  # type: ignore[method-assign]  # one call less
        self.is_closing = is_closing  # type: ignore[method-assign]  # one call less
        self.close = close  # type: ignore[method-assign]  # one call less
        self.abort = transport.abort  # type: ignore[method-assign]  # one call less


class Exchange(RequestResponseCycle):
    """uvicorn's cycle, faster: that one searches each header twice and writes each answer in two pieces."""

    failure: str | None = None  # why the request's body is not complete
    head: bytes | None = None  # of the answer, until its body comes
    length = 0
    ends_with_connection = False  # the answer: nothing else says where
    status = CLIENT_GONE  # until there is an answer

    def __init__(
        self,
        protocol: HttpToolsProtocol,
        transport: asyncio.Transport,
        keep_alive: bool,
        observer: Observer,
    ) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=protocol.access_log,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.observer = observer

    async def run_asgi(self, app: ASGI3Application) -> None:
        started_at = perf_counter()
        self.observer.in_flight += 1
        await super().run_asgi(app)  # which raises nothing
        self.observer.in_flight -= 1
        self.observer.see(self.scope, self.status, perf_counter() - started_at)

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self.failure and not self.response_started:
            raise BadRequest(self.failure, ErrorCode.INCOMPLETE_BODY)
        return message

    async def send(self, message: Any) -> None:  # Any: Litestar's messages are not uvicorn's types
        if self.flow.write_paused:
            await self.wait_for_client()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.status = message["status"]
            self.head = self.encode_head(message["status"], [*self.default_headers, *message["headers"]])
            if self.head is not None:
                self.response_started = True
                return
            self.frame_for_version(message["headers"])
        elif self.head is not None:
            head, self.head = self.head, None
            if self.is_complete(message) and not self.flow.write_paused:
                self.finish(head + message.get("body", b""))
                return
            self.chunked_encoding, self.expected_content_length = False, self.length
            self.transport.write(head)
        if self.ends_with_connection:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    async def wait_for_client(self) -> None:
        """Until it has taken most of what was sent. Whoever takes nothing is gone, or holds on to what has
        ended for them long ago: they are cut off."""
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self.flow.drain()
        except TimeoutError:
            self.transport.abort()

    def frame_for_version(self, headers: list[tuple[bytes, bytes]]) -> None:
        """To a client of HTTP/1.0 nothing is sent in chunks (RFC 9112, 6.1)."""
        names = {name.lower() for name, _ in headers}
        if self.scope["http_version"] == "1.0" and not names & {b"content-length", b"transfer-encoding"}:
            self.chunked_encoding, self.ends_with_connection = False, True

    def encode_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The status line and the headers; None if uvicorn must decide how the body is framed."""
        lines, values, length = [STATUS_LINE[status]], [], None
        for header in headers:
            if header in ENCODED_HEADERS:
                lines.append(ENCODED_HEADERS[header])
                continue
            name, value = header
            prefix = header_prefix(name)
            if prefix == b"content-length: ":
                length = int(value)
            elif prefix in (b"transfer-encoding: ", b"connection: "):
                return None
            lines += (prefix, value, b"\r\n")
            values.append(value)
        if length is None:
            return None
        joined = b"".join(values)
        if len(joined.translate(None, CONTROL_CHARACTERS)) != len(joined):
            raise RuntimeError("Invalid HTTP header value.")
        self.length = length
        self.waiting_for_100_continue = False
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def is_complete(self, message: Any) -> bool:  # Any: as in send
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        return is_last and len(message.get("body", b"")) == self.length and self.scope["method"] != "HEAD"

    def finish(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


@cache
def header_prefix(name: bytes) -> bytes:
    """The header's name and colon. The cache stays small, because only our own code chooses names."""
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name.lower() + b": "
