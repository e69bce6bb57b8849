"""HTTP/1.1 on one connection: uvicorn's protocol, with limits of size and time, and stricter."""

import asyncio
import re
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.exchange import Exchange, LingeringTransport
from api.http.framing import Framing, is_host, split_target
from api.http.idle import IdleTimer
from api.http.observation import Observer
from api.http.refusal import INVALID_REQUEST, REFUSAL
from api.http.requests import DRAINING, INCOMPLETE_BODY

MAX_HEAD_BYTES = 64 * 1024  # of a request line with its headers, and of a trailer
LINGER_SECONDS = 5  # for the client to read the answer before the connection is closed
MAX_LINGER_BYTES = 16 * 1024 * 1024  # that the client may send meanwhile
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class InvalidHeadError(Exception):
    """The parser accepts this head, but the standard does not."""


class StrictProtocol(HttpToolsProtocol):
    """A malformed request never reaches the application. It is refused after the answers to those before it.

    `body_timeout`: seconds from the first byte of a head until the head is complete, and from the end of the
    head until the body is. What was checked at the head of a request does not stay true for ever.

    An `Upgrade`, which curl and Java send to try HTTP/2, is ignored, as RFC 9110, 7.8 allows. httptools would
    take the body of such a request for the next request. So the header is renamed; if that fails, because the
    request comes in several pieces, the request is refused.
    """

    cycle: Exchange  # the newest

    # Any: what uvicorn passes to its own protocol.
    def __init__(self, *args: Any, body_timeout: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.body_timeout, self.framing, self.observer = body_timeout, Framing(), Observer.of(self.app)
        self.head_size = 0
        self.in_head = self.in_body = False
        self.ignores_input = False  # what arrives is not read as requests any more
        self.is_at_end = False  # the client has closed its side
        self.discarded = 0  # bytes that arrived since `ignores_input`
        self.has_refusal = False  # a 400 is sent once the earlier requests are answered
        self.current: RequestResponseCycle | None = None  # which the application is answering
        self.deadline: TimerHandle | None = None
        self.lingering: TimerHandle | None = None
        self.idle = IdleTimer(self.loop, self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.ending = LingeringTransport(transport, self.is_closing, self.close)
        self.idle.start()

    def connection_lost(self, exc: Exception | None) -> None:
        self.cancel_deadline()
        self.idle.close()
        if self.lingering:
            self.lingering.cancel()
        if self.current:  # uvicorn tells the newest request only
            self.current.disconnected = True
            self.current.message_event.set()
        super().connection_lost(exc)

    # Input
    def data_received(self, data: bytes) -> None:
        if not self.in_head and not self.in_body and UPGRADE.search(data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"\r\nX-Ignored:", head) + end + body
        position = 0
        while position < len(data) and not self.ignores_input:
            piece, position = self.framing.next_piece(data, position)
            self.feed(piece)
        if self.ignores_input:
            self.discard(len(data) - position)
        else:
            self.start_deadline_for_rest()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's hangs up
        """The client has closed its side, but may still read. So its complete requests are answered, and then
        the connection is closed. Returns whether to keep it open until then."""
        self.is_at_end = True
        if self.ignores_input:
            pass  # the connection is being closed already
        elif self.in_body:
            self.fail_body(INCOMPLETE_BODY)
        elif self.in_head:
            self.send_400_response()
        elif self.current:
            self.cycle.keep_alive = False
        return self.current is not None and not self.is_closing()

    def feed(self, piece: bytes) -> None:
        if not self.in_body:
            self.head_size += len(piece)
        if self.head_size > MAX_HEAD_BYTES or self.framing.overhead > MAX_HEAD_BYTES:
            self.send_400_response()
            return
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self.send_400_response()

    def discard(self, count: int) -> None:
        self.discarded += count
        if self.lingering and self.discarded > MAX_LINGER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.idle.stop()
        self.in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:  # trailer fields are ignored
            return
        name, value = name.lower(), value.strip(b" \t")  # httptools keeps blanks after the value
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, but uvicorn would decode the path and cut off a fragment."""
        authority, path, query = split_target(self.url)
        version = self.parser.get_http_version()
        is_chunked, length = self.require_valid_head(version, authority)
        self.in_head, self.in_body, self.head_size = False, True, 0
        self.cancel_deadline()
        self.framing.expect_body(length, is_chunked)
        scope: Any = self.scope  # uvicorn fills it piece by piece, which its type forbids
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = path.decode("ascii"), path, query
        if authority is not None:  # RFC 9112, 3.2.2
            self.headers[:] = [(n, authority if n == b"host" else value) for n, value in self.headers]
        keep_alive = self.parser.should_keep_alive() and version != "1.0" and DRAINING not in self.app_state
        before, self.cycle = self.cycle, Exchange(self, self.ending, keep_alive, self.observer)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def require_valid_head(self, version: str, authority: bytes | None) -> tuple[bool, int]:
        """(whether the body is chunked, its length). Raises InvalidHeadError for a head that the standard
        forbids."""
        hosts, codings, lengths = [], [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding":
                codings.append(value.lower())
            elif name == b"content-length":
                lengths.append(value)
        is_valid = (
            version in {"1.0", "1.1"}
            and not self.parser.should_upgrade()
            and len(hosts) in ({1} if version == "1.1" else {0, 1})  # RFC 9112, 3.2
            and all(map(is_host, hosts if authority is None else [*hosts, authority]))
            and codings in ([], [b"chunked"])
            and not (codings and version == "1.0")  # RFC 9112, 6.1
        )
        if not is_valid:
            raise InvalidHeadError
        length = lengths[0].lstrip(b"0") if lengths else b""  # int() refuses thousands of digits, also zeros
        return bool(codings), int(length or b"0")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_body = False
        self.framing.expect_head()
        self.cancel_deadline()
        if not self.cycle.keep_alive:
            self.ignores_input = True
        elif self.cycle.response_complete:
            self.idle.start()

    # Deadlines
    def _unset_keepalive_if_required(self) -> None:
        self.idle.stop()

    def start_deadline_for_rest(self) -> None:
        """For the rest of a head, or of the body that the application may wait for."""
        if self.deadline is not None:
            return
        if self.in_head:
            self.start_deadline(self.send_400_response)
        elif self.in_body and self.framing.has_body and self.cycle is self.current:
            self.start_deadline(self.refuse_late_body)

    def start_deadline(self, on_late: Callable[[], None]) -> None:
        self.cancel_deadline()
        self.deadline = self.loop.call_later(self.body_timeout, self.at_deadline, on_late)

    def at_deadline(self, on_late: Callable[[], None]) -> None:
        if self.flow.read_paused:  # we stopped reading, so the client is not late
            self.start_deadline(on_late)
        else:
            on_late()

    def cancel_deadline(self) -> None:
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None

    def refuse_late_body(self) -> None:
        self.fail_body(f"body: must arrive within {self.body_timeout} seconds")

    # Output
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.current = None
        self.server_state.total_requests += 1
        if self.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if not self.ignores_input:
                self.start_deadline_for_rest()
        elif self.has_refusal:
            self.send_refusal()
        elif not (self.in_head or self.in_body):
            self.idle.start()

    def send_400_response(self, msg: str = INVALID_REQUEST) -> None:
        if self.in_body:
            self.fail_body(msg)
            return
        self.ignores_input = True
        self.cancel_deadline()
        if self.current:
            self.has_refusal = True
        else:
            self.send_refusal()

    def fail_body(self, detail: str) -> None:
        """The body of the newest request will not be complete. If the request has no answer yet, its answer
        says so."""
        self.ignores_input = True
        self.cancel_deadline()
        if self.cycle.response_complete:
            self.close()
        elif self.cycle is self.current:
            self.cycle.failure = detail
            self.cycle.keep_alive = False
            self.cycle.message_event.set()
        else:
            self.pipeline.popleft()
            self.has_refusal = True

    def send_refusal(self) -> None:
        self.transport.write(REFUSAL)
        self.close()
        self.observer.see_invalid()

    def drain(self) -> None:
        """Say in the newest answer that has not begun, or else in the next, that it is the last one."""
        if self.in_head or not self.cycle or self.cycle.response_started:
            return
        self.cycle.keep_alive = False
        if not self.in_body:
            self.ignores_input = True

    def shutdown(self) -> None:
        """Close the connection, at once if nothing has arrived on it that waits for an answer."""
        if self.current:
            self.cycle.keep_alive = False
        elif not self.in_head:
            self.close()

    def close(self) -> None:
        """Close the connection. If bytes may still arrive, read and discard them for a while first: closing
        with unread bytes resets the connection, and the client might not see the answer."""
        if self.is_closing():
            return
        self.idle.stop()
        is_all_read = not (self.in_head or self.in_body or self.head_size or self.discarded)
        if is_all_read or self.is_at_end:
            self.transport.close()
            return
        self.ignores_input = True
        self.cancel_deadline()
        self.lingering = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        self.transport.write_eof()
        self.flow.resume_reading()

    def is_closing(self) -> bool:
        return self.lingering is not None or self.transport.is_closing()
