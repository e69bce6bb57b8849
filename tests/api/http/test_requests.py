"""How requests are read and errors are told, whatever the resource (requirement, "HTTP Status Codes", "Error
Response Format (All Endpoints)", "CORS Settings"; contract, "Errors", "Values", "Browsers", "In what order a
request is judged")."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.contract import contract
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.service import Backend, Service

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
LISTED = "http://localhost:5173"
FOREIGN = "https://evil.example"
LIMIT = 256 * 1024
LARGE = json.dumps(chart(address="x" * 300_000)).encode()
TOO_LARGE = {"detail": "The request body is too large; the limit is 256 KiB"}
NOT_JSON = {"detail": "body: must be JSON text in UTF-8"}
NOBODY = "00000000-0000-4000-8000-000000000000"
UNKNOWN = f"/api/patients/{NOBODY}"


def pieces(body: bytes) -> Iterator[bytes]:
    """A body without a length: httpx sends it in chunks."""
    for begin in range(0, len(body), 50_000):
        yield body[begin : begin + 50_000]


def raw(service: Service, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) for a request sent as it is written here."""
    answer = service.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    names = [header.partition(": ")[0].lower() for header in headers]
    assert len(set(names)) == len(names)
    values = [header.partition(": ")[2] for header in headers]
    return int(status.split()[1]), dict(zip(names, values, strict=True)), rest


def paths() -> dict[str, set[str]]:
    """The contract's paths, with an unknown id in place of each parameter, and the methods of each."""
    return {
        path.replace("{id}", NOBODY): {method.upper() for method in operations} & METHODS
        for path, operations in contract()["paths"].items()
    }


def allowed(value: str) -> set[str]:
    return {method.strip() for method in value.split(",")}


# Strict JSON


@pytest.mark.parametrize("value", [5, 5.0, True, False, ["A+"], {"A": "+"}, 1e308, -0.0, 10**30], ids=repr)
def test_text_is_text(world: World, value: Any) -> None:
    """Nothing is taken for what it resembles: no 5 for "5", no true for "true"."""
    for field in ("name", "bloodType"):
        refused = world.staff.post("/api/patients", chart(**{field: value}))
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith(f"{field}: must be ")
        assert "text of " in refused.json()["detail"]


@pytest.mark.parametrize("value", ["5", "true", "null", "1e3", "[]", "{}", "-0"])
def test_and_text_that_resembles_something_stays_text(world: World, value: str) -> None:
    made = world.chart(name=value, bloodType=value)
    assert (made["name"], made["bloodType"]) == (value, value)


@pytest.mark.parametrize("value", ["null", 1577836800, "1577836800", 1577836800.5, True, ["2020-01-01"]])
def test_dates_are_no_numbers(world: World, value: Any) -> None:
    birth = world.staff.post("/api/patients", chart(dateOfBirth=value))
    assert birth.json() == {"detail": "dateOfBirth: must be a date, YYYY-MM-DD"}
    moved = world.staff.patch(f"/api/appointments/{uuid4()}", {"date": value})
    assert moved.json()["detail"].startswith("date: must be an RFC 3339 date and time with an offset")


@pytest.mark.parametrize("body", [[], [{}], "text", 5, True, [chart()]])
def test_a_body_is_an_object(world: World, body: Any) -> None:
    refused = world.staff.request("POST", "/api/patients", json=body)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: must be a JSON object"})


def test_null_is_no_object(world: World) -> None:
    refused = world.staff.request("POST", "/api/patients", content=b"null", headers=JSON)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: must be a JSON object"})


