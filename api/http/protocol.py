"""HTTP/1.1 on one connection: uvicorn's protocol, with bounds, and with what it would believe too much."""

import asyncio
import re
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.exchange import Exchange, LingeringTransport
from api.http.fields import ErrorDetail
from api.http.framing import Framing, is_host, split_target
from api.http.idle import IdleTimer
from api.http.requests import INCOMPLETE_BODY
from api.http.security_headers import SECURITY_HEADERS

MAX_HEAD_BYTES = 64 * 1024  # bytes of a request line with its headers; of a trailer as well
LINGER_SECONDS = 5  # in which a client may read the answer before the connection goes
LINGER_BYTES = 16 * 1024 * 1024  # which it may send meanwhile
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
INVALID_REQUEST = "Invalid HTTP request"


class InvalidHeadError(Exception):
    """The parser lets this head pass, the standard does not."""


class StrictProtocol(HttpToolsProtocol):
    """What the parser cannot read never reaches the application; its answer is an ErrorDetail all the same,
    and comes after the answers to what could be read before.

    `body_timeout`: seconds in which a head must be complete from its first byte on, and a body from the end
    of the head on. What was checked at the head of a request is not true for ever.

    An `Upgrade`, which curl and Java send to try HTTP/2, is ignored, as RFC 9110, 7.8 allows. httptools would
    drop the body of such a request and take it for the next one: where the header is not seen in time,
    because the request comes in pieces, it is refused.
    """

    cycle: Exchange  # of the newest request

    def __init__(self, *args: Any, body_timeout: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.body_timeout = body_timeout
        self.framing = Framing()
        self.head_size = 0
        self.in_head = self.in_body = False
        self.is_deaf = False  # nothing that arrives is a request any more
        self.is_at_end = False  # nothing arrives any more
        self.discarded = 0  # bytes that arrived since
        self.is_refusing = False  # a 400 waits for the answers before it
        self.running: RequestResponseCycle | None = None
        self.deadline: TimerHandle | None = None
        self.lingering: TimerHandle | None = None
        self.idle = IdleTimer(self.loop, self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.ending = LingeringTransport(transport, self.is_leaving, self.leave)
        self.idle.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        self.idle.close()
        if self.lingering:
            self.lingering.cancel()
        if self.running:  # uvicorn tells the newest request only
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    # What arrives

    def data_received(self, data: bytes) -> None:
        if not self.in_head and not self.in_body and UPGRADE.search(data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"\r\nX-Ignored:", head) + end + body
        position = 0
        while position < len(data) and not self.is_deaf:
            piece, position = self.framing.take(data, position)
            self.read(piece)
        if self.is_deaf:
            self.discard(len(data) - position)
        else:
            self.watch_for_rest()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's hangs up
        """The client sends no more. Whether it still reads, nobody knows before it is written to; so what it
        asked is answered, and then the connection goes. Returns whether to keep it for that."""
        self.is_at_end = True
        if self.is_deaf:
            pass  # how it ends is settled already
        elif self.in_body:
            self.fail_body(INCOMPLETE_BODY)
        elif self.in_head:
            self.send_400_response(INVALID_REQUEST)
        elif self.running:
            self.cycle.keep_alive = False
        return self.running is not None and not self.is_leaving()

    def read(self, piece: bytes) -> None:
        if not self.in_body:
            self.head_size += len(piece)
        if self.head_size > MAX_HEAD_BYTES or self.framing.overhead > MAX_HEAD_BYTES:
            self.send_400_response(INVALID_REQUEST)
            return
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self.send_400_response(INVALID_REQUEST)

    def discard(self, count: int) -> None:
        self.discarded += count
        if self.lingering and self.discarded > LINGER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.idle.end()
        self.in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:  # a trailer field's names and values are nothing to us
            return
        name, value = name.lower(), value.strip(b" \t")  # httptools leaves what follows the value
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, which would decode the path, and cut a fragment off."""
        authority, path, query = split_target(self.url)
        version = self.parser.get_http_version()
        is_chunked, length = self.judge_head(version, authority)
        self.in_head, self.in_body, self.head_size = False, True, 0
        self.unwatch()
        self.framing.expect_body(length, is_chunked)
        scope: Any = self.scope
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = path.decode("ascii"), path, query
        if authority is not None:  # RFC 9112, 3.2.2
            self.headers[:] = [(n, authority if n == b"host" else value) for n, value in self.headers]
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        before, self.cycle = self.cycle, Exchange(self, self.ending, keep_alive)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def judge_head(self, version: str, authority: bytes | None) -> tuple[bool, int]:
        """(whether the body comes in chunks, its length); InvalidHeadError where the head is none."""
        hosts, codings, lengths = [], [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding":
                codings.append(value.lower())
            elif name == b"content-length":
                lengths.append(value)
        sound = (
            version in {"1.0", "1.1"}
            and not self.parser.should_upgrade()
            and len(hosts) in ({1} if version == "1.1" else {0, 1})  # RFC 9112, 3.2
            and all(map(is_host, hosts if authority is None else [*hosts, authority]))
            and codings in ([], [b"chunked"])
            and not (codings and version == "1.0")  # RFC 9112, 6.1
        )
        if not sound:
            raise InvalidHeadError
        length = lengths[0].lstrip(b"0") if lengths else b""  # any number of zeros, and too many for int
        return bool(codings), int(length or b"0")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_body = False
        self.framing.expect_head()
        self.unwatch()
        if not self.cycle.keep_alive:
            self.is_deaf = True
        elif self.cycle.response_complete:
            self.idle.begin()

    # Time

    def _unset_keepalive_if_required(self) -> None:
        self.idle.end()

    def watch_for_rest(self) -> None:
        """Of a head, or of the body that a handler may wait for."""
        if self.deadline is not None:
            return
        if self.in_head:
            self.watch(self.head_is_late)
        elif self.in_body and self.framing.has_body and self.cycle is self.running:
            self.watch(self.body_is_late)

    def watch(self, late: Callable[[], None]) -> None:
        self.unwatch()
        self.deadline = self.loop.call_later(self.body_timeout, self.at_deadline, late)

    def at_deadline(self, late: Callable[[], None]) -> None:
        if self.flow.read_paused:  # it is we who do not read
            self.watch(late)
        else:
            late()

    def unwatch(self) -> None:
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None

    def head_is_late(self) -> None:
        self.send_400_response(INVALID_REQUEST)

    def body_is_late(self) -> None:
        self.fail_body(f"body: must arrive within {self.body_timeout} seconds")

    # What is answered

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.running = None
        self.server_state.total_requests += 1
        if self.is_leaving():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if not self.is_deaf:
                self.watch_for_rest()
        elif self.is_refusing:
            self.refuse()
        elif not (self.in_head or self.in_body):
            self.idle.begin()

    def send_400_response(self, msg: str) -> None:
        if self.in_body:
            self.fail_body(msg)
            return
        self.is_deaf = True
        self.unwatch()
        if self.running:
            self.is_refusing = True
        else:
            self.refuse()

    def fail_body(self, detail: str) -> None:
        """The newest request will never be complete. Unless it has been answered, its answer says so."""
        self.is_deaf = True
        self.unwatch()
        if self.cycle.response_complete:
            self.leave()
        elif self.cycle is self.running:
            self.cycle.failure = detail
            self.cycle.keep_alive = False
            self.cycle.message_event.set()
        else:
            self.pipeline.popleft()
            self.is_refusing = True

    def refuse(self) -> None:
        body = msgspec.json.encode(ErrorDetail(INVALID_REQUEST))
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *SECURITY_HEADERS,
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in head)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.leave()

    def leave(self) -> None:
        """Close the connection. Closing while bytes lie unread would reset it, and the client might never see
        the answer: so where there may be some, they are read and thrown away for a while."""
        if self.is_leaving():
            return
        self.idle.end()
        is_read = not (self.in_head or self.in_body or self.head_size or self.discarded)
        if is_read or self.is_at_end:
            self.transport.close()
            return
        self.is_deaf = True
        self.unwatch()
        self.lingering = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        self.transport.write_eof()
        self.flow.resume_reading()

    def is_leaving(self) -> bool:
        return self.lingering is not None or self.transport.is_closing()
