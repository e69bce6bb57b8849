"""What every answer carries (contract, "Browsers", "Errors"), and answers to HEAD."""

import json
import socket
import time

import httpx
import pytest

from api.contract import contract
from tests.api.http.helpers import (
    FOREIGN,
    LISTED,
    assert_secured,
    calls_of_every_kind,
    contract_paths,
    preflight,
)
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend, Service

# What every answer carries


def test_every_answer_has_the_security_headers(world: World, anonymous: Browser) -> None:
    """Contract, "Browsers": no-store, nosniff, a CSP, no server name, `Vary: Origin`, for every caller."""
    for browser, method, path, options, status in calls_of_every_kind(world, anonymous):
        for origin in ({}, {"origin": LISTED}):
            headers = {**options.get("headers", {}), **origin}
            answer = browser.request(method, path, **{**options, "headers": headers})
            assert answer.status_code == status
            assert_secured(answer.headers)
            assert answer.headers["vary"] == ("Origin, Accept" if status >= 400 else "Origin")


def test_answers_to_preflights_have_the_security_headers(anonymous: Browser) -> None:
    for origin, status in ((LISTED, 204), (FOREIGN, 400)):
        answer = preflight(anonymous, "/api/patients", origin, "POST")
        assert answer.status_code == status
        assert_secured(answer.headers)
        assert answer.headers["vary"] == ("Origin, Accept" if status >= 400 else "Origin")


@pytest.mark.parametrize("path", [path for path, methods in contract_paths().items() if "HEAD" in methods])
def test_head_is_answered_as_get_without_content(anonymous: Browser, path: str) -> None:
    """RFC 9110, 9.3.2; contract, "Browsers"."""
    read, head = anonymous.get(path), anonymous.request("HEAD", path)
    assert (head.status_code, head.content) == (read.status_code, b"")
    assert len(read.content) == int(head.headers["content-length"])
    own = {"date", "x-request-id", "ratelimit-remaining", "ratelimit-reset"}
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in read.headers.items() if name not in own
    }


def test_head_is_allowed_wherever_get_needs_no_cookie() -> None:
    for path, operations in contract()["paths"].items():
        needs_none = "get" in operations and operations["get"].get("security") == []
        assert ("head" in operations) == needs_none, path


def test_files_of_the_reference_page_answer_head(service: Service) -> None:
    head = httpx.head(f"{service.url}/docs/reference.js")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.slow
def test_a_request_that_a_shutdown_cuts_off_is_503(backend: Backend) -> None:
    """Contract, "Errors": as JSON, with what every answer carries."""
    with Service(backend, backend.settings()) as ending:
        ending.server.config.timeout_graceful_shutdown = 1
        host, port = ending.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(
                b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 50\r\n\r\n{"
            )
            while not ending.server.server_state.tasks:
                time.sleep(0.01)
            ending.server.should_exit = True
            received = connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == "http/1.1 503 service unavailable"
    assert set(json.loads(body)) == {"detail"}
    assert int(headers["retry-after"]) >= 1
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert_secured(headers)
