"""Listeners for changes, who go on through every fault from the last that they have heard; and what must hold
of all that they were told."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import cycle
from socket import SHUT_RDWR, socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from persistence.changes import BITS
from security.roles import Role
from tests.support.client import Browser
from tests.support.listening import CHANGES, EVENT_STREAM, cursor_for, entry_of, events_in

WAIT_SECONDS = 10  # of one request
SILENCE_SECONDS = 40.0  # after which whoever hears nothing gives up: no stream is silent for half as long
RETRY_SECONDS = 0.2
SETTLING_SECONDS = 15.0  # in which the last change is told, once nobody writes any more
SHOWN = 5  # of the things that are wrong in one way
MADE = {"add_chart": "patient", "book": "appointment", "add_record": "record"}  # by kinds of a load
Entry = tuple[str, str, str]
# In words of its own what the service says in others.
THEIRS = """
    SELECT noun, object_id::text AS id, act, extract(epoch FROM at)::float AS at FROM changes
    WHERE xid > $1 AND (roles & $2 <> 0
        OR ($3 = ANY (accounts) AND (noun = 'user' OR $4 = 'patient'))
        OR ($3 = ANY (doctors) AND $4 = 'doctor')
        OR ($4 = 'patient' AND charts && ARRAY(SELECT id FROM patients WHERE user_id = $3)))
    ORDER BY xid, noun, object_id