def test_unknown_and_missing_fields(world: World) -> None:
    """The detail names the field, and of what was sent nothing else; not even that, if it may be no name."""
    known = "known are name, email, phone, dateOfBirth, gender, address, bloodType, allergies"
    for name in ("confirmPassword", "Name", "name.first", "x-y", "_", "n" * 64):
        unknown = world.staff.post("/api/patients", chart(**{name: 1}))
        assert unknown.status_code == 400
        assert unknown.json() == {"detail": f"{name}: is not a known field; {known}"}
    for name in ("<script>", "", " ", "a b", "n" * 65, "né", "name[0]", "a/b", "a~b", "\u0000", "a\n"):
        unknown = world.staff.post("/api/patients", chart(**{name: 1}))
        assert unknown.status_code == 400
        assert unknown.json() == {"detail": f"body: has an unknown field; {known}"}
    assert world.staff.post("/api/patients", {}).json() == {"detail": "name: is required"}
    values = world.staff.post("/api/patients", chart(gender="secret-value"))
    assert values.json() == {"detail": "gender: must be one of male, female, other"}


MALFORMED = {
    "cut short": b'{"name": "x"',
    "not JSON": b"name=x",
    "single quotes": b"{'name': 'x'}",
    "trailing comma": b'{"name": "x",}',
    "comment": b'{"name": "x" /* y */}',
    "bare word": b'{"name": x}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "bad number": b'{"name": 01}',
    "control character": b'{"name": "a\nb"}',
    "bad escape": b'{"name": "\\x41"}',
    "blank": b"  \n",
    "NUL": b"\x00",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "UTF-32": '{"name": "x"}'.encode("utf-32-le"),
    "not UTF-8": b'{"name": "\xff"}',
    "Latin-1": '{"name": "é"}'.encode("latin-1"),
    "overlong": b'{"name": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "cut character": b'{"name": "\xe2\x82"}',
    "lone high surrogate": b'{"name": "\\ud800"}',
    "lone low surrogate": b'{"name": "\\udc00"}',
    "surrogates the wrong way": b'{"name": "\\udc00\\ud800"}',
    "bad key": b'{"\xff": "x"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bodies(world: World, body: bytes) -> None:
    refused = world.staff.request("PATCH", UNKNOWN, content=body, headers=JSON)
    assert (refused.status_code, refused.json()) == (400, NOT_JSON)


def test_something_after_the_object(world: World) -> None:
    for body in (b"{}x", b"{}{}", b"{} null"):
        refused = world.staff.request("PATCH", UNKNOWN, content=body, headers=JSON)
        assert (refused.status_code, refused.json()) == (400, NOT_JSON)


@pytest.mark.parametrize(
    "body", [b'{"name": "A", "name": "B"}', b'{"name": "A", "phone": "1", "n\\u0061me": "A"}']
)
def test_a_field_given_twice(world: World, body: bytes) -> None:
    """Which of the two would count is anybody's guess (RFC 8259, 4)."""
    refused = world.staff.request("PATCH", UNKNOWN, content=body, headers=JSON)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: a field may be given only once"})


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"name":' * 30_000,
        b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"other":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"attachments":' + b"[" * 50_000,
    ],
    ids=["arrays", "objects", "in a field", "in an unknown field", "in a list"],
)
def test_deep_nesting(world: World, body: bytes) -> None:
    """A stack that would overflow is 400 like anything else, never 500."""
    for browser, path in ((world.staff, "/api/patients"), (world.doctor, "/api/records")):
        assert browser.request("POST", path, content=body, headers=JSON).status_code == 400


def test_escaped_text_is_the_same_text(world: World) -> None:
    """Escapes, pairs of surrogates and blanks around are JSON like any other."""
    body = json.dumps(chart(name="Zoë 💉 ‮end")).encode()
    assert b"\\ud83d\\udc89" in body
    for sent in (body, json.dumps(json.loads(body), ensure_ascii=False).encode(), b" \n" + body + b"\t"):
        made = world.staff.request("POST", "/api/patients", content=sent, headers=JSON)
        assert (made.status_code, made.json()["name"]) == (201, "Zoë 💉 ‮end")


@pytest.mark.parametrize("path", ["/api/patients", "/api/auth/login"])
def test_an_empty_body(world: World, path: str) -> None:
    refused = world.staff.request("POST", path, content=b"", headers=JSON)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: is required"})


# Content type and size


