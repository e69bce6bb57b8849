"""Clients that keep their connections, pass over an instance that is gone, and remember every answer."""

import http.client
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from select import select
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tests.support.client import COOKIE_PATHS, Browser
from tests.support.conformance import CONTRACT

CHECK_SECONDS, CHECK_TIMEOUT = 0.5, 2.0
TIMEOUT_SECONDS = 30  # three times what any client may have to wait
IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNAUDITED = {"doctor.read", "auth.reuse"}  # these actions stand for what was refused
MADE = {"createPatient": "patients", "createAppointment": "appointments", "createRecord": "medical_records"}


class Answer:
    """As much of httpx.Response as the cases ask for."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, content: bytes) -> None:
        self.status_code = status
        self.headers = headers
        self.content = content

    @property
    def is_success(self) -> bool:
        return self.status_code < 300

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return msgspec.json.decode(self.content)


class NoAnswerError(Exception):
    """The connection was closed, or nothing was heard for TIMEOUT_SECONDS."""


class Failed(NamedTuple):
    """A request that was not served. `outcome`: a status, or why there is none."""

    operation: str
    began: float
    ended: float
    outcome: str
    detail: str


@dataclass
class Memory:
    """What was answered. `acknowledged`: ids of what was made, by table; `audited`: request ids of what must
    be in the trail, by operation; `seconds`: how often an answer took so many hundredths of a second."""

    served: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    failed: list[Failed] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in MADE.values()})
    audited: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        return self.served.total() + self.refused.total() + len(self.failed)

    def keep(self, operation: str, is_audited: bool, began: float, answer: Answer) -> None:
        ended = time.monotonic()
        with self.lock:
            self.seconds[int((ended - began) * 100)] += 1
            if answer.status_code >= 500:
                is_clean = answer.status_code == 503 and "retry-after" in answer.headers
                detail = "" if is_clean else answer.text[:200]
                self.failed.append(Failed(operation, began, ended, str(answer.status_code), detail))
            elif answer.status_code >= 400:
                self.refused[operation, answer.status_code] += 1
            else:
                self.served[operation] += 1
                if table := MADE.get(operation):
                    self.acknowledged[table].append(answer.json()["id"])
                if is_audited:
                    self.audited[operation].append(answer.headers["x-request-id"])

    def keep_silence(self, operation: str, began: float, why: str) -> None:
        with self.lock:
            self.failed.append(Failed(operation, began, time.monotonic(), why, ""))


@dataclass
class Checks:
    """Asks each instance whether it is ready, as a proxy does, from `with` until its end."""

    urls: Sequence[str]
    ready: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Checks":
        self.ready = list(self.urls)
        self.threads = [threading.Thread(target=self.check, args=(url,)) for url in self.urls]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def check(self, url: str) -> None:
        place = urlsplit(url)
        while not self.over.wait(CHECK_SECONDS):
            is_ready = False
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=CHECK_TIMEOUT)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health/ready")
                is_ready = connection.getresponse().status == 200
            connection.close()
            others = [each for each in self.ready if each != url]
            self.ready = [*others, url] if is_ready else others

    def in_turn(self, turn: int) -> list[str]:
        """Where to ask: those that are ready first, and of them another one each time."""
        ready = sorted(self.ready)
        start = turn % len(ready) if ready else 0
        return [*ready[start:], *ready[:start], *(url for url in self.urls if url not in ready)]


@dataclass
class Door:
    """The instances, as a proxy shows them; one for each thread."""

    checks: Checks
    memory: Memory
    connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)
    turns: "count[int]" = field(default_factory=count)

    def browser(self, cookies: dict[str, str] | None = None) -> "Client":
        return Client(self, dict(cookies or {}))

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        """Passes over an instance that takes no connections."""
        for url in self.checks.in_turn(next(self.turns)):
            try:
                connection = self.connected(url)
            except OSError:
                self.connections.pop(url, None)
                continue
            try:
                return self.ask(connection, method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.connections.pop(url).close()
                raise NoAnswerError(type(error).__name__) from error
        raise NoAnswerError("no instance takes connections")

    def connected(self, url: str) -> http.client.HTTPConnection:
        connection = self.connections.get(url)
        if connection is None:
            place = urlsplit(url)
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=TIMEOUT_SECONDS)
            self.connections[url] = connection
        if connection.sock is not None and select([connection.sock], [], [], 0)[0]:
            connection.close()  # closed while idle, which a proxy notices
        if connection.sock is None:
            connection.connect()
        return connection

    @staticmethod
    def ask(
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    @cached_property
    def operations(self) -> dict[tuple[str, str], tuple[str, bool]]:
        return {}

    def operation(self, method: str, path: str) -> tuple[str, bool]:
        """(its id, whether a success is in the trail)."""
        key = method, IDS.sub("{id}", path.partition("?")[0])
        if key not in self.operations:
            found = CONTRACT.operation(method, path.partition("?")[0])
            assert found is not None, key
            action = found[1].get("x-audit")
            self.operations[key] = found[1]["operationId"], action is not None and action not in UNAUDITED
        return self.operations[key]


class Client(Browser):
    """A browser that goes through a Door. It raises NoAnswerError."""

    def __init__(self, door: Door, cookies: dict[str, str]) -> None:
        super().__init__("", cookies)
        self.door = door

    def request(self, method: str, path: str, **options: Any) -> Any:  # an Answer, for an httpx.Response
        operation, is_audited = self.door.operation(method, path)
        target = path.partition("?")[0]
        jar = self.cookies.items()
        sent = [f"{name}={value}" for name, value in jar if target.startswith(COOKIE_PATHS[name])]
        headers = {"cookie": "; ".join(sent)} if sent else {}
        body = None
        if "json" in options:
            body = msgspec.json.encode(options["json"])
            headers["content-type"] = "application/json"
        began = time.monotonic()
        try:
            answer = self.door.send(method, path, body, headers)
        except NoAnswerError as error:
            self.door.memory.keep_silence(operation, began, str(error))
            raise
        for cookie in answer.headers.get_all("set-cookie", []):
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        self.door.memory.keep(operation, is_audited, began, answer)
        return answer
