"""Errors that a form can use (contract, "Errors", "Values"): RFC 9457 for whoever asks for it by name, with
everything that is wrong at once; a field that is named, and a rule that speaks of nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract import contract
from api.http import violations
from api.http.problems import ErrorCode
from security.roles import Role
from tests.contract.test_fuzz import BOUNDED
from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import PASSWORD, World, chart, registration
from tests.support.service import Backend, Service
from tests.support.shapes import structs

ROOT = Path(__file__).parents[3]
PROBLEM = "application/problem+json"
ASKED = {"accept": PROBLEM}
JSON = {"content-type": "application/json"}
NOBODY = "00000000-0000-4000-8000-000000000000"
Places = list[tuple[str, str]]


def places(answer: httpx.Response) -> Places:
    """(pointer or parameter, code) of everything at fault."""
    assert answer.headers["content-type"] == PROBLEM
    return [
        (fault.get("pointer", fault.get("parameter")), fault["code"]) for fault in answer.json()["errors"]
    ]


# Which of the two


@pytest.mark.parametrize(
    "accept",
    [
        PROBLEM,
        "Application/Problem+JSON",
        f"{PROBLEM};q=0.001",
        f"{PROBLEM}, application/json",
        f"application/json, {PROBLEM}",
        f"application/json;q=0.5, {PROBLEM};q=0.5",
        f"application/json;q=0.5, {PROBLEM};Q=0.6",
        f"{PROBLEM};q=1.000 , */*;q=0.1",
        f"*/*, {PROBLEM}",
        f"text/html, {PROBLEM};q=0.1",
        f"*/*;q=0.9, application/*;q=0.1, {PROBLEM};q=0.2",
        f"application/json;q=0, {PROBLEM};q=0.1",
        f"{PROBLEM};charset=utf-8",
        f"{PROBLEM} ; profile=\"a,b;q=0\" ; q=0.7, application/json;q=0.6",
        f",, {PROBLEM},",
        f"{PROBLEM};",
        f"{PROBLEM};q=0.8;extension=1",
    ],
)  # fmt: skip
def test_who_names_it_gets_it(anonymous: Browser, accept: str) -> None:
    answer = anonymous.get("/api/users/me", headers={"accept": accept})
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Not authenticated",
        "code": "not_signed_in",
        "errors": [],
    }


@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "application/*", "application/json", "text/html",
        "application/json, text/plain, */*",
        "application/*, */*;q=0.1", "application/*+json", "application/problem+xml", "application/problem",
        f"{PROBLEM};q=0", f"{PROBLEM};q=0.000, */*", f"{PROBLEM};q=0.4, application/json;q=0.5",
        f"{PROBLEM};q=0.4, */*", f"{PROBLEM};q=0.4, application/*;q=0.5, */*;q=0.1",
        # Not well formed: it asks for nothing.
        f"{PROBLEM};q=2", f"{PROBLEM};q=", f"{PROBLEM};q=0.1234", f"{PROBLEM};q=-1", f"{PROBLEM};q=1;q=1",
        f"{PROBLEM} q=1", f"{PROBLEM}, text", f"{PROBLEM}, /", f'{PROBLEM};a="', f"{PROBLEM}, text/html;=1",
        f'"{PROBLEM}"', f"{PROBLEM}/json", f"{PROBLEM}; q = 1", f"{PROBLEM}, te(xt/html",
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
    ],
)  # fmt: skip
def test_who_does_not_gets_the_default(anonymous: Browser, accept: str | None) -> None:
    headers = {} if accept is None else {"accept": accept}
    answer = anonymous.get("/api/users/me", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"detail": "Not authenticated"}


def test_several_accepts_are_one_list(service: Service) -> None:
    for lines, media_type in [
        (["Accept: text/html", f"Accept: {PROBLEM}"], PROBLEM),
        ([f"Accept: {PROBLEM};q=0.1", "Accept: application/json;q=0.2"], "application/json"),
        ([f"Accept: {PROBLEM}", "Accept: oops"], "application/json"),
    ]:
        head = "\r\n".join(["GET /api/users/me HTTP/1.1", "Host: x", *lines, "Connection: close", "", ""])
        answer = service.raw(head.encode()).decode().lower()
        assert f"content-type: {media_type}\r\n" in answer


@BOUNDED
@given(
    accept=st.lists(
        st.sampled_from([*'aq=;,/"\\*. 019+-\t', PROBLEM, "application/json", ";q="]), max_size=40
    ).map("".join)
)
def test_any_accept_is_answered(anonymous: Browser, accept: str) -> None:
    assert anonymous.get("/api/users/me", headers={"accept": accept.strip(" \t")}).status_code == 401


def test_a_long_accept_takes_no_time(anonymous: Browser) -> None:
    """Nothing in the reading of it grows faster than its length, or the client gives up waiting."""
    for piece in ("; ", ';a="\\', ", ", "a/b;", f"{PROBLEM};q=0.1,", ' ;a="b"', "; ;\t"):
        accept = (piece * 20_000)[:40_000].strip() + "!"
        answer = anonymous.get("/api/users/me", headers={"accept": accept})
        assert answer.status_code in {400, 401}


def test_only_errors_are_affected(world: World) -> None:
    for method, path, status in [("GET", "/api/patients", 200), ("OPTIONS", "/api/patients", 204)]:
        answer = world.staff.request(method, path, headers=ASKED)
        assert answer.status_code == status
        assert answer.headers.get("content-type") in {"application/json", None}
        assert answer.headers["vary"] == "Origin"


# From every layer


def test_every_layer_answers_so(world: World, anonymous: Browser) -> None:
    """Whoever refuses: the edge, the router, a guard, the body's reader, a resource."""
    large, foreign = b'"' + b"x" * 300_000 + b'"', {"origin": "https://evil.example"}
    preflight = {**foreign, "access-control-request-method": "GET"}
    for browser, method, path, options, status, title, code in [
        (anonymous, "GET", "/nothing", {}, 404, "Not Found", "not_found"),
        (anonymous, "GET", "/api//users", {}, 404, "Not Found", "not_found"),
        (anonymous, "GET", "/docs/nothing.js", {}, 404, "Not Found", "not_found"),
        (anonymous, "DELETE", "/api/patients", {}, 405, "Method Not Allowed", "method_not_allowed"),
        (
            anonymous, "OPTIONS", "/api/patients", {"headers": preflight},
            400, "Bad Request", "origin_not_allowed",
        ),
        (
            world.staff, "POST", "/api/auth/logout", {"headers": foreign},
            403, "Forbidden", "origin_not_allowed",
        ),
        (anonymous, "GET", "/api/patients", {}, 401, "Unauthorized", "not_signed_in"),
        (anonymous, "POST", "/api/auth/refresh", {}, 401, "Unauthorized", "not_signed_in"),
        (world.patient, "POST", "/api/patients", {"json": chart()}, 403, "Forbidden", "role_not_allowed"),
        (
            world.staff, "POST", "/api/patients", {"content": "x", "headers": {"content-type": "text/plain"}},
            415, "Unsupported Media Type", "unsupported_media_type",
        ),
        (
            world.staff, "POST", "/api/patients", {"content": large, "headers": JSON},
            413, "Content Too Large", "body_too_large",
        ),
        (world.staff, "GET", f"/api/patients/{NOBODY}", {}, 404, "Not Found", "not_found"),
        (world.staff, "GET", "/health/live?x&x", {}, 400, "Bad Request", "repeated"),
    ]:  # fmt: skip
        headers = {**options.get("headers", {}), **ASKED}
        answer = browser.request(method, path, **{**options, "headers": headers})
        body = answer.json()
        assert (answer.status_code, body["status"], body["title"], body["code"]) == (
            status,
            status,
            title,
            code,
        )
        assert answer.headers["content-type"] == PROBLEM
        plain = browser.request(method, path, **options)
        assert plain.json() == {"detail": body["detail"]}
        assert set(plain.headers) == set(answer.headers)
        assert plain.headers["vary"] == answer.headers["vary"] == "Origin, Accept"


