"""Conditional requests (RFC 9110, 13) wherever an answer has a validator: dashboards, which pages poll, and
the documents."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.contract import contract
from security.roles import Role
from tests.support.client import Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import World
from tests.support.openapi import operations, parameters, success
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

STATS = "/api/dashboard/stats"
DOCUMENTS = ["/openapi.yaml", "/openapi.json", "/docs", "/docs/reference.js", "/docs/reference.css"]
Ask = Callable[..., httpx.Response]


@pytest.fixture(params=[STATS, *DOCUMENTS])
def ask(request: pytest.FixtureRequest, world: World, service: Service) -> Ask:
    """Asks for something that has a validator, with these header lines."""
    cookie = ("Cookie", f"access_token={world.staff.cookies['access_token']}")

    def send(*lines: tuple[str, Any], method: str = "GET") -> httpx.Response:
        answer = httpx.request(method, service.url + request.param, headers=[cookie, *lines])
        if not request.param.startswith("/docs/"):
            CONTRACT.check(answer)
        return answer

    return send


# {tag} is the tag, {bare} what is between its quotes; several are several lines of the field.
HELD: list[tuple[str, ...]] = [
    ("{tag}",), ("W/{tag}",), ('"other", {tag}',), ('{tag},"other"',), ('"other",W/{tag} , "third"',), ("*",),
    ('"with,a,comma", {tag}',), ('"", {tag}',), (", ,{tag},,",), ('"W/", {tag}',),
    ('"*", {tag}',), ('"\xe9\xff", {tag}',), ('"other"', "{tag}"), ("{tag}", '"other"'), ("", "W/{tag}"),
]  # fmt: skip
NOT_HELD: list[tuple[str, ...]] = [
    ("",), ("{bare}",), ('"{bare}',), ('{bare}"',), ("w/{tag}",), ("W/ {tag}",), ("{tag} {tag}",),
    ("x{tag}",), ("{tag}x",), ('"x{bare}"',), ('"{bare}x"',), ("'{bare}'",), ("*, {tag}",), ("{tag}, *",),
    ('"a {bare}"',), ('"other"',), ('"other, {bare}"',), ("W/*",), (",",), ('"',), ("W/",), ('"' * 999,),
    ("**",), ("," * 9999,), ("*", "{tag}"), ('"{bare}", "unfinished',), ("\\{tag}",),
]  # fmt: skip


def lines(name: str, form: tuple[str, ...], tag: str) -> list[tuple[str, Any]]:
    filled = (line.replace("{tag}", tag).replace("{bare}", tag.strip('"')) for line in form)
    return [(name, line.encode("latin-1")) for line in filled]


def test_if_none_match_with_the_current_tag_is_304(ask: Ask) -> None:
    """13.1.2: a list, in one line or several, compares weakly; 15.4.5: 304, no content."""
    whole = ask()
    tag = whole.headers["etag"]
    assert tag.startswith('"')  # strong
    for form in HELD:
        for method in ("GET", "HEAD") if "ratelimit-limit" not in whole.headers else ("GET",):
            answer = ask(*lines("If-None-Match", form, tag), method=method)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), form
            assert not {"content-type", "content-length", "transfer-encoding"} & set(answer.headers), form
            for name in ("cache-control", "vary", "content-security-policy", "ratelimit-limit"):
                assert answer.headers.get(name) == whole.headers.get(name), (form, name)


def test_if_none_match_with_another_tag_or_malformed_is_200(ask: Ask) -> None:
    """A malformed list is ignored, and a part of a tag is another tag."""
    whole = ask()
    for form in NOT_HELD:
        answer = ask(*lines("If-None-Match", form, whole.headers["etag"]))
        assert (answer.status_code, answer.content) == (200, whole.content), form


def test_if_match_without_the_current_tag_is_412(ask: Ask) -> None:
    """13.1.1: it compares strongly; 13.2.2: it is evaluated before If-None-Match. A malformed one matches
    nothing."""
    tag = ask().headers["etag"]
    for form in HELD:
        expected = 412 if any("W/{tag}" in line for line in form) else 200
        assert ask(*lines("If-Match", form, tag)).status_code == expected, form
    for form in NOT_HELD:
        refused = ask(*lines("If-Match", form, tag), ("If-None-Match", tag))
        assert refused.status_code == 412, form
        assert refused.json() == {"detail": "If-Match: none of these is the ETag of what is here"}
    assert ask(("If-Match", tag), ("If-None-Match", tag)).status_code == 304
    assert ask(("If-Match", "*"), ("If-None-Match", '"other"')).status_code == 200


def tag_for(browser: Browser) -> str:
    answer = browser.get(STATS)
    assert answer.status_code == 200
    return str(answer.headers["etag"])


@pytest.mark.parametrize("role", Role)
def test_the_entity_tag_of_a_dashboard_changes_with_its_figures(
    world: World, backend: Backend, role: Role
) -> None:
    """While they stay the same, so does the tag, on every instance."""
    browser = world.people[role]
    patient = world.chart()
    world.link(patient["id"], world.patient)
    tag = tag_for(browser)
    with Service(backend, backend.settings()) as other:
        there = other.browser(browser.cookies).get(STATS, headers={"if-none-match": tag})
        assert there.status_code == 304
    world.appointment(patientId=patient["id"])
    if role is Role.DOCTOR:
        assert tag_for(browser) != tag
    answer = browser.get(STATS, headers={"if-none-match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag
    assert world.staff.delete(f"/api/patients/{patient['id']}/account").status_code == 200


def test_callers_with_equal_dashboards_have_unequal_entity_tags(world: World) -> None:
    """So that the tag does not tell a caller that their figures are another caller's."""
    first, other = (world.account(Role.DOCTOR)[0] for _ in range(2))
    assert first.get(STATS).json() == other.get(STATS).json()
    tags = {tag_for(first), tag_for(other)}
    assert len(tags) == 2
    for tag in tags - {tag_for(other)}:
        assert other.get(STATS, headers={"if-none-match": tag}).status_code == 200


