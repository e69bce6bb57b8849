"""What changed since one last asked, of what one may see: at once, after a wait, or as a stream of
Server-Sent Events (HTML Living Standard, 9.2)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from time import monotonic
from typing import Annotated, cast

import msgspec
from litestar import Controller
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import QueryParameter
from litestar.types import Receive, Scope, Send
from msgspec import Meta

from api.http.errors import BadRequest
from api.http.fields import CURSOR, INT32, Id, Output
from api.http.headers import header_lines, header_value
from api.http.json_schema import PATTERNS_IN_WORDS
from api.http.negotiation import EVENT_STREAM, wants_events
from api.http.operation import OwnAnswer, get
from api.http.problems import ErrorCode, Fault
from api.http.requests import STOPPING, StrictRequest
from persistence import cursors
from persistence.change_feed import ChangeFeed, Listener
from persistence.changes import Change, ChangeAct, ChangeNoun, Found, StaleCursorError
from persistence.postgres.deadline import start_clock, stop_clock
from persistence.postgres.failures import DATABASE_ERRORS, DRIVER_ERRORS
from security import clock
from security.guards import NOT_SIGNED_IN

MAX_CHANGES = 1000  # in one answer
MAX_WAIT = 25  # seconds
MAX_CURSOR_LENGTH = 4096  # of more than five hundred transactions that are open at once
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2000  # after which a browser connects again
LAST_EVENT_ID = "Last-Event-ID"
NO_CURSOR = PATTERNS_IN_WORDS[CURSOR]
STREAM_HEADERS = [
    (b"content-type", EVENT_STREAM.encode()),
    (b"x-accel-buffering", b"no"),  # nginx would hold back what is short
]
encode = msgspec.json.Encoder().encode

Cursor = Annotated[str, Meta(max_length=MAX_CURSOR_LENGTH, pattern=CURSOR)]
Since = Annotated[Cursor, QueryParameter(max_length=MAX_CURSOR_LENGTH, pattern=CURSOR)]
Wait = Annotated[int, Meta(ge=0, le=MAX_WAIT, extra_json_schema=INT32), QueryParameter(ge=0, le=MAX_WAIT)]


class ChangeEntry(Output):
    noun: ChangeNoun
    id: Id
    act: ChangeAct


class ChangeList(Output):
    changes: Annotated[list[ChangeEntry], Meta(max_length=MAX_CHANGES)]
    cursor: Cursor


def entry_of(change: Change) -> ChangeEntry:
    return ChangeEntry(ChangeNoun(change.noun), change.id, ChangeAct(change.act))


def find_event_id_faults(request: StrictRequest) -> Iterator[Fault]:
    """A rule for `headers`: one cursor at most, and not longer than in `since`."""
    lines = header_lines(request.scope, LAST_EVENT_ID.lower().encode())
    if len(lines) > 1:
        yield Fault(parameter=LAST_EVENT_ID, code=ErrorCode.REPEATED, detail="may be given only once")
    elif lines and len(lines[0]) > MAX_CURSOR_LENGTH:
        detail = f"must be at most {MAX_CURSOR_LENGTH} characters"
        yield Fault(parameter=LAST_EVENT_ID, code=ErrorCode.TOO_LONG, detail=detail)
    elif lines and lines[0] and cursors.parse(lines[0]) is None:
        yield Fault(parameter=LAST_EVENT_ID, code=ErrorCode.BAD_FORMAT, detail=NO_CURSOR)


def cursor_of(request: StrictRequest, since: str) -> tuple[str, cursors.Cursor | None]:
    """The cursor to go on from, and the name of the parameter that it stands in: a browser that connects
    again sends the address of the first time, and the newest cursor in a header. Raises 400 for what is
    none."""
    last = header_value(request.scope, LAST_EVENT_ID.lower().encode())
    name, text = (LAST_EVENT_ID, last) if last and wants_events(request.scope) else ("since", since)
    cursor = cursors.parse(text)
    if text and cursor is None:
        raise bad_cursor(name, ErrorCode.BAD_FORMAT, NO_CURSOR)
    return name, cursor


def bad_cursor(name: str, code: ErrorCode, detail: str) -> BadRequest:
    fault = Fault(parameter=name, code=code, detail=detail)
    return BadRequest(fault.sentence, code, [fault])


@contextmanager
def telling_stale(name: str) -> Iterator[None]:
    """400 for a cursor that is of no use any more. `name`: of the parameter that it stands in."""
    try:
        yield
    except StaleCursorError as error:
        why = "is of another database" if error.is_foreign else "is older than what is kept, which is a day"
        detail = f"{why}; read again what you show, and ask without it"
        raise bad_cursor(name, ErrorCode.STALE_CURSOR, detail) from error


def end_of(request: StrictRequest) -> Callable[[], bool]:
    """Tells whether the request may not wait any longer: its token has expired, or the service stops."""
    stopping: asyncio.Event = request.scope["state"][STOPPING]
    token = request.auth.token
    expires = token.times[1] if token else 0
    return lambda: stopping.is_set() or clock.now() >= expires


async def wait_for_news(
    request: StrictRequest, feed: ChangeFeed, cursor: cursors.Cursor, seconds: int
) -> Found:
    """What is new since the cursor, as soon as anything is. Raises 401 once the caller is signed out."""
    until = monotonic() + seconds
    with feed.listening(request.user, end_of(request)) as listener:
        await uncounted(feed.catch_up(cursor))
        while True:
            found = await feed.news(listener, cursor, MAX_CHANGES)
            if not listener.is_signed_in:
                raise NotAuthorizedException(NOT_SIGNED_IN)
            left = until - monotonic()
            if found.changes or listener.has_ended or left <= 0:
                request.set_caller(request.user, checked_at=listener.checked_at)
                return found
            cursor = cursor._replace(position=found.position)
            await uncounted(listener.wait(left))


async def uncounted(waiting: Awaitable[object]) -> None:
    """The request's time does not count meanwhile: nothing is done for it."""
    began = monotonic()
    await waiting
    stop_clock(monotonic() - began)