def test_limits_outages_and_failures_too(world: World, backend: Backend) -> None:
    with Service(backend, backend.settings(rate_limit_per_minute=1, login_attempts=1)) as strict:
        browser = strict.browser(world.other_doctor.cookies)
        browser.get("/api/users/me")
        limited = browser.get("/api/users/me", headers=ASKED)
        assert (limited.status_code, limited.json()["code"]) == (429, "too_many_requests")
        assert int(limited.headers["retry-after"]) >= 1
        body = {"email": "nobody@example.com", "password": "x"}
        wrong = strict.browser().post("/api/auth/login", body, headers=ASKED)
        assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_credentials")
        locked = strict.browser().post("/api/auth/login", body, headers=ASKED)
        assert (locked.status_code, locked.json()["code"]) == (429, "too_many_failed_attempts")
    with Service(backend, backend.settings(redis_url="redis://localhost:1")) as alone:
        away = alone.browser().post("/api/auth/login", body, headers=ASKED)
        assert (away.status_code, away.json()["code"]) == (503, "unavailable")
        assert away.json()["title"] == "Service Unavailable"


def test_a_failure_of_ours(backend: Backend, world: World) -> None:
    backend.sql("ALTER TABLE medical_records RENAME TO elsewhere")
    try:
        answer = world.doctor.get("/api/records", headers=ASKED)
    finally:
        backend.sql("ALTER TABLE elsewhere RENAME TO medical_records")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["detail"] == "Internal server error"