@pytest.mark.parametrize(
    "kind",
    [
        None, "", "text/plain", "text/json", "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x", "application/xml", "application/jsonx",
        "application/problem+json", "application/*", "*/*", "json", "text/plain; application/json",
        "application/json, text/plain",
    ],
)  # fmt: skip
def test_other_content_types(world: World, kind: str | None) -> None:
    """415: a form or text/plain would need no preflight, and so come from any page."""
    headers = {} if kind is None else {"content-type": kind}
    body = json.dumps(chart()).encode()
    refused = world.staff.request("POST", "/api/patients", content=body, headers=headers)
    assert refused.status_code == 415
    assert refused.json() == {"detail": "Content-Type must be application/json"}


def bodies() -> list[tuple[str, str, str]]:
    """(role, method, path) of every operation that takes a body."""
    return [
        (operation.get("x-roles", ["admin"])[0], method.upper(), path.replace("{id}", NOBODY))
        for path, operations in contract()["paths"].items()
        for method, operation in operations.items()
        if method.upper() in METHODS and "requestBody" in operation
    ]


@pytest.mark.parametrize(("role", "method", "path"), bodies())
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "GZIP", "x", "*"])
def test_encoded_bodies(world: World, role: str, method: str, path: str, coding: str) -> None:
    """415, as RFC 9110, 8.4 has it: not a body of ours that happens not to be JSON."""
    headers = {**JSON, "content-encoding": coding}
    refused = world.people[Role(role)].request(method, path, content=b"{}", headers=headers)
    assert refused.status_code == 415
    assert refused.json() == {"detail": "Content-Encoding must be identity: send the body as it is"}


@pytest.mark.parametrize("coding", ["", "identity", "Identity", "identity, identity"])
def test_bodies_as_they_are(world: World, coding: str) -> None:
    headers = {"content-encoding": coding}
    assert world.staff.post("/api/patients", chart(), headers=headers).status_code == 201


def test_two_content_encodings(service: Service, world: World) -> None:
    cookie = f"Cookie: access_token={world.staff.cookies['access_token']}"
    lines = ["POST /api/patients HTTP/1.1", "Host: localhost", cookie, "Content-Type: application/json"]
    codings = ["Content-Encoding: identity", "Content-Encoding: gzip"]
    assert raw(service, *lines, *codings, "Content-Length: 2", body=b"{}")[0] == 415


@pytest.mark.parametrize(
    "kind",
    [
        "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        'application/json; charset="utf-8"', "APPLICATION/JSON", "application/json ; q=1",
    ],
)  # fmt: skip
def test_json_content_types(world: World, kind: str) -> None:
    body = json.dumps(chart()).encode()
    made = world.staff.request("POST", "/api/patients", content=body, headers={"content-type": kind})
    assert made.status_code == 201


def test_bodies_by_their_length(world: World) -> None:
    """256 KiB is the limit, to the byte; the connection is good for the next request."""
    body = b'{"name":"' + b"x" * (LIMIT - 11) + b'"}'
    assert len(body) == LIMIT
    at_the_limit = world.staff.request("POST", "/api/patients", content=body, headers=JSON)
    assert at_the_limit.status_code == 400
    for large in (body + b" ", LARGE, LARGE * 20):
        refused = world.staff.request("POST", "/api/patients", content=large, headers=JSON)
        assert (refused.status_code, refused.json()) == (413, TOO_LARGE)
        assert world.staff.get("/api/users/me").status_code == 200


def test_bodies_in_chunks(world: World) -> None:
    """What gives no length is counted as it arrives."""
    refused = world.staff.request("POST", "/api/patients", content=pieces(LARGE), headers=JSON)
    assert (refused.status_code, refused.json()) == (413, TOO_LARGE)
    made = world.staff.request(
        "POST", "/api/patients", content=pieces(json.dumps(chart()).encode()), headers=JSON
    )
    assert made.status_code == 201


