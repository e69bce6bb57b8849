"""What is seen of each request once it is answered: a line in the log, and counts (api/http/metrics.py)."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry

from api.http.headers import HttpScope
from api.http.logs import LogFormat, LogHandler
from api.http.metrics import RequestMetrics

CLIENT_GONE = 499  # the status of a request whose client did not wait for the answer, as nginx has it
LOGGER = "medisecure.requests"
encode = msgspec.json.Encoder().encode
Write = Callable[[bytes], None]


class Word(StrEnum):
    """In the place of an operationId, where no operation has answered."""

    INVALID_REQUEST = "invalid_request"
    METRICS = "metrics"
    OPTIONS = "options"
    UNKNOWN_METHOD = "unknown_method"
    UNKNOWN_PATH = "unknown_path"


class Outlets(NamedTuple):
    """Where an application tells what it sees. `log`: None for nowhere."""

    registry: CollectorRegistry
    log: LogHandler | None = None


class RequestLine(Struct):
    """Nothing of what the request was about: no path and no query, in which somebody may have typed a name.
    `caller`: the id of their account; None for an anonymous one."""

    time: datetime
    level: str
    logger: str
    request_id: UUID | None  # None for what was no request
    operation: str
    status: int
    duration_ms: float
    caller: UUID | None


class Observer:
    """Sees every answer of one application."""

    def __init__(self, registry: CollectorRegistry, write: Write | None = None) -> None:
        self.metrics = RequestMetrics(registry)
        self.write = write
        self.encode: Callable[[RequestLine], bytes] = encode_json
        self.in_flight = 0

    @classmethod
    def through(cls, outlets: Outlets, *, log_requests: bool = True) -> "Observer":
        log = outlets.log if log_requests else None
        observer = cls(outlets.registry, log.write if log else None)
        if log and log.log_format is LogFormat.TEXT:
            observer.encode = encode_text
        return observer

    @classmethod
    def of(cls, app: Any) -> "Observer":  # Any: whatever uvicorn was given to run
        state = getattr(app, "state", None)
        observer: Observer = state.services[Observer] if state else UNOBSERVED
        return observer

    def see(self, scope: HttpScope, status: int, seconds: float) -> None:
        """A request has been answered, or its client has gone."""
        caller = scope.get("user")
        request_id = scope["state"].get("request_id")
        self.tell(request_id, operation_of(scope, status), status, seconds, caller.id if caller else None)

    def see_invalid(self) -> None:
        """Something that is no request was answered with 400."""
        self.tell(None, Word.INVALID_REQUEST, HTTPStatus.BAD_REQUEST, 0.0, None)

    def tell(
        self, request_id: UUID | None, operation: str, status: int, seconds: float, caller: UUID | None
    ) -> None:
        self.metrics.count(operation, status, seconds)
        if self.write is not None:
            level, milliseconds = level_of(status), round(seconds * 1000, 2)
            now = datetime.now(UTC)
            line = RequestLine(now, level, LOGGER, request_id, operation, status, milliseconds, caller)
            self.write(self.encode(line))


def operation_of(scope: HttpScope, status: int) -> str:
    """The operationId, or one of the few words: never what a client can choose."""
    handler = scope.get("route_handler")
    if handler is not None and handler.operation_id:
        return str(handler.operation_id)
    if "operation" in scope["state"]:
        return str(scope["state"]["operation"])
    if scope["method"] == "OPTIONS":
        return Word.OPTIONS
    return Word.UNKNOWN_METHOD if status == HTTPStatus.METHOD_NOT_ALLOWED else Word.UNKNOWN_PATH


def level_of(status: int) -> str:
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "info"
    return "warning" if status == HTTPStatus.SERVICE_UNAVAILABLE else "error"


def encode_json(line: RequestLine) -> bytes:
    return encode(line) + b"\n"


def encode_text(line: RequestLine) -> bytes:
    time = f"{line.time.astimezone():%Y-%m-%d %H:%M:%S,%f}"[:-3]
    text = f"{time} {line.level.upper()} {line.operation}: {line.status} in {line.duration_ms} ms"
    return f"{text}, for {line.caller or 'anonymous'}, request {line.request_id}\n".encode()


UNOBSERVED = Observer(CollectorRegistry())  # for an application that is not ours
