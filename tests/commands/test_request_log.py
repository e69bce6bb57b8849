"""The log of a whole run of `serve`, with two workers (contract, "The log")."""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import httpx
import msgspec
import pytest

from tests.bench.clinic import PASSWORD, Clinic
from tests.bench.seed import fill
from tests.support import factories
from tests.support.calls import CASES
from tests.support.client import HTTP_CLIENT, Browser
from tests.support.command import settings_of
from tests.support.conformance import CONTRACT
from tests.support.factories import World
from tests.support.running import Running, serving
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

SECRET = "Quatermass"
TOKEN = "a-token-for-metrics-only-0123456789"
FIELDS = ["time", "level", "logger", "request_id", "operation", "status", "duration_ms", "caller"]
PEOPLE = {"admin": "admin", "doctor": "doctor0", "staff": "staff0", "patient": "patient0"}
SHORT = 4  # characters; shorter ones are in any text
Sent = list[tuple[httpx.Request, int]]


class Run(NamedTuple):
    """What was sent, with the status of its answer, and every line of the log."""

    sent: Sent
    lines: list[str]

    @property
    def requests(self) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.lines]
        return [event for event in events if event["logger"] == "medisecure.requests"]


@contextmanager
def recording() -> Iterator[Sent]:
    """Every request of every browser."""
    sent: Sent = []
    hooks = HTTP_CLIENT.event_hooks
    HTTP_CLIENT.event_hooks = {"response": [lambda answer: sent.append((answer.request, answer.status_code))]}
    try:
        yield sent
    finally:
        HTTP_CLIENT.event_hooks = hooks


@pytest.fixture(scope="module")
def run(servers: Backend, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every operation, and what goes wrong."""
    backend = servers.copy()
    clinic = Clinic(
        patients=200, doctors=110, appointments=600, records=200, events=200, staff=1, patient_accounts=150
    )
    asyncio.run(fill(backend.database_url, clinic))
    settings = settings_of(
        backend, LOG_FORMAT="", LOG_REQUESTS="", LOGIN_ATTEMPTS="1000", RATE_LIMIT_PER_MINUTE="100000",
        METRICS_TOKEN=TOKEN,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    with serving(folder, "--workers", "2", **settings) as running:
        running.wait_until_ready()
        with recording() as sent:
            use_everything(World(Service(backend, backend.settings(), url=running.url), {}))
            do_wrong(backend, running)
        running.stop(signal.SIGTERM)
        return Run(sent, running.printed().splitlines())


def use_everything(world: World) -> None:
    for name, email in PEOPLE.items():
        world.people[name] = world.service.browser()
        assert world.people[name].login(f"{email}@example.com", PASSWORD).status_code == 200
    for cases in CASES.values():
        for case in cases:
            request = case.make(world, 10)
            options = {} if request.body is None else {"json": request.body}
            request.browser.request(request.method, request.path, **options)


def do_wrong(backend: Backend, running: Running) -> None:
    """404, 405, 400, 413, 401, a preflight, a 500 of PostgreSQL that quotes what it refuses, a 503."""
    staff, anyone = running.browser("staff0@example.com", PASSWORD), Browser(running.url)
    about = dict.fromkeys(["name", "address", "allergies"], f"{SECRET} 5")
    chart = factories.chart(email=f"{SECRET}@example.com", **about)
    HTTP_CLIENT.get(f"{running.url}/api/{SECRET}", params={"search": SECRET})
    HTTP_CLIENT.delete(f"{running.url}/health/live", headers={"x-request-id": SECRET})
    staff.get("/api/patients", params={"search": SECRET, "sort": SECRET})
    staff.post("/api/patients", {**chart, SECRET: SECRET})
    staff.post("/api/patients", {**chart, "address": SECRET * 40_000})
    anyone.login(f"{SECRET}@example.com", f"{SECRET} as a password")
    headers = {"origin": "http://localhost:5173", "access-control-request-method": "POST"}
    HTTP_CLIENT.options(f"{running.url}/api/patients", headers=headers)
    backend.sql("ALTER TABLE patients ADD CONSTRAINT broken CHECK (false) NOT VALID")
    assert staff.post("/api/patients", chart).status_code == 500
    backend.sql("ALTER TABLE patients DROP CONSTRAINT broken")


def values_sent(sent: Sent) -> set[str]:
    """All that people have typed, and their cookies and tokens. Ids and the contract's own words are none of
    that."""
    found: set[str] = set()
    for request, _ in sent:
        found |= {value for _, value in parse_qsl(urlsplit(str(request.url)).query)}
        found |= set(re.findall("/api/calendars/(.{43})", request.url.path))
        found |= set(request.headers.get("cookie", "").replace("=", "; ").split("; "))
        found |= set(leaves(msgspec.json.decode(request.content))) if request.content else set()
    return {value for value in found if len(value) >= SHORT and not is_id(value)} - words()


def leaves(value: Any) -> Iterator[str]:
    match value:
        case dict():
            yield from (leaf for pair in value.items() for each in pair for leaf in leaves(each))
        case list():
            yield from (leaf for each in value for leaf in leaves(each))
        case str():
            yield value


def is_id(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def words() -> set[str]:
    """Names of fields and members of closed sets."""
    return set(closed_words(CONTRACT.document))


def closed_words(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from map(str, node.get("enum", ()))
        if isinstance(node.get("properties"), dict):
            yield from node["properties"]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from closed_words(child)


def test_nothing_that_was_sent_is_in_the_log(run: Run) -> None:
    log = "\n".join(run.lines).lower()
    values = values_sent(run.sent) - {"access_token", "refresh_token"}
    assert len(values) > 40
    assert [value for value in values if value.lower() in log] == []
    assert SECRET.lower() not in log
    assert TOKEN not in log


def test_every_answered_request_has_one_line_in_the_log(run: Run) -> None:
    lines = run.requests
    assert all(list(line) == FIELDS for line in lines)
    ids = Counter(line["request_id"] for line in lines)
    assert set(ids.values()) == {1}
    mine = Counter(status for _, status in run.sent)
    for status in mine.keys() - {200}:  # which the probes of the start have, too
        assert Counter(line["status"] for line in lines)[status] >= mine[status], status
    assert len(lines) >= len(run.sent)


def test_the_log_names_operations_and_callers(run: Run) -> None:
    lines = run.requests
    known = {name for name in CONTRACT.operation_ids() if not name.endswith("Head")}  # told as GET
    assert {line["operation"] for line in lines} - known == {"options", "unknown_method", "unknown_path"}
    assert known - {line["operation"] for line in lines} == set()
    assert all((line["caller"] is None) or UUID(line["caller"]) for line in lines)
    assert {line["level"] for line in lines} == {"info", "error"}


def test_all_of_the_log_is_json_and_an_exception_has_its_stack(run: Run) -> None:
    events = [json.loads(line) for line in run.lines]
    assert any("MediSecure is at" in event.get("message", "") for event in events)
    [broken] = [event for event in events if event["logger"] == "medisecure.errors"]
    assert broken["stack"].endswith("CheckViolationError 23514")
    assert "persistence/patients.py" in broken["stack"]
    [line] = [line for line in run.requests if line["status"] == 500]
    assert broken["request_id"] == line["request_id"]