def test_large_bodies_are_refused_on_every_path_that_takes_one(world: World, anonymous: Browser) -> None:
    for browser, method, path in [
        (anonymous, "POST", "/api/auth/login"),
        (anonymous, "POST", "/api/auth/register"),
        (world.admin, "PATCH", "/api/users/me"),
        (world.admin, "POST", "/api/users/me/password"),
        (world.admin, "PATCH", f"/api/users/{uuid4()}"),
        (world.admin, "PATCH", UNKNOWN),
        (world.admin, "PUT", f"{UNKNOWN}/account"),
        (world.staff, "POST", "/api/appointments"),
        (world.staff, "PATCH", f"/api/appointments/{uuid4()}"),
        (world.doctor, "POST", "/api/records"),
    ]:
        for content in (LARGE, pieces(LARGE)):
            refused = browser.request(method, path, content=content, headers=JSON)
            assert (refused.status_code, refused.json()) == (413, TOO_LARGE), path


def test_a_body_that_is_not_asked_for_is_not_read(world: World) -> None:
    """GET and DELETE take none, whatever its type and size."""
    assert world.staff.request("GET", "/api/patients", content=LARGE, headers=TEXT).status_code == 200
    path = f"/api/patients/{world.chart()['id']}/account"
    assert world.staff.request("DELETE", path, content=b"{", headers=TEXT).status_code == 200


