"""How an error is encoded (contract, "Errors"): `{"detail"}` by default, RFC 9457 for those who ask for
it."""

import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.errors import classify
from api.http.problems import ErrorCode
from tests.api.http.helpers import ASKED, JSON, NOBODY, PROBLEM
from tests.contract.test_fuzz import BOUNDED
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.service import Backend, Service

ROOT = Path(__file__).parents[3]


# Which of the two


@pytest.mark.slow
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
def test_accept_that_names_problem_json_gets_problem_details(anonymous: Browser, accept: str) -> None:
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
def test_any_other_accept_gets_the_default_error(anonymous: Browser, accept: str | None) -> None:
    headers = {} if accept is None else {"accept": accept}
    answer = anonymous.get("/api/users/me", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"detail": "Not authenticated"}


def test_several_accept_headers_are_one_list(service: Service) -> None:
    for lines, media_type in [
        (["Accept: text/html", f"Accept: {PROBLEM}"], PROBLEM),
        ([f"Accept: {PROBLEM};q=0.1", "Accept: application/json;q=0.2"], "application/json"),
        ([f"Accept: {PROBLEM}", "Accept: oops"], "application/json"),
    ]:
        head = "\r\n".join(["GET /api/users/me HTTP/1.1", "Host: x", *lines, "Connection: close", "", ""])
        answer = service.raw(head.encode()).decode().lower()
        assert f"content-type: {media_type}\r\n" in answer


@pytest.mark.slow
@BOUNDED
@given(
    accept=st.lists(
        st.sampled_from([*'aq=;,/"\\*. 019+-\t', PROBLEM, "application/json", ";q="]), max_size=40
    ).map("".join)
)
def test_any_accept_header_is_answered(anonymous: Browser, accept: str) -> None:
    assert anonymous.get("/api/users/me", headers={"accept": accept.strip(" \t")}).status_code == 401


def test_a_long_accept_header_is_read_in_linear_time(anonymous: Browser) -> None:
    """Otherwise the client of this test times out."""
    for piece in ("; ", ';a="\\', ", ", "a/b;", f"{PROBLEM};q=0.1,", ' ;a="b"', "; ;\t"):
        accept = (piece * 20_000)[:40_000].strip() + "!"
        answer = anonymous.get("/api/users/me", headers={"accept": accept})
        assert answer.status_code in {400, 401}


def test_accept_of_problem_json_changes_no_success(world: World) -> None:
    for method, path, status in [("GET", "/api/patients", 200), ("OPTIONS", "/api/patients", 204)]:
        answer = world.staff.request(method, path, headers=ASKED)
        assert answer.status_code == status
        assert answer.headers.get("content-type") in {"application/json", None}
        assert answer.headers["vary"] == "Origin"


# From every layer


def refusals(
    world: World, anonymous: Browser
) -> list[tuple[Browser, str, str, dict[str, Any], int, str, str]]:
    """(caller, method, path, options, status, title, code) of one refusal by each layer."""
    large, foreign = b'"' + b"x" * 300_000 + b'"', {"origin": "https://evil.example"}
    preflight = {**foreign, "access-control-request-method": "GET"}
    return [
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
    ]  # fmt: skip


def test_every_layer_answers_with_problem_details(world: World, anonymous: Browser) -> None:
    """The outermost middleware, the router, a guard, the reading of the body, a resource."""
    for browser, method, path, options, status, title, code in refusals(world, anonymous):
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


@pytest.mark.slow
def test_limits_and_outages_answer_with_problem_details(world: World, backend: Backend) -> None:
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
    with Service(backend, backend.settings(database_url="postgresql://localhost:1/nowhere")) as alone:
        away = alone.browser().post("/api/auth/login", body, headers=ASKED)
        assert (away.status_code, away.json()["code"]) == (503, "unavailable")
        assert away.json()["title"] == "Service Unavailable"


def test_a_server_error_answers_with_problem_details(backend: Backend, world: World) -> None:
    backend.sql("ALTER TABLE medical_records RENAME TO elsewhere")
    try:
        answer = world.doctor.get("/api/records", headers=ASKED)
    finally:
        backend.sql("ALTER TABLE elsewhere RENAME TO medical_records")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["detail"] == "Internal server error"


def test_the_http_parser_answers_with_the_default_error(service: Service) -> None:
    answer = service.raw(f"BREW / HTTP/1.1\r\nHost: x\r\nAccept: {PROBLEM}\r\n\r\n".encode())
    assert b"content-type: application/json\r\n" in answer
    assert answer.endswith(b'{"detail":"Invalid HTTP request"}')


# The closed set


def test_the_error_codes_of_contract_and_code_are_the_same() -> None:
    """So the contract's list is complete, and no code in it is unused."""
    source = (
        "".join(file.read_text() for file in (ROOT / "api").rglob("*.py") if file.name != "problems.py")
        + (ROOT / "api/http/problems.py").read_text().partition("BY_STATUS")[2]
    )
    used = set(re.findall(r"ErrorCode\.([A-Z_]+)", source))
    assert used == {code.name for code in ErrorCode}


def test_a_value_that_only_postgresql_refuses_is_400_and_logged_without_the_value(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Our own checks know no such value today."""
    with pytest.raises(asyncpg.CharacterNotInRepertoireError) as refused:
        backend.sql("SELECT $1::text", "Ann\0Smith")
    described = classify(refused.value)
    assert (described.status, described.detail) == (400, "A value in the request cannot be stored")
    assert "CharacterNotInRepertoireError" in caplog.text
    assert "Ann" not in caplog.text