def test_the_parser_knows_no_accept(service: Service) -> None:
    answer = service.raw(f"BREW / HTTP/1.1\r\nHost: x\r\nAccept: {PROBLEM}\r\n\r\n".encode())
    assert b"content-type: application/json\r\n" in answer
    assert answer.endswith(b'{"detail":"Invalid HTTP request"}')


# Everything at once


def test_all_fields_at_fault_at_once(anonymous: Browser) -> None:
    """In the order of the fields, the unknown ones last; the default body has the first."""
    body = {
        "confirmPassword": "x", "<b>": 1, "phone": 5, "email": "nobody", "name": " ", "password": "short",
        "specialization": "x" * 121,
    }  # fmt: skip
    answer = anonymous.post("/api/auth/register", body, headers=ASKED)
    assert answer.status_code == 400
    assert places(answer) == [
        ("/name", "required"),
        ("/email", "bad_format"),
        ("/password", "too_short"),
        ("/role", "required"),
        ("/phone", "invalid_type"),
        ("/specialization", "too_long"),
        ("/confirmPassword", "unknown_field"),
        ("", "unknown_field"),
    ]
    problem = answer.json()
    assert (problem["detail"], problem["code"]) == ("name: is required", "required")
    assert problem["errors"][1] == {
        "pointer": "/email",
        "code": "bad_format",
        "detail": "must be an e-mail address",
    }
    assert anonymous.post("/api/auth/register", body).json() == {"detail": "name: is required"}


def test_our_own_rules_are_told_with_the_schemas(world: World, anonymous: Browser) -> None:
    """Whatever needs no look at what is stored: one field may break a schema, another a rule of ours."""
    for browser, method, path, body, expected in [
        (
            anonymous, "POST", "/api/auth/register",
            registration(Role.PATIENT, name="", password="€" * 25, specialization="x", department="y"),
            [
                ("/name", "required"), ("/password", "too_long"),
                ("/specialization", "not_of_this_role"), ("/department", "not_of_this_role"),
            ],
        ),
        (
            anonymous, "POST", "/api/auth/register",
            {**registration(), "email": "İ" * 200 + "@b.c", "role": "nurse", "specialization": "x"},
            [("/email", "too_long"), ("/role", "not_allowed_value")],
        ),
        (
            world.staff, "PATCH", "/api/users/me", {"specialization": "Surgery", "name": None, "x": 1},
            [("/name", "required"), ("/specialization", "not_of_this_role"), ("/x", "unknown_field")],
        ),
        (
            world.patient, "POST", "/api/users/me/password", {"currentPassword": 5, "newPassword": "é" * 37},
            [("/currentPassword", "invalid_type"), ("/newPassword", "too_long")],
        ),
        (
            world.staff, "POST", "/api/patients", chart(phone=" ", dateOfBirth="2999-01-01", gender="x"),
            [("/phone", "required"), ("/dateOfBirth", "in_the_future"), ("/gender", "not_allowed_value")],
        ),
        (
            world.staff, "PATCH", f"/api/patients/{NOBODY}", {"dateOfBirth": "2999-01-01", "address": ""},
            [("/dateOfBirth", "in_the_future"), ("/address", "required")],
        ),
        (
            world.staff, "POST", "/api/appointments",
            {"patientId": "x", "doctorId": NOBODY, "date": "1899-01-01T00:00:00Z", "reason": "\n"},
            [("/patientId", "bad_format"), ("/date", "out_of_range"), ("/reason", "required")],
        ),
        (
            world.admin, "GET", "/api/audit?from=0001-01-01T00:00:00%2B14:00&action=x&limit=", None,
            [("from", "out_of_range"), ("action", "not_allowed_value"), ("limit", "invalid_type")],
        ),
    ]:  # fmt: skip
        options = {} if body is None else {"json": body}
        answer = browser.request(method, path, headers=ASKED, **options)
        assert (answer.status_code, places(answer)) == (400, expected)
        assert browser.request(method, path, **options).json() == {"detail": answer.json()["detail"]}