def test_a_client_that_hangs_up_is_no_error_of_ours(
    service: Service, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body and then nothing: no 500 is logged, and the service goes on."""
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for half in (b"", b'{"email":'):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + b"Content-Length: 50\r\n\r\n" + half)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert world.staff.get("/api/users/me").status_code == 200
    assert [record.getMessage() for record in caplog.records if record.name.startswith("medisecure")] == []


# Query


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/patients", "page=1&page=1"),
        ("/api/patients", "page=1&page=2"),
        ("/api/patients", "search=a&search=b"),
        ("/api/patients", "search=&search="),
        ("/api/patients", "page=1&p%61ge=1"),
        ("/api/patients", "page=1&limit=5&page=2"),
        ("/api/doctors", "limit=1&limit=2"),
        ("/api/appointments", "status=scheduled&status=cancelled"),
        ("/api/appointments", "unknown=1&unknown=2"),
        ("/api/users/me", "x&x"),
        ("/api/dashboard/stats", "x=1&x=1"),
    ],
)
def test_a_parameter_given_twice(world: World, path: str, query: str) -> None:
    refused = world.staff.get(f"{path}?{query}")
    assert refused.status_code == 400
    assert refused.json() == {"detail": "A query parameter may be given only once"}


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/", "/api/nothing", "/api/Patients", "/API/patients", "/api/patients/1/2/3",
        "/openapi.yaml/x", "/favicon.ico", "/.env", "/schema", "/api/patients.json", "/%00", "/%FF", "/é",
        "/api/auth", "/api/auth/login/x", "/health", "/api/patients/%2e%2e%2f%2e%2e%2fdocs",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(world: World, anonymous: Browser, method: str, path: str) -> None:
    """404 as JSON, before anything else is asked."""
    for browser in (world.admin, anonymous):
        missing = browser.request(method, path, headers={"origin": FOREIGN})
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not found"})


@pytest.mark.parametrize("path", paths())
def test_the_methods_of_every_path(world: World, anonymous: Browser, path: str) -> None:
    """As openapi.yaml has them: OPTIONS lists them, any other is 405 with them in Allow, for anybody."""
    methods = paths()[path] | {"OPTIONS"}
    for browser in (anonymous, world.admin):
        answer = browser.request("OPTIONS", path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert allowed(answer.headers["allow"]) == methods
        for method in METHODS - methods:
            refused = browser.request(method, path)
            assert refused.status_code == 405
            assert method == "HEAD" or refused.json() == {"detail": "Method not allowed"}
            assert allowed(refused.headers["allow"]) == methods


@pytest.mark.parametrize("method", ["HEAD", "TRACE", "PROPFIND", "LOCK"])
def test_methods_that_no_path_knows(service: Service, method: str) -> None:
    status, headers, _ = raw(service, f"{method} /api/patients HTTP/1.1", "Host: localhost")
    assert status == 405
    assert allowed(headers["allow"]) == {"GET", "POST", "OPTIONS"}
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
def test_unreadable_requests(service: Service, request_: bytes) -> None:
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


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_is_ignored(service: Service, upgrade: bytes) -> None:
    """RFC 9110, 7.8: a server may ignore it. `curl --http2` sends one, with the body in the same breath."""
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


def test_an_upgrade_in_pieces_is_refused(service: Service) -> None:
    """Its body must not be read as a request of its own: one answer, after that to what came
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


def test_the_order_step_by_step(world: World, anonymous: Browser) -> None:
    """Each answer hides what would be wrong next: path, method, origin, sign-in, role, type, size, body,
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


@pytest.mark.parametrize("path", [path for path in contract()["paths"] if "{id}" in path])
@pytest.mark.parametrize("id", ["1", "not-a-uuid", "null", "a" * 1000, "x;y", "x\\y", "urn:uuid:1"])
def test_a_malformed_id_in_a_path(world: World, anonymous: Browser, path: str, id: str) -> None:
    """An id that does not exist: 404 once signed in and entitled, 401 before."""
    operations = contract()["paths"][path]
    for method in METHODS & {name.upper() for name in operations}:
        options = {"json": BODIES[path, method]} if "requestBody" in operations[method.lower()] else {}
        roles = operations[method.lower()].get("x-roles", [role.value for role in Role])
        assert anonymous.request(method, path.replace("{id}", id), **options).status_code == 401
        for role in Role:
            answer = world.people[role].request(method, path.replace("{id}", id), **options)
            assert answer.status_code == (404 if role.value in roles else 403), (method, role)


@pytest.mark.parametrize("path", [path for path in contract()["paths"] if "{id}" in path])
@pytest.mark.parametrize("id", ["%00", "%FF", "💉", "{}", "%2e", NOBODY.replace("0", "%30"), f"%20{NOBODY}"])
def test_an_id_with_a_percent_is_no_path_at_all(world: World, anonymous: Browser, path: str, id: str) -> None:
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
    }
)


# Origins


@pytest.mark.parametrize("origin", [LISTED, "http://localhost:3000", "own", "own over TLS", None])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_pages_that_may_write(world: World, service: Service, method: str, origin: str | None) -> None:
    """Contract, "Browsers": listed origins, our own by the Host header, and no origin at all."""
    own = {"own": service.url, "own over TLS": service.url.replace("http:", "https:")}
    headers = {} if origin is None else {"origin": own.get(origin, origin)}
    some = world.chart()
    path, body, status = {
        "POST": ("/api/patients", chart(), 201),
        "PATCH": (f"/api/patients/{some['id']}", {"name": "Changed"}, 200),
        "PUT": (f"/api/patients/{some['id']}/account", {"userId": str(uuid4())}, 404),
        "DELETE": (f"/api/patients/{some['id']}/account", None, 200),
    }[method]
    options = {} if body is None else {"json": body}
    assert world.staff.request(method, path, headers=headers, **options).status_code == status


FOREIGN_ORIGINS = [
    "null", "", FOREIGN, "http://localhost", "http://localhost:5174", "http://localhost:51730",
    "https://localhost:5173", "http://localhost:5173.evil.example", "http://localhost:5173@evil.example",
    "http://LOCALHOST:5173", "http://localhost:5173/", "http://127.0.0.1:5173", "ftp://localhost:5173",
    "http://[", "https://[::1", "http://\u00e9", "file://", "chrome-extension://x", f"{LISTED}, {FOREIGN}",
    "*", "localhost:5173",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_pages_that_may_not(world: World, origin: str) -> None:
    """403 for every unsafe method, nothing changes, and no CORS header tells the page anything."""
    some = world.chart()
    headers = {"origin": origin.encode("latin-1")}
    for method, path, body in [
        ("PATCH", f"/api/patients/{some['id']}", {"name": "Forged"}),
        ("POST", "/api/auth/logout", None),
        ("PUT", f"/api/patients/{some['id']}/account", {"userId": world.patient.me()["id"]}),
        ("DELETE", f"/api/patients/{some['id']}/account", None),
    ]:
        options: dict[str, Any] = {} if body is None else {"json": body}
        refused = world.staff.request(method, path, headers=headers, **options)
        assert (refused.status_code, refused.json()) == (403, {"detail": "This origin is not allowed"})
        assert "set-cookie" not in refused.headers
        assert not [name for name in refused.headers if name.startswith("access-control-")]
    assert world.staff.get(f"/api/patients/{some['id']}").json() == some
    assert world.staff.get(f"/api/patients/{some['id']}/account").status_code == 404


def test_our_own_origin_is_that_of_the_host_header(service: Service, world: World) -> None:
    """Behind a proxy the host is another name; a page of any other host, or of another port, is foreign."""
    cookie = f"Cookie: access_token={world.staff.cookies['access_token']}"
    for host, origin, status in [
        ("clinic.example", "https://clinic.example", 415),
        ("clinic.example", "http://clinic.example", 415),
        ("clinic.example:8443", "https://clinic.example:8443", 415),
        ("clinic.example:443", "https://clinic.example", 415),
        ("clinic.example", "http://clinic.example:80", 415),
        ("CLINIC.example", "https://clinic.example", 415),
        ("[::1]:443", "https://[::1]", 415),
        ("clinic.example:443", "http://clinic.example", 403),
        ("clinic.example:80", "https://clinic.example", 403),
        ("clinic.example", "https://clinic.example:8443", 403),
        ("clinic.example:8443", "https://clinic.example", 403),
        ("clinic.example", "https://evil.clinic.example", 403),
        ("clinic.example", "https://clinic.example.evil", 403),
        ("clinic.example", service.url, 403),
        ("clinic.example", "ftp://clinic.example", 403),
    ]:
        lines = ["POST /api/patients HTTP/1.1", f"Host: {host}", f"Origin: {origin}", cookie]
        assert raw(service, *lines)[0] == status, (host, origin)
    no_host = ["POST /api/patients HTTP/1.0", cookie]
    for origin in ("http://", "http://None", "https://localhost"):
        assert raw(service, *no_host, f"Origin: {origin}")[0] == 403


def test_two_origins_are_foreign(service: Service) -> None:
    lines = ["POST /api/auth/logout HTTP/1.1", "Host: localhost", f"Origin: {LISTED}", f"Origin: {LISTED}"]
    assert raw(service, *lines)[0] == 403


@pytest.mark.parametrize("origin", ["null", FOREIGN, "http://["])
def test_reading_is_safe(world: World, origin: str) -> None:
    """A safe method passes from anywhere; the page cannot read the answer, because no header lets it."""
    for method, path, status in [("GET", "/api/patients", 200), ("OPTIONS", "/api/patients", 204)]:
        answer = world.staff.request(method, path, headers={"origin": origin})
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# CORS


def assert_shared(headers: Any, origin: str) -> None:
    """What a browser needs before a page at `origin` may read the answer and use the cookies (requirement,
    CORS Settings, "CRITICAL for HttpOnly Cookies": `allow_credentials=True`)."""
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    exposed = allowed(headers["access-control-expose-headers"].lower())
    assert {"retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= exposed
    assert "x-request-id" in exposed
    assert "*" not in "".join(value for name, value in headers.items() if name.startswith("access-control-"))


@pytest.mark.parametrize("origin", [LISTED, "http://localhost:3000"])
def test_listed_pages_may_read_every_answer(world: World, anonymous: Browser, origin: str) -> None:
    """Requirement, CORS Settings: `allow_origins`, both of them. Errors too: without these headers a page
    sees "Network Error" instead of a 401."""
    for browser, method, path, options, status in [
        (world.staff, "GET", "/api/patients", {}, 200),
        (world.staff, "POST", "/api/patients", {"json": chart()}, 201),
        (world.staff, "OPTIONS", "/api/patients", {}, 204),
        (world.staff, "POST", "/api/patients", {"json": {}}, 400),
        (anonymous, "GET", "/api/patients", {}, 401),
        (anonymous, "POST", "/api/auth/login", {"json": {"email": "no@one", "password": "x"}}, 401),
        (anonymous, "POST", "/api/auth/refresh", {}, 401),
        (world.patient, "POST", "/api/patients", {"json": chart()}, 403),
        (world.staff, "GET", UNKNOWN, {}, 404),
        (anonymous, "GET", "/api/nothing", {}, 404),
        (anonymous, "DELETE", "/api/patients", {}, 405),
        (world.staff, "POST", "/api/patients", {"content": LARGE, "headers": JSON}, 413),
        (world.staff, "POST", "/api/patients", {"content": b"{}", "headers": TEXT}, 415),
        (anonymous, "GET", "/openapi.json", {}, 200),
        (anonymous, "GET", "/health/live", {}, 200),
    ]:
        headers = {**options.pop("headers", {}), "origin": origin}
        answer = browser.request(method, path, headers=headers, **options)
        assert answer.status_code == status
        assert_shared(answer.headers, origin)
        assert "origin" in allowed(answer.headers["vary"].lower())


def test_listed_pages_may_read_a_429(world: World, backend: Backend) -> None:
    """Retry-After among what they may read."""
    with Service(backend, backend.settings(rate_limit_per_minute=1)) as strict:
        browser = strict.browser(world.other_doctor.cookies)
        browser.get("/api/users/me")
        answer = browser.get("/api/users/me", headers={"origin": LISTED})
        refused = browser.get("/api/users/me", headers={"origin": FOREIGN})
    assert answer.status_code == refused.status_code == 429
    assert_shared(answer.headers, LISTED)
    assert int(answer.headers["retry-after"]) >= 1
    assert_secured(answer.headers)
    assert "access-control-allow-origin" not in refused.headers


def test_only_the_origins_of_the_setting_are_listed(world: World, backend: Backend) -> None:
    """CORS_ORIGINS replaces the two of the requirement (CORS Settings: "Add production domains")."""
    with Service(backend, backend.settings(cors_origins=("https://clinic.example",))) as other:
        browser = other.browser(world.staff.cookies)
        page = {"origin": "https://clinic.example"}
        assert_shared(browser.get("/api/users/me", headers=page).headers, "https://clinic.example")
        assert browser.patch("/api/users/me", {}, headers=page).status_code == 200
        former = browser.get("/api/users/me", headers={"origin": LISTED})
        assert "access-control-allow-origin" not in former.headers
        assert browser.patch("/api/users/me", {}, headers={"origin": LISTED}).status_code == 403


def preflight(browser: Browser, path: str, origin: str, method: str, **headers: str) -> Any:
    asked = {"origin": origin, "access-control-request-method": method, **headers}
    return browser.request("OPTIONS", path, headers=asked)


NO_PATHS = ["/api/nothing", "/", "//api/users", "/api/users/", "/%61pi/users", "/api/patients/%00", "/é"]


@pytest.mark.parametrize("path", [*paths(), *NO_PATHS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_preflights(anonymous: Browser, path: str, method: str) -> None:
    """Requirement, CORS Settings: `allow_methods=["*"]`, `allow_headers=["*"]`, spelt out, because cookies
    come along. 204 for a listed origin, without cookies, whatever the path: the request itself will be
    judged, and the page may read that it is 404. No header is `*`."""
    asked = {"access-control-request-headers": "content-type, x-requested-with,X-Anything, *"}
    answer = preflight(anonymous, path, LISTED, method, **asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert_shared(answer.headers, LISTED)
    assert allowed(answer.headers["access-control-allow-methods"]) >= METHODS - {"HEAD"}
    assert answer.headers["access-control-allow-headers"] == "content-type, x-requested-with, X-Anything"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "origin" in allowed(answer.headers["vary"].lower())
    assert "set-cookie" not in answer.headers


def test_a_preflight_that_asks_for_no_header(anonymous: Browser) -> None:
    answer = preflight(anonymous, "/api/patients", LISTED, "GET")
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


@pytest.mark.parametrize("path", ["/api/patients", *NO_PATHS])
@pytest.mark.parametrize("origin", [FOREIGN, "null", "", "http://localhost:5174", "http://["])
def test_preflights_from_elsewhere_fail(anonymous: Browser, origin: str, path: str) -> None:
    """Contract, "Errors": 400 as JSON, and no header that lets anybody in."""
    answer = preflight(anonymous, path, origin, "POST")
    assert (answer.status_code, answer.json()) == (400, {"detail": "This origin is not allowed"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "get", "*", ""])
def test_preflights_for_other_methods_fail(anonymous: Browser, method: str) -> None:
    answer = preflight(anonymous, "/api/patients", LISTED, method)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Method not allowed"})


def test_preflights_are_not_counted(backend: Backend) -> None:
    """Contract, "The limit": OPTIONS is exempt."""
    with Service(backend, backend.settings(rate_limit_per_minute=1)) as strict:
        browser = strict.browser()
        for _ in range(5):
            assert preflight(browser, "/api/patients", LISTED, "GET").status_code == 204
            assert browser.request("OPTIONS", "/api/patients").status_code == 204


def test_a_request_that_the_end_of_the_service_cuts_off_is_503(backend: Backend) -> None:
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


# What every answer carries


def assert_secured(headers: Any) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "x-powered-by" not in headers


def test_every_answer_is_secured(world: World, anonymous: Browser) -> None:
    """Contract, "Browsers": no-store, nosniff, a CSP, no server name, `Vary: Origin`, whoever asks."""
    for browser, method, path, options, status in [
        (world.staff, "GET", "/api/patients", {}, 200),
        (world.staff, "POST", "/api/patients", {"json": chart()}, 201),
        (world.staff, "OPTIONS", "/api/patients", {}, 204),
        (world.staff, "GET", "/api/patients?page=0", {}, 400),
        (anonymous, "GET", "/api/patients", {}, 401),
        (world.patient, "POST", "/api/patients", {"json": chart()}, 403),
        (world.staff, "GET", UNKNOWN, {}, 404),
        (anonymous, "GET", "/nothing", {}, 404),
        (anonymous, "DELETE", "/api/patients", {}, 405),
        (world.staff, "POST", "/api/patients", {"content": LARGE, "headers": JSON}, 413),
        (world.staff, "POST", "/api/patients", {"content": b"{}", "headers": TEXT}, 415),
        (anonymous, "POST", "/api/auth/logout", {}, 200),
        (anonymous, "GET", "/health/ready", {}, 200),
        (anonymous, "GET", "/openapi.yaml", {}, 200),
        (anonymous, "GET", "/docs", {}, 200),
    ]:
        for origin in ({}, {"origin": LISTED}):
            headers = {**options.get("headers", {}), **origin}
            answer = browser.request(method, path, **{**options, "headers": headers})
            assert answer.status_code == status
            assert_secured(answer.headers)
            assert answer.headers["vary"] == ("Origin, Accept" if status >= 400 else "Origin")


def test_the_two_kinds_of_preflight_are_secured_too(anonymous: Browser) -> None:
    for origin, status in ((LISTED, 204), (FOREIGN, 400)):
        answer = preflight(anonymous, "/api/patients", origin, "POST")
        assert answer.status_code == status
        assert_secured(answer.headers)
        assert answer.headers["vary"] == ("Origin, Accept" if status >= 400 else "Origin")


@pytest.mark.parametrize("path", [path for path, methods in paths().items() if "HEAD" in methods])
def test_head_is_answered_as_get_is_without_the_content(anonymous: Browser, path: str) -> None:
    """RFC 9110, 9.3.2; contract, "Browsers"."""
    read, head = anonymous.get(path), anonymous.request("HEAD", path)
    assert (head.status_code, head.content) == (read.status_code, b"")
    assert len(read.content) == int(head.headers["content-length"])
    own = {"date", "x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in read.headers.items() if name not in own
    }


def test_head_works_wherever_get_needs_no_cookie() -> None:
    for path, operations in contract()["paths"].items():
        needs_none = "get" in operations and operations["get"].get("security") == []
        assert ("head" in operations) == needs_none, path


def test_files_of_the_page_have_a_head_too(service: Service) -> None:
    head = httpx.head(f"{service.url}/docs/reference.js")
    assert (head.status_code, head.content) == (200, b"")
