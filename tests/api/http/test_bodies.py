"""How bodies are read, whatever the resource (contract, "Errors", "Values"): strict JSON of a limited
size."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from api.contract import contract
from security.roles import Role
from tests.api.http.helpers import JSON, LARGE, METHODS, NOBODY, TEXT, UNKNOWN, raw
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.service import Service

LIMIT = 256 * 1024
TOO_LARGE = {"detail": "The request body is too large; the limit is 256 KiB"}
NOT_JSON = {"detail": "body: must be JSON text in UTF-8"}


def pieces(body: bytes) -> Iterator[bytes]:
    """A body without a length: httpx sends it in chunks."""
    for begin in range(0, len(body), 50_000):
        yield body[begin : begin + 50_000]


# Strict JSON


@pytest.mark.parametrize("value", [5, 5.0, True, False, ["A+"], {"A": "+"}, 1e308, -0.0, 10**30], ids=repr)
def test_numbers_booleans_and_null_are_not_taken_for_text(world: World, value: Any) -> None:
    """No value is converted: 5 is not taken for "5", nor true for "true"."""
    for field in ("name", "bloodType"):
        refused = world.staff.post("/api/patients", chart(**{field: value}))
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith(f"{field}: must be ")
        assert "text of " in refused.json()["detail"]


@pytest.mark.parametrize("value", ["5", "true", "null", "1e3", "[]", "{}", "-0"])
def test_text_that_looks_like_another_type_stays_text(world: World, value: str) -> None:
    made = world.chart(name=value, bloodType=value)
    assert (made["name"], made["bloodType"]) == (value, value)


@pytest.mark.parametrize("value", ["null", 1577836800, "1577836800", 1577836800.5, True, ["2020-01-01"]])
def test_numbers_are_not_taken_for_dates(world: World, value: Any) -> None:
    birth = world.staff.post("/api/patients", chart(dateOfBirth=value))
    assert birth.json() == {"detail": "dateOfBirth: must be a date, YYYY-MM-DD"}
    moved = world.staff.patch(f"/api/appointments/{uuid4()}", {"date": value})
    assert moved.json()["detail"].startswith("date: must be an RFC 3339 date and time with an offset")


@pytest.mark.parametrize("body", [[], [{}], "text", 5, True, [chart()]])
def test_a_body_that_is_not_a_json_object_is_400(world: World, body: Any) -> None:
    refused = world.staff.request("POST", "/api/patients", json=body)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: must be a JSON object"})


def test_a_body_of_null_is_400(world: World) -> None:
    refused = world.staff.request("POST", "/api/patients", content=b"null", headers=JSON)
    assert (refused.status_code, refused.json()) == (400, {"detail": "body: must be a JSON object"})


def test_unknown_and_missing_fields_of_a_body_are_400(world: World) -> None:
    """The detail names the field and repeats nothing else that was sent; a field name that may be data is not
    repeated either."""
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
def test_a_malformed_json_body_is_400(world: World, body: bytes) -> None:
    refused = world.staff.request("PATCH", UNKNOWN, content=body, headers=JSON)
    assert (refused.status_code, refused.json()) == (400, NOT_JSON)


def test_data_after_the_json_object_is_400(world: World) -> None:
    for body in (b"{}x", b"{}{}", b"{} null"):
        refused = world.staff.request("PATCH", UNKNOWN, content=body, headers=JSON)
        assert (refused.status_code, refused.json()) == (400, NOT_JSON)


@pytest.mark.parametrize(
    "body", [b'{"name": "A", "name": "B"}', b'{"name": "A", "phone": "1", "n\\u0061me": "A"}']
)
def test_a_repeated_field_of_a_body_is_400(world: World, body: bytes) -> None:
    """RFC 8259, 4: parsers disagree on which of the two counts."""
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
def test_deeply_nested_json_is_400(world: World, body: bytes) -> None:
    """Nesting that would overflow the stack is 400, not 500."""
    for browser, path in ((world.staff, "/api/patients"), (world.doctor, "/api/records")):
        assert browser.request("POST", path, content=body, headers=JSON).status_code == 400


def test_escaped_json_text_is_stored_unescaped(world: World) -> None:
    """Escapes, surrogate pairs and surrounding white space are ordinary JSON."""
    body = json.dumps(chart(name="Zoë 💉 ‮end")).encode()
    assert b"\\ud83d\\udc89" in body
    for sent in (body, json.dumps(json.loads(body), ensure_ascii=False).encode(), b" \n" + body + b"\t"):
        made = world.staff.request("POST", "/api/patients", content=sent, headers=JSON)
        assert (made.status_code, made.json()["name"]) == (201, "Zoë 💉 ‮end")


@pytest.mark.parametrize("path", ["/api/patients", "/api/auth/login"])
def test_an_empty_body_is_400(world: World, path: str) -> None:
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
def test_a_content_type_other_than_json_is_415(world: World, kind: str | None) -> None:
    """Browsers send a form or text/plain from any page without a preflight."""
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
def test_a_compressed_body_is_415(world: World, role: str, method: str, path: str, coding: str) -> None:
    """RFC 9110, 8.4: 415 says that the coding is not supported; 400 would say that the JSON is malformed."""
    headers = {**JSON, "content-encoding": coding}
    refused = world.people[Role(role)].request(method, path, content=b"{}", headers=headers)
    assert refused.status_code == 415
    assert refused.json() == {"detail": "Content-Encoding must be identity: send the body as it is"}


@pytest.mark.parametrize("coding", ["", "identity", "Identity", "identity, identity"])
def test_content_encoding_identity_is_accepted(world: World, coding: str) -> None:
    headers = {"content-encoding": coding}
    assert world.staff.post("/api/patients", chart(), headers=headers).status_code == 201


def test_a_second_content_encoding_is_415(service: Service, world: World) -> None:
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
def test_json_content_types_with_parameters_are_accepted(world: World, kind: str) -> None:
    body = json.dumps(chart()).encode()
    made = world.staff.request("POST", "/api/patients", content=body, headers={"content-type": kind})
    assert made.status_code == 201


def test_a_body_longer_than_256_kib_is_413(world: World) -> None:
    """The limit is exact to the byte, and the connection can be used for the next request."""
    body = b'{"name":"' + b"x" * (LIMIT - 11) + b'"}'
    assert len(body) == LIMIT
    at_the_limit = world.staff.request("POST", "/api/patients", content=body, headers=JSON)
    assert at_the_limit.status_code == 400
    for large in (body + b" ", LARGE, LARGE * 20):
        refused = world.staff.request("POST", "/api/patients", content=large, headers=JSON)
        assert (refused.status_code, refused.json()) == (413, TOO_LARGE)
        assert world.staff.get("/api/users/me").status_code == 200


def test_a_chunked_body_longer_than_256_kib_is_413(world: World) -> None:
    """A body without a length is counted as it arrives."""
    refused = world.staff.request("POST", "/api/patients", content=pieces(LARGE), headers=JSON)
    assert (refused.status_code, refused.json()) == (413, TOO_LARGE)
    made = world.staff.request(
        "POST", "/api/patients", content=pieces(json.dumps(chart()).encode()), headers=JSON
    )
    assert made.status_code == 201


def test_every_operation_that_takes_a_body_refuses_a_large_one(world: World, anonymous: Browser) -> None:
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


def test_get_and_delete_ignore_a_body(world: World) -> None:
    """Whatever its type and size."""
    assert world.staff.request("GET", "/api/patients", content=LARGE, headers=TEXT).status_code == 200
    path = f"/api/patients/{world.chart()['id']}/account"
    assert world.staff.request("DELETE", path, content=b"{", headers=TEXT).status_code == 200


def test_a_client_that_disconnects_mid_body_is_no_server_error(
    service: Service, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """After half a body: no 500 is logged, and the service goes on."""
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