def test_pointers_into_a_list(world: World) -> None:
    attachments = ["1.pdf", "", 5, "javascript:x", "a\u0000", "2.pdf", "x" * 2049]
    body = {
        "patientId": NOBODY,
        "diagnosis": "x",
        "prescription": "",
        "notes": "",
        "attachments": attachments,
    }
    answer = world.doctor.post("/api/records", body, headers=ASKED)
    assert places(answer) == [
        ("/attachments/1", "too_short"),
        ("/attachments/2", "invalid_type"),
        ("/attachments/3", "bad_format"),
        ("/attachments/4", "bad_characters"),
        ("/attachments/6", "too_long"),
    ]
    assert answer.json()["detail"].startswith("attachments[1]: must be text of 1 to 2048 characters")
    many = world.doctor.post("/api/records", {**body, "attachments": ["x:y"] * 21}, headers=ASKED)
    assert places(many) == [("/attachments", "too_many_items")]


def test_no_more_than_a_hundred(world: World) -> None:
    body = chart(**{f"unknown{number}": number for number in range(500)})
    answer = world.staff.post("/api/patients", body, headers=ASKED)
    assert len(places(answer)) == 100


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "required"),
        (b"{", "malformed_json"),
        (b'{"name": 5, ', "malformed_json"),
        (b'{"name": "\xff"}', "malformed_json"),
        (b"[]", "invalid_type"),
        (b"null", "invalid_type"),
        (b'{"name": "a", "name": "b"}', "repeated"),
        (b"[" * 100_000, "malformed_json"),
        (b"1" * 5_000, "malformed_json"),
    ],
)
def test_the_body_as_a_whole(world: World, content: bytes, code: str) -> None:
    answer = world.staff.request("POST", "/api/patients", content=content, headers={**JSON, **ASKED})
    assert answer.status_code == 400
    assert places(answer) == [("", code)]
    assert answer.json()["detail"] == f"body: {answer.json()['errors'][0]['detail']}"


def test_a_number_of_thousands_of_digits(world: World) -> None:
    content = b'{"name": ' + b"1" * 5_000 + b"}"
    for headers in (JSON, {**JSON, **ASKED}):
        assert (
            world.staff.request("POST", "/api/patients", content=content, headers=headers).status_code == 400
        )


# What is required


def required_texts() -> list[Any]:
    """Every text of a body that must be there and not be empty: (operationId, schema, field, its rules)."""
    found = []
    for path, item in contract()["paths"].items():
        for method, operation in item.items():
            if not isinstance(operation, dict) or "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            schema = contract()["components"]["schemas"][name]
            for field in schema.get("required", ()):
                found.append(pytest.param(method, path, operation, field, id=f"{name}-{field}"))
    return found


MAY_BE_EMPTY = {
    "prescription",
    "notes",
    "password",
    "currentPassword",
}  # the last two at login, where it is 401


@pytest.mark.parametrize(("method", "path", "operation", "field"), required_texts())
def test_a_required_field_that_is_missing(
    world: World, method: str, path: str, operation: dict[str, Any], field: str
) -> None:
    """Not there, null, empty or blank: a form's empty field is all of these."""
    role = Role(operation.get("x-roles", ["admin"])[0])
    target = path.replace("{id}", NOBODY)
    values: list[Any] = [None]
    if field not in MAY_BE_EMPTY:
        values += [""] if field == "newPassword" else ["", " ", "\t\r\n", "\u2003\u00a0", "\ufeff"]
    for body in ({}, *({field: value} for value in values)):
        refused = world.people[role].request(method.upper(), target, json=body, headers=ASKED)
        assert refused.status_code == 400
        assert (f"/{field}", "required") in places(refused), body
        [fault] = [fault for fault in refused.json()["errors"] if fault["pointer"] == f"/{field}"]
        assert fault["detail"] == "is required"


@pytest.mark.parametrize("value", ["", "  ", "\u2003", None])
@pytest.mark.parametrize("field", ["name", "email", "phone", "address"])
def test_nor_can_a_required_text_be_taken_away(world: World, field: str, value: Any) -> None:
    refused = world.staff.patch(f"/api/patients/{NOBODY}", {field: value})
    assert (refused.status_code, refused.json()) == (400, {"detail": f"{field}: is required"})