def test_conditions_are_ignored_where_the_answer_is_an_error(world: World, anonymous: Browser) -> None:
    """13.2.1: where the answer would not be 2xx, the conditions are ignored."""
    for name in ("if-none-match", "if-match"):
        for value in ("*", '"other"'):
            assert anonymous.get(STATS, headers={name: value}).status_code == 401
            assert world.staff.get(f"{STATS}?page=1&page=2", headers={name: value}).status_code == 400
            assert anonymous.get("/docs/nothing", headers={name: value}).status_code == 404
    assert (
        world.staff.get("/api/doctors", headers={"if-none-match": "*"}).status_code == 200
    )  # has no validator


def test_listed_pages_may_read_the_entity_tag_and_a_304(world: World) -> None:
    origin = {"origin": "http://localhost:5173"}
    tag = world.staff.get(STATS, headers=origin).headers["etag"]
    answer = world.staff.get(STATS, headers={**origin, "if-none-match": tag})
    assert answer.status_code == 304
    assert answer.headers["access-control-allow-origin"] == origin["origin"]
    assert "ETag" in answer.headers["access-control-expose-headers"].split(", ")
    assert answer.headers["cache-control"] == "no-store"


def test_the_contract_declares_etag_if_none_match_304_and_412_together() -> None:
    """On each operation that reads and has one of them."""
    document = contract()
    conditional = set()
    for method, path, operation in operations(document):
        if method not in {"GET", "HEAD"}:
            continue
        marks = {
            "ETag" in success(document, operation)[1].get("headers", {}),
            any(parameter["name"] == "If-None-Match" for parameter in parameters(document, path, operation)),
            "304" in operation["responses"],
            "412" in operation["responses"],
        }
        assert len(marks) == 1, operation["operationId"]
        conditional |= {path} if marks == {True} else set()
    objects = {f"/api/{name}/{{id}}" for name in ("patients", "appointments", "records", "users")}
    objects |= {"/api/appointments/{id}/visit", "/api/doctors/{id}/hours"}
    others = {"/openapi.yaml", "/openapi.json", "/docs", "/api/users/me", "/api/calendars/{secret}.ics"}
    assert conditional == {STATS, *others, *objects}
