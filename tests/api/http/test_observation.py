"""What the log says of requests that no operation has answered, and whose ids it has."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from prometheus_client import CollectorRegistry

from api.http.logs import LogFormat, LogHandler
from api.http.observation import Observer, Outlets
from tests.support.factories import World
from tests.support.running import wait_until
from tests.support.service import Backend, Service
from tests.support.wire import connected_to

PROXYS_ID = "5e6f7081-92a3-4e5f-a061-91d3837d4a09"


@pytest.fixture
def told(service: Service) -> Iterator[list[dict[str, Any]]]:
    """The lines of the requests of this test."""
    lines: list[dict[str, Any]] = []
    observer: Observer = service.app.state.services[Observer]
    observer.write = lambda line: lines.append(json.loads(line))
    yield lines
    observer.write = None


def only(told: list[dict[str, Any]]) -> tuple[str, int]:
    wait_until(lambda: told, "a line")
    [line] = told
    return line["operation"], line["status"]


@pytest.mark.parametrize(
    ("method", "path", "seen"),
    [
        ("GET", "/api/nothing", ("unknown_path", 404)),
        ("GET", "/api/%70atients", ("unknown_path", 404)),
        ("PUT", "/api/patients", ("unknown_method", 405)),
        ("GET", "/api/patients", ("listPatients", 401)),
        ("GET", "/metrics", ("unknown_path", 404)),
        ("OPTIONS", "/api/patients", ("options", 204)),
        ("HEAD", "/health/live", ("checkLiveness", 200)),
    ],
)
def test_a_refused_request_is_told_too(
    service: Service, told: list[dict[str, Any]], method: str, path: str, seen: tuple[str, int]
) -> None:
    answer = httpx.request(method, service.url + path)
    assert only(told) == seen
    assert told[0]["request_id"] == answer.headers["x-request-id"]
    assert told[0]["caller"] is None


def test_what_is_no_request_is_told_without_an_id(service: Service, told: list[dict[str, Any]]) -> None:
    assert service.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert only(told) == ("invalid_request", 400)
    assert told[0]["request_id"] is None


def test_a_body_that_is_too_large_is_told(world: World, told: list[dict[str, Any]]) -> None:
    world.staff.post("/api/patients", {"name": "x" * 300_000})
    assert only(told) == ("createPatient", 413)
    assert told[0]["caller"] == world.staff.me()["id"]


def test_a_client_that_has_gone_is_499(service: Service, told: list[dict[str, Any]]) -> None:
    head = b"POST /api/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connected_to(service.url) as connection:
        connection.send(head + b"Content-Length: 9\r\n\r\n{")
        connection.abort()
    assert only(told) == ("register", 499)


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [
        ([PROXYS_ID], True),
        ([PROXYS_ID.upper()], True),
        ([PROXYS_ID.replace("-", "")], True),  # nginx's $request_id
        ([PROXYS_ID, PROXYS_ID], False),
        ([f"{PROXYS_ID},{PROXYS_ID}"], False),
        (["Quatermass"], False),
        ([f"{{{PROXYS_ID}}}"], False),
        ([""], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("trusted", ["127.0.0.0/8,::1", "192.0.2.1", ""])
def test_the_id_of_a_trusted_proxy_is_taken_over(
    backend: Backend, sent: list[str], is_taken: bool, trusted: str
) -> None:
    """Contract, The log: "if it comes in one header line and is a UUID"."""
    proxies = tuple(trusted.split(",")) if trusted else ()
    with Service(backend, backend.settings(trusted_proxies=proxies)) as service:
        answer = httpx.get(f"{service.url}/health/live", headers=[("x-request-id", each) for each in sent])
    taken = is_taken and trusted.startswith("127")
    assert (answer.headers["x-request-id"] == PROXYS_ID) == taken
    assert UUID(answer.headers["x-request-id"])


def test_the_lines_of_a_terminal_are_text() -> None:
    lines: list[bytes] = []
    handler = LogHandler(LogFormat.TEXT)
    handler.write = lines.append  # type: ignore[method-assign, assignment]  # instead of stderr
    observer = Observer.through(Outlets(CollectorRegistry(), handler))
    scope = {"state": {"request_id": UUID(PROXYS_ID)}, "method": "GET", "user": None}
    observer.see(scope, 404, 0.00123)
    expected = f"unknown_path: 404 in 1.23 ms, for anonymous, request {PROXYS_ID}\n"
    assert lines[0].decode().partition(" INFO ")[2] == expected


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (499, "info"), (503, "warning"), (500, "error")]
)
def test_only_our_own_faults_are_warnings_or_errors(status: int, level: str) -> None:
    lines: list[bytes] = []
    Observer(CollectorRegistry(), lines.append).tell(None, "listPatients", status, 0.1, None)
    assert json.loads(lines[0])["level"] == level