# What a rule speaks of


def test_a_rule_speaks_of_what_is_wrong(world: World) -> None:
    for field, value, detail, code in [
        ("name", "x" * 201, "must be text of 1 to 200 characters", "too_long"),
        ("name", "a\u0000", "must not contain NUL characters", "bad_characters"),
        ("name", "\u0000", "must not contain NUL characters", "bad_characters"),
        ("name", 5, "must be text of 1 to 200 characters", "invalid_type"),
        ("email", "x", "must be an e-mail address", "bad_format"),
        ("email", "a b@c", "must be an e-mail address", "bad_format"),
        ("email", f"{'x' * 260}@y", "must be text of 3 to 254 characters", "too_long"),
        ("email", "a\u0000@b", "must not contain NUL characters", "bad_characters"),
        ("dateOfBirth", "1980-02-30", "must be a date, YYYY-MM-DD", "bad_format"),
        ("gender", "unknown", "must be one of male, female, other", "not_allowed_value"),
        ("gender", ["male"], "must be one of male, female, other", "invalid_type"),
        ("allergies", "x" * 5001, "must be null or text of at most 5000 characters", "too_long"),
        ("allergies", "\u0000", "must not contain NUL characters", "bad_characters"),
    ]:
        answer = world.staff.post("/api/patients", chart(**{field: value}), headers=ASKED)
        assert answer.json()["errors"] == [{"pointer": f"/{field}", "code": code, "detail": detail}]
        assert answer.json()["detail"] == f"{field}: {detail}"


def test_no_rule_mentions_what_is_not_wrong() -> None:
    """Nowhere in the contract's examples, either."""
    shown = json.dumps(contract()["components"]["responses"])
    assert not re.search(r"NUL|leap second", shown)


def test_a_duplicate(world: World, anonymous: Browser) -> None:
    body = registration(Role.PATIENT, email=world.patient.me()["email"].upper())
    assert anonymous.post("/api/auth/register", body).json() == {"detail": "email: is already registered"}
    answer = anonymous.post("/api/auth/register", body, headers=ASKED)
    assert answer.json()["errors"] == [
        {"pointer": "/email", "code": "duplicate", "detail": "is already registered"}
    ]


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status", "expected"),
    [
        ("staff", "POST", "/api/appointments", {"patientId": NOBODY}, 404, [("/patientId", "not_found")]),
        ("staff", "POST", "/api/appointments", {"doctorId": NOBODY}, 404, [("/doctorId", "not_found")]),
        (
            "doctor", "POST", "/api/appointments", {"doctorId": NOBODY},
            403, [("/doctorId", "role_not_allowed")],
        ),
        ("doctor", "POST", "/api/records", {"patientId": NOBODY}, 404, [("/patientId", "not_found")]),
        ("patient", "POST", "/api/users/me/password", {}, 400, [("/currentPassword", "wrong_password")]),
    ],
)  # fmt: skip
def test_rules_that_look_at_what_is_stored(
    world: World, who: str, method: str, path: str, body: dict[str, Any], status: int, expected: Places
) -> None:
    """They name the field too, whatever the status."""
    whole: dict[str, Any] = {
        "/api/appointments": lambda: {
            "patientId": world.chart()["id"], "doctorId": world.doctor.me()["id"], "date": world.slot(),
            "reason": "x",
        },
        "/api/records": lambda: {"diagnosis": "x", "prescription": "", "notes": ""},
        "/api/users/me/password": lambda: {"currentPassword": "wrong", "newPassword": "correct horse 2"},
    }[path]()  # fmt: skip
    answer = world.people[who].request(method, path, json={**whole, **body}, headers=ASKED)
    assert (answer.status_code, places(answer)) == (status, expected)


def test_the_doctor_or_the_patient_is_busy(world: World) -> None:
    """A page may offer the doctor's next free hour, or tell the patient."""
    booked = world.appointment()
    again = {"date": booked["date"], "reason": "x", "patientId": world.chart()["id"]}
    doctor = world.staff.post("/api/appointments", {**again, "doctorId": booked["doctorId"]}, headers=ASKED)
    assert (doctor.status_code, places(doctor)) == (400, [("/date", "slot_taken_doctor")])
    again |= {"patientId": booked["patientId"], "doctorId": world.other_doctor.me()["id"]}
    patient = world.staff.post("/api/appointments", again, headers=ASKED)
    assert (patient.status_code, places(patient)) == (400, [("/date", "slot_taken_patient")])
    assert patient.json()["detail"] == "date: the patient has another appointment at that time"


