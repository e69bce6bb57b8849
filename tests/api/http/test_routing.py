"""Which paths and methods there are, what the HTTP parser refuses, and in what order a request is checked
(requirement, "HTTP Status Codes", "Error Response Format (All Endpoints)"; contract, "Errors", "In what order
a request is judged")."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from api.contract import contract
from security.roles import Role
from tests.api.http.helpers import (
    FOREIGN,
    JSON,
    LARGE,
    METHODS,
    NOBODY,
    TEXT,
    UNKNOWN,
    assert_secured,
    contract_paths,
    raw,
    split_list,
)
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.openapi import parameters
from tests.support.service import Service


def pieces(body: bytes) -> Iterator[bytes]:
    """A body without a length: httpx sends it in chunks."""
    for begin in range(0, len(body), 50_000):
        yield body[begin : begin + 50_000]


# Paths and methods


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/", "/api/nothing", "/api/Patients", "/API/patients", "/api/patients/1/2/3",
        "/openapi.yaml/x", "/favicon.ico", "/.env", "/schema", "/api/patients.json", "/%00", "/%FF", "/é",
        "/api/auth", "/api/auth/login/x", "/health", "/api/patients/%2e%2e%2f%2e%2e%2fdocs",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(world: World, anonymous: Browser, method: str, path: str) -> None:
    """As JSON, before anything else is checked."""
    for browser in (world.admin, anonymous):
        missing = browser.request(method, path, headers={"origin": FOREIGN})
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not found"})


@pytest.mark.slow
@pytest.mark.parametrize("path", contract_paths())
def test_every_path_allows_exactly_the_methods_of_the_contract(
    world: World, anonymous: Browser, path: str
) -> None:
    """OPTIONS lists them; any other method is 405 with them in Allow, for every caller."""
    methods = contract_paths()[path] | {"OPTIONS"}
    for browser in (anonymous, world.admin):
        answer = browser.request("OPTIONS", path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert split_list(answer.headers["allow"]) == methods
        for method in METHODS - methods:
            refused = browser.request(method, path)
            assert refused.status_code == 405
            assert method == "HEAD" or refused.json() == {"detail": "Method not allowed"}
            assert split_list(refused.headers["allow"]) == methods


@pytest.mark.parametrize("method", ["HEAD", "TRACE", "PROPFIND", "LOCK"])
def test_a_method_that_no_path_has_is_405(service: Service, method: str) -> None:
    status, headers, _ = raw(service, f"{method} /api/patients HTTP/1.1", "Host: localhost")
    assert status == 405
    assert split_list(headers["allow"]) == {"GET", "POST", "OPTIONS"}
    assert headers["content-type"] == "application/json"


# What the HTTP parser cannot read


UNREADABLE = {
    "unknown method": b"BREW /api/patients HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower-case method": b"get /api/patients HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw UTF-8 in the path": "GET /api/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "raw bytes in the query": b"GET /api/patients?search=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "negative length": b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "no number for a length": b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    ),
    "a bad header": b"GET /api/patients HTTP/1.1\r\nHost: x\r\nB@d header: 1\r\n\r\n",
    "a header without colon": b"GET /api/patients HTTP/1.1\r\nHost x\r\n\r\n",
    "a very long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("request_", UNREADABLE.values(), ids=UNREADABLE)
def test_a_request_that_the_http_parser_refuses_is_400(service: Service, request_: bytes) -> None:
    """Requirement, Error Response Format (All Endpoints); contract, "Errors": JSON 400 from the protocol
    itself, which never asks the application."""
    head, _, body = service.raw(request_).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    assert lines[0] == "http/1.1 400 bad request"
    assert json.loads(body) == {"detail": "Invalid HTTP request"}
    for expected in ("content-type: application/json", f"content-length: {len(body)}", "connection: close"):
        assert expected in lines
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert_secured(headers)


UPGRADES = (b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"upgrade: websocket")


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_header_is_ignored(service: Service, upgrade: bytes) -> None:
    """RFC 9110, 7.8: a server may ignore it. `curl --http2` sends one, with the body in the same packet."""
    body = json.dumps({"email": "nobody@example.com", "password": "\r\nUpgrade: x"}).encode()
    request = b"\r\n".join(
        (
            b"POST /api/auth/login HTTP/1.1",
            b"Host: localhost",
            b"Connection: Upgrade, HTTP2-Settings, close",
            upgrade,
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            b"",
            body,
        )
    )
    head, _, answer = service.raw(request).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert json.loads(answer) == {"detail": "Invalid email or password"}


def test_an_upgrade_header_that_comes_in_pieces_is_refused(service: Service) -> None:
    """Its body must not be read as the next request: one answer, after that to what came
    before it, and the connection ends."""
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    body = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    rest = head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    pipelined = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for pieces, good in (([rest[:20], rest[20:]], 0), ([b"\r\n\r\n" + rest], 0), ([pipelined + rest], 1)):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.count(b"HTTP/1.1 400 Bad Request") == 1, pieces
        assert received.count(b"HTTP/1.1 200") == good, pieces


# In what order a request is judged


def test_a_request_is_checked_in_the_order_of_the_contract(world: World, anonymous: Browser) -> None:
    """Each step hides the ones after it: path, method, origin, sign-in, role, type, size, body,
    object."""
    foreign = {"origin": FOREIGN}
    large_text = {"headers": {**TEXT}, "content": LARGE}
    large_json = {"headers": {**JSON}, "content": LARGE}
    broken = {"headers": {**JSON}, "content": b"{"}
    steps: list[tuple[Browser, str, str, dict[str, Any], int]] = [
        (anonymous, "POST", "/api/nothing", {"headers": {**foreign, **TEXT}, "content": LARGE}, 404),
        (anonymous, "PUT", "/api/patients", {"headers": {**foreign, **TEXT}, "content": LARGE}, 405),
        (anonymous, "POST", "/api/patients", {"headers": {**foreign, **TEXT}, "content": LARGE}, 403),
        (world.staff, "POST", "/api/patients", {"headers": foreign, "json": chart()}, 403),
        (anonymous, "POST", "/api/patients", large_text, 401),
        (anonymous, "POST", "/api/patients?page=1&page=1", broken, 401),
        (anonymous, "PATCH", "/api/patients/not-a-uuid", broken, 401),
        (world.patient, "POST", "/api/patients", large_text, 403),
        (world.patient, "PATCH", "/api/patients/not-a-uuid", large_json, 403),
        (world.staff, "GET", "/api/records?page=0&page=0", {}, 403),
        (world.staff, "POST", "/api/patients?page=1&page=1", large_text, 415),
        (world.staff, "PATCH", UNKNOWN, {"headers": {**TEXT}, "content": b"{"}, 415),
        (world.staff, "POST", "/api/patients?page=1&page=1", large_json, 413),
        (world.staff, "PATCH", UNKNOWN, large_json, 413),
        (world.staff, "PATCH", UNKNOWN, broken, 400),
        (world.staff, "PATCH", f"{UNKNOWN}?x=1&x=1", {"json": {}}, 400),
        (world.staff, "PATCH", "/api/patients/not-a-uuid", {"json": {"name": ""}}, 400),
        (world.staff, "GET", f"{UNKNOWN}?x=1&x=1", {}, 400),
        (world.staff, "PATCH", UNKNOWN, {"json": {}}, 404),
        (world.staff, "PATCH", "/api/patients/not-a-uuid", {"json": {}}, 404),
    ]
    for browser, method, path, options, status in steps:
        assert browser.request(method, path, **options).status_code == status, (method, path, status)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in contract()["paths"] if "{id}" in path])
@pytest.mark.parametrize("id", ["1", "not-a-uuid", "null", "a" * 1000, "x;y", "x\\y", "urn:uuid:1"])
def test_a_malformed_id_in_a_path_is_404(world: World, anonymous: Browser, path: str, id: str) -> None:
    """As an id that does not exist: 404 for those who may call the operation, 401 and 403 before."""
    operations = contract()["paths"][path]
    for method in METHODS & {name.upper() for name in operations}:
        operation = operations[method.lower()]
        options: dict[str, Any] = {"json": BODIES[path, method]} if "requestBody" in operation else {}
        asked = [one for one in parameters(contract(), path, operation) if one["in"] == "query"]
        options["params"] = {one["name"]: one["example"] for one in asked if one.get("required")}
        roles = operation.get("x-roles", [role.value for role in Role])
        assert anonymous.request(method, path.replace("{id}", id), **options).status_code == 401
        for role in Role:
            answer = world.people[role].request(method, path.replace("{id}", id), **options)
            assert answer.status_code == (404 if role.value in roles else 403), (method, role)


@pytest.mark.parametrize("path", [path for path in contract()["paths"] if "{id}" in path])
@pytest.mark.parametrize("id", ["%00", "%FF", "💉", "{}", "%2e", NOBODY.replace("0", "%30"), f"%20{NOBODY}"])
def test_a_percent_sign_in_a_path_is_404(world: World, anonymous: Browser, path: str, id: str) -> None:
    """Contract, "In what order a request is judged": a path is compared as it was sent. (httpx encodes the
    needle and the braces.)"""
    for browser in (anonymous, world.admin):
        missing = browser.get(path.replace("{id}", id))
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not found"})


class Bodies(dict[tuple[str, str], dict[str, Any]]):
    def __missing__(self, key: tuple[str, str]) -> dict[str, Any]:
        return {}


BODIES = Bodies(
    {
        ("/api/patients/{id}/account", "PUT"): {"userId": str(uuid4())},
        ("/api/users/{id}/password", "POST"): {"newPassword": "correct horse"},
        ("/api/patients/{id}/merge", "POST"): {"from": str(uuid4()), "reason": "x"},
        ("/api/patients/{id}/unmerge", "POST"): {"from": str(uuid4()), "reason": "x"},
        ("/api/appointments/{id}/visit", "POST"): {"act": "arrived"},
        ("/api/records/{id}/versions", "POST"): {"notes": "x", "reason": "x"},
        ("/api/records/{id}/retraction", "POST"): {"reason": "x"},
        ("/api/doctors/{id}/hours", "PUT"): {"hours": None},
    }
)