"""
Sql = Callable[..., Sequence[Mapping[str, Any]]]


class Moment(NamedTuple):
    """A change, and when it was made or told (by the clock of the machine)."""

    entry: Entry
    at: float


class Place(NamedTuple):
    """A cursor, and how much was told before it."""

    cursor: str
    heard: int


@dataclass
class Listener:
    """Asks the instances at `urls` by turns, from `with` until its end. `ends`: why it had to ask again;
    `problems`: what no listener may hear, as that its cursor is of no use any more."""

    urls: Sequence[str]
    cookies: Mapping[str, str]
    heard: list[Moment] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    line: socket | None = None

    def __enter__(self) -> "Listener":
        browser = Browser(self.urls[0], dict(self.cookies))
        self.me = browser.me()
        self.move(cursor_for(browser), [])
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        while self.thread.is_alive():
            with suppress(OSError, AttributeError):  # closed meanwhile, or not opened yet
                self.line.shutdown(SHUT_RDWR)  # type: ignore[union-attr]  # as above
            self.thread.join(0.1)

    @property
    def name(self) -> str:
        return f"{type(self).__name__.lower()} of {self.me['role']}"

    @property
    def cursor(self) -> str:
        return self.places[-1].cursor

    def listen(self) -> None:
        urls = cycle(self.urls)
        while not self.over.is_set():
            try:
                self.ask(next(urls))
            except TimeoutError:
                self.problems.append(f"nothing was heard for {SILENCE_SECONDS} s")
            except (OSError, HTTPException) as error:
                self.ends[type(error).__name__] += 1
                self.over.wait(RETRY_SECONDS)
            except Exception as error:  # a thread's: the test looks at it
                self.problems.append(f"{type(error).__name__}: {error}")

    def ask(self, url: str) -> None:
        place = urlsplit(url)
        path, headers = self.question()
        headers["cookie"] = f"access_token={self.cookies['access_token']}"
        with closing(HTTPConnection(place.hostname or "", place.port, timeout=SILENCE_SECONDS)) as connection:
            connection.request("GET", path, headers=headers)
            self.line = connection.sock
            answer = connection.getresponse()
            if answer.status == 200:
                self.hear(answer)
            else:
                self.bear(answer.status, answer.read().decode())

    def question(self) -> tuple[str, dict[str, str]]:
        """The path and the headers to go on with."""
        raise NotImplementedError

    def hear(self, answer: HTTPResponse) -> None:
        raise NotImplementedError

    def bear(self, status: int, text: str) -> None:
        """What is no success."""
        if status == 503:
            self.ends["503"] += 1
        else:
            self.problems.append(f"{status} {text}")
        self.over.wait(RETRY_SECONDS)

    def move(self, cursor: str, told: Sequence[dict[str, str]]) -> None:
        now = time.time()
        self.heard += [Moment(entry_of(change), now) for change in told]
        self.places.append(Place(cursor, len(self.heard)))

    def theirs(self, sql: Sql, after: int) -> list[Moment]:
        """What the table says that they may know of, of later transactions than that."""
        role = Role(self.me["role"])
        rows = sql(THEIRS, after, BITS[role], self.me["id"], role.value)
        return [Moment((row["noun"], row["id"], row["act"]), row["at"]) for row in rows]


class Poller(Listener):
    """Asks again with the cursor of each answer, and waits."""

    def question(self) -> tuple[str, dict[str, str]]:
        return f"{CHANGES}?since={self.cursor}&wait={WAIT_SECONDS}", {}

    def hear(self, answer: HTTPResponse) -> None:
        body = msgspec.json.decode(answer.read())
        self.move(body["cursor"], body["changes"])


class Stream(Listener):
    """As an EventSource: goes on from the last event that came to its end."""

    def question(self) -> tuple[str, dict[str, str]]:
        return CHANGES, {"accept": EVENT_STREAM, "last-event-id": self.cursor}

    def hear(self, answer: HTTPResponse) -> None:
        for event in events_in(answer):
            self.move(event.id, [event.data] if event.data else [])
        self.ends["the end of a stream"] += 1


@dataclass
class Audience:
    """Listeners who began after the transaction `after`."""

    listeners: Sequence[Listener]
    sql: Sql
    after: int

    def settle(self) -> None:
        """Wait until they can have heard of all that was written, and for what they may be told twice."""
        all_is_told = {
            listener.name: len(listener.theirs(self.sql, self.after)) for listener in self.listeners
        }
        deadline = time.monotonic() + SETTLING_SECONDS
        while any(len(each.heard) < all_is_told[each.name] for each in self.listeners):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        time.sleep(2)

    def problems(self) -> Iterator[str]:
        """What was lost, told twice, or told though it is nowhere."""
        for listener in self.listeners:
            for what in problems_of(listener, listener.theirs(self.sql, self.after)):
                yield f"{listener.name}: {what}"

    def figures(self) -> Iterator[tuple[str, str]]:
        for listener in self.listeners:
            theirs = listener.theirs(self.sql, self.after)
            late = sorted(lateness(listener, theirs))
            middle, most = (f"{late[int(len(late) * part)]:.1f} s" for part in (0.5, 0.99)) if late else "--"
            ends = ", ".join(f"{n} {why}" for why, n in listener.ends.items()) or "none"
            yield (
                listener.name,
                f"{len(listener.heard):,} of {len(theirs):,} changes, after {middle}, 99 % within {most}; "
                f"asked again after: {ends}",
            )


@contextmanager
def following(sql: Sql, *listeners: Listener) -> Iterator[Audience]:
    """They begin while nobody writes."""
    newest = "SELECT coalesce(max(xid), 0) AS xid FROM changes"
    after = sql(newest)[0]["xid"]
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        assert sql(newest)[0]["xid"] == after, "somebody writes"
        yield Audience(listeners, sql, after)


def problems_of(listener: Listener, theirs: Sequence[Moment]) -> Iterator[str]:
    yield from listener.problems[:SHOWN]
    made, told = (Counter(each.entry for each in moments) for moments in (theirs, listener.heard))
    if twice := told - made:
        yield f"{twice.total()} were told once too often: {list(twice)[:SHOWN]}"
    if lost := made - told:
        yield f"{lost.total()} were lost: {list(lost)[:SHOWN]}"


def lateness(listener: Listener, theirs: Sequence[Moment]) -> Iterator[float]:
    """Seconds from a change to when it was told."""
    made: defaultdict[Entry, deque[float]] = defaultdict(deque)
    for each in theirs:
        made[each.entry].append(each.at)
    for entry, at in listener.heard:
        if made[entry]:
            yield at - made[entry].popleft()