def test_what_a_role_may_not_set(world: World) -> None:
    """Every such field at once, with who may; nothing is told of a field that it may set."""
    some = world.chart()
    body = {"phone": "0", "allergies": "Latex", "name": "X"}
    answer = world.doctor.patch(f"/api/patients/{some['id']}", body, headers=ASKED)
    assert places(answer) == [("/name", "role_not_allowed"), ("/phone", "role_not_allowed")]
    assert {fault["detail"] for fault in answer.json()["errors"]} == {"only admin and staff may change it"}
    visitor, own = world.linked_patient()
    visit = world.appointment(patientId=own["id"])
    for change, field in (({"notes": "x"}, "/notes"), ({"status": "completed"}, "/status")):
        refused = visitor.patch(f"/api/appointments/{visit['id']}", change, headers=ASKED)
        assert (refused.status_code, places(refused)) == (403, [(field, "role_not_allowed")])
        assert named(refused.json()["detail"]) == {"admin", "doctor", "staff"}


def test_an_account_that_may_not_sign_in(world: World, anonymous: Browser) -> None:
    """A page tells the two apart without reading English."""
    body = registration(Role.DOCTOR)
    assert anonymous.post("/api/auth/register", body).status_code == 201
    credentials = {"email": body["email"], "password": body["password"]}
    pending = anonymous.post("/api/auth/login", credentials, headers=ASKED)
    assert (pending.status_code, pending.json()["code"]) == (403, "account_pending")
    _, me = world.account()
    assert world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"}).status_code == 200
    credentials = {"email": me["email"], "password": PASSWORD}
    disabled = anonymous.post("/api/auth/login", credentials, headers=ASKED)
    assert (disabled.status_code, disabled.json()["code"]) == (403, "account_disabled")


# The walk and the decoder agree


SCHEMAS = [
    (method.upper(), path, body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1])
    for path, methods in contract()["paths"].items()
    for method, operation in methods.items()
    if isinstance(operation, dict) and (body := operation.get("requestBody"))
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.sampled_from([
        NOBODY, "1980-05-17", "1980-02-30", "0000-01-01", "2042-05-14T09:30:00Z", "2042-05-14T09:30:60Z",
        "a@b.c", "admin", "male", "active", "scheduled", "x" * 201, "x" * 300, "secret1", "\u2003", "\ufeff",
    ]),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path", "name"), SCHEMAS)
@BOUNDED
@given(data=st.data())
def test_whatever_is_refused_is_said_why(method: str, path: str, name: str, data: st.DataObject) -> None:
    """What the schema in the contract refuses has a reason, and what it takes has none."""
    fields = contract()["components"]["schemas"][name]["properties"]
    body = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*fields, "other"], VALUES)))
    faults = violations.body_faults(structs()[name], body)
    try:
        msgspec.json.decode(json.dumps(body), type=structs()[name])
    except msgspec.ValidationError:
        assert faults, body
    if faults:
        assert not CONTRACT.validator(f"/components/schemas/{name}").is_valid(body), (body, faults)


# The closed set


def test_every_code_is_used_and_every_use_is_of_the_set() -> None:
    """So that the contract's list is neither too long nor too short."""
    source = (
        "".join(file.read_text() for file in (ROOT / "api").rglob("*.py") if file.name != "problems.py")
        + (ROOT / "api/http/problems.py").read_text().partition("BY_STATUS")[2]
    )
    used = set(re.findall(r"ErrorCode\.([A-Z_]+)", source))
    assert used == {code.name for code in ErrorCode}


def test_role_refusals_say_which_roles_may(world: World) -> None:
    """Contract, "In what order a request is judged": role 403, "a detail that says which roles may"."""
    for path, item in contract()["paths"].items():
        for method, operation in item.items():
            roles = operation.get("x-roles") if isinstance(operation, dict) else None
            for role in set(Role) - set(roles or Role):
                target = path.replace("{id}", NOBODY)
                answer = world.people[role].request(method.upper(), target, headers=ASKED)
                assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed")
                assert named(answer.json()["detail"]) == set(roles), answer.text


def named(detail: str) -> set[str]:
    return set(re.findall(r"\b(?:admin|doctor|staff|patient)\b", detail))