class EventStream(OwnAnswer):
    """The answer that goes on: an event for each change, for as long as the caller may wait."""

    def __init__(
        self, request: StrictRequest, feed: ChangeFeed, name: str, cursor: cursors.Cursor | None
    ) -> None:
        """`name` as in telling_stale; without a cursor, from now on."""
        self.request = request
        self.feed = feed
        self.name = name
        self.cursor = cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.feed.listening(self.request.user, end_of(self.request)) as listener:
            cursor = self.cursor
            if cursor is None:
                await self.feed.begin()  # so that polls find whatever changes later
                cursor = await self.feed.cursor_of_now()
            with telling_stale(self.name):
                found = await self.feed.news(listener, cursor, MAX_CHANGES)
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": STREAM_HEADERS})
            gone = asyncio.create_task(end_when_gone(receive, listener))
            try:
                await self.tell(listener, cursor, found, send)
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def tell(self, listener: Listener, cursor: cursors.Cursor, found: Found, send: Send) -> None:
        """Until the listener's end, or until the database does not answer: the client connects again."""
        body = f"retry: {RETRY_MS}\n{position_of(cursor)}"
        # OSError: no connection, or none in time.
        with suppress(StaleCursorError, *DATABASE_ERRORS, *DRIVER_ERRORS, OSError):
            while not listener.has_ended:
                body += events_of(cursor, found)
                await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
                cursor, body = cursor._replace(position=found.position), ""
                if found.is_all and not await listener.wait(HEARTBEAT_SECONDS):
                    body = position_of(cursor)
                start_clock()
                found = await self.feed.news(listener, cursor, MAX_CHANGES)


async def end_when_gone(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.end()


def position_of(cursor: cursors.Cursor) -> str:
    """An event without data, which a browser only keeps the id of: so that it goes on from there."""
    return f"id: {cursor}\n\n"


def events_of(cursor: cursors.Cursor, found: Found) -> str:
    """An event for each change, whose id is where one stands after it."""
    ids = [cursor.position.after(change.place, found.seen) for change in found.changes[:-1]]
    return "".join(
        f"id: {cursor._replace(position=position)}\ndata: {encode(entry_of(change)).decode()}\n\n"
        for change, position in zip(found.changes, [*ids, found.position], strict=False)
    )


class ChangeController(Controller):
    @get("/api/changes", operation_id="listChanges", headers={LAST_EVENT_ID: find_event_id_faults})
    async def list_changes(
        self,
        request: StrictRequest,
        change_feed: NamedDependency[ChangeFeed],
        since: Since = "",
        wait: Wait = 0,
    ) -> ChangeList:
        name, cursor = cursor_of(request, since)
        if wants_events(request.scope):
            stream = EventStream(request, change_feed, name, cursor)
            return cast("ChangeList", stream)  # which the contract has, too
        if cursor is None:
            return ChangeList([], str(await change_feed.cursor_of_now()))
        with telling_stale(name):
            if wait:
                found = await wait_for_news(request, change_feed, cursor, wait)
            else:
                found = await change_feed.read(request.user, cursor, MAX_CHANGES)
        position = cursor._replace(position=found.position)
        return ChangeList([entry_of(change) for change in found.changes], str(position))
