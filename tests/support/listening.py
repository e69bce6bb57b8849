"""Those who listen for changes: cursors, and streams of Server-Sent Events as a browser reads them."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from queue import Empty, Queue
from socket import SHUT_RDWR
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from tests.support.client import Browser
from tests.support.conformance import CONTRACT

CHANGES = "/api/changes"
EVENT_STREAM = "text/event-stream"
# So many changes in one transaction.
MANY = (
    "INSERT INTO absences (id, begins, ends) "
    "SELECT gen_random_uuid(), '2042-05-14', '2042-05-15' FROM generate_series(1, $1) RETURNING id"
)


class Event(NamedTuple):
    """`data`: empty where it only brings an id."""

    id: str
    data: dict[str, Any]


def events_in(lines: Iterable[bytes]) -> Iterator[Event]:
    """Those that came to their end."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        else:
            yield Event(fields["id"], msgspec.json.decode(fields.get("data", "{}")))
            fields = {}


def cursor_for(browser: Browser) -> str:
    """Of now."""
    answer = browser.get(CHANGES)
    assert answer.status_code == 200, answer.text
    assert answer.json()["changes"] == []
    return str(answer.json()["cursor"])


def told(browser: Browser, cursor: str, **query: Any) -> list[tuple[str, str, str]]:
    """(noun, id, act) of what the answer names."""
    answer = browser.get(CHANGES, params={"since": cursor, **query})
    assert answer.status_code == 200, answer.text
    return [entry_of(change) for change in answer.json()["changes"]]


def entry_of(change: dict[str, Any]) -> tuple[str, str, str]:
    return change["noun"], change["id"], change["act"]


class Stream:
    """`ids`: of all events, also of those without data; `events`: of the others."""

    def __init__(self, browser: Browser, cursor: str = "", *, last: str = "") -> None:
        where = urlsplit(browser.base_url)
        self.connection = HTTPConnection(where.hostname or "", where.port, timeout=60)
        self.headers = {"accept": EVENT_STREAM, "cookie": f"access_token={browser.cookies['access_token']}"}
        if last:
            self.headers["last-event-id"] = last
        self.path = f"{CHANGES}?since={cursor}" if cursor else CHANGES
        self.ids: Queue[str] = Queue()
        self.events: Queue[Event] = Queue()
        self.ended = threading.Event()

    def __enter__(self) -> Self:
        self.connection.request("GET", self.path, headers=self.headers)
        self.socket = self.connection.sock
        self.response = self.connection.getresponse()
        if self.response.status == 200:
            assert self.response.headers["content-type"] == EVENT_STREAM
            promised = CONTRACT.document["paths"][CHANGES]["get"]["responses"]["200"]
            sent = httpx.Response(200, headers=self.response.getheaders())
            CONTRACT.check_headers(sent, promised, CHANGES)
            threading.Thread(target=self.read, args=(self.response,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the server was first
            self.socket.shutdown(SHUT_RDWR)  # which ends the reading, too
        self.connection.close()

    def read(self, response: HTTPResponse) -> None:
        try:
            for event in events_in(response):
                if event.data:
                    self.events.put(event)
                self.ids.put(event.id)
        except (OSError, ValueError, AttributeError):  # closed meanwhile
            pass
        self.ended.set()

    def next(self, seconds: float = 10) -> Event:
        return self.events.get(timeout=seconds)

    def entries(self, count: int) -> list[tuple[str, str, str]]:
        """Those of the next events."""
        return [entry_of(self.next().data) for _ in range(count)]

    def is_silent(self) -> bool:
        try:
            self.next(1.5)
        except Empty:
            return True
        return False
