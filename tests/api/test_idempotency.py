"""Idempotency-Key: whatever a client repeats with the same key is done once (contract, "Repeating a
request")."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.contract import contract
from security.roles import Role
from tests.support.audit_trail import new
from tests.support.client import HTTP_CLIENT, PROBLEM, Browser
from tests.support.conformance import CONTRACT
from tests.support.factories import World, chart, registration
from tests.support.idempotency import CREATIONS, Creation, claims, is_repeat, key, new_version, with_key
from tests.support.openapi import operations, parameters
from tests.support.service import Backend, Service

USED = {"detail": "Idempotency-Key: was used for another request"}
AT_ONCE = 50


@pytest.fixture(params=CREATIONS, ids=lambda make: str(make.__name__))
def creation(request: pytest.FixtureRequest, world: World) -> Creation:
    made: Creation = request.param(world)
    return made


def send_lines(browser: Browser, body: dict[str, Any], *values: str) -> httpx.Response:
    """With a line of the header field for each value; an error as problem details."""
    lines = [(b"idempotency-key", value.encode()) for value in values]
    cookie = (b"cookie", f"access_token={browser.cookies['access_token']}".encode())
    headers = [*lines, cookie, (b"accept", b"application/problem+json")]
    answer = HTTP_CLIENT.post(f"{browser.base_url}/api/patients", json=body, headers=headers)
    CONTRACT.check(answer)
    return answer


def test_the_same_request_with_the_same_key_makes_one_row(creation: Creation) -> None:
    """contract: "the first status and the row as it is now"."""
    before, sent = creation.rows(), key()
    first, again, once_more = (creation.send(sent) for _ in range(3))
    assert [answer.status_code for answer in (first, again, once_more)] == [201] * 3, first.text
    assert first.json() == again.json() == once_more.json()
    assert [is_repeat(answer) for answer in (first, again, once_more)] == [False, True, True]
    assert creation.rows() == before + 1


def test_every_operation_that_makes_a_row_takes_a_key(world: World) -> None:
    """But a retraction, of which a record has one at most, and a feed, which is shown once: another one takes
    its place."""
    document, makes, takes = contract(), set(), set()
    for _, path, operation in operations(document):
        makes |= {path} if "201" in operation["responses"] else set()
        names = {parameter["name"] for parameter in parameters(document, path, operation)}
        takes |= {path} if "Idempotency-Key" in names else set()
    assert makes - takes == {"/api/records/{id}/retraction", "/api/users/me/calendar"}
    assert takes <= makes
    tried = {re.sub("[0-9a-f-]{36}", "{id}", make(world).path) for make in CREATIONS}
    assert tried == takes


def test_listed_pages_may_read_that_it_is_a_repeat(world: World) -> None:
    headers = {**with_key(key()), "origin": "http://localhost:5173"}
    body = chart()
    answers = [world.staff.post("/api/patients", body, headers=headers) for _ in range(2)]
    assert is_repeat(answers[1])
    assert "Idempotency-Replayed" in answers[1].headers["access-control-expose-headers"].split(", ")


def test_without_a_key_each_request_is_another(world: World, backend: Backend) -> None:
    before = claims(backend)
    body = chart()
    made = [world.staff.post("/api/patients", body) for _ in range(2)]
    assert made[0].json()["id"] != made[1].json()["id"]
    assert not any(map(is_repeat, made))
    assert claims(backend) == before


@pytest.mark.slow
def test_fifty_at_once_make_one_row_and_get_equal_answers(
    creation: Creation, service: Service, second_instance: Service
) -> None:
    before, sent = creation.rows(), key()
    both = [Browser(each.url, dict(creation.browser.cookies)) for each in (service, second_instance)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda n: creation.send(sent, both[n % 2]), range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {201}, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    assert [is_repeat(answer) for answer in answers].count(False) == 1
    assert creation.rows() == before + 1


def test_equal_json_is_the_same_request_however_it_is_written(world: World) -> None:
    sent, body = with_key(key()), chart(name="Zoë Ångström")
    first = world.staff.post("/api/patients", body, headers=sent)
    other = json.dumps(dict(reversed(body.items())), indent=3).encode()
    headers = {**sent, "content-type": "application/json; charset=utf-8"}
    again = world.staff.post("/api/patients", content=other, headers=headers)
    assert again.json() == first.json()
    assert is_repeat(again)


@pytest.mark.parametrize("change", [{"phone": "+1 555 0199"}, {"allergies": None}])
def test_another_body_with_the_key_is_400(world: World, change: dict[str, Any]) -> None:
    sent, body = with_key(key()), chart()
    assert world.staff.post("/api/patients", body, headers=sent).status_code == 201
    refused = world.staff.post("/api/patients", {**body, **change}, headers=sent)
    assert (refused.status_code, refused.json()) == (400, USED)
    assert not is_repeat(refused)


def test_another_path_with_the_key_is_400_and_the_code_says_so(world: World) -> None:
    sent = with_key(key())
    booking = {"patientId": world.chart()["id"], "doctorId": world.doctor.me()["id"], "reason": "Check-up"}
    assert world.staff.post("/api/patients", chart(), headers=sent).status_code == 201
    body = {**booking, "date": world.slot()}
    refused = world.staff.post("/api/appointments", body, headers={**sent, **PROBLEM})
    assert refused.status_code == 400
    assert refused.json()["errors"] == [
        {
            "parameter": "Idempotency-Key",
            "code": "idempotency_key_used",
            "detail": "was used for another request",
        }
    ]


def test_a_key_belongs_to_its_user(world: World) -> None:
    sent, body = with_key(key()), chart()
    made = [each.post("/api/patients", body, headers=sent) for each in (world.staff, world.admin)]
    assert made[0].json()["id"] != made[1].json()["id"]
    assert not any(map(is_repeat, made))


def test_the_answer_is_the_row_as_it_is_now(world: World) -> None:
    sent, body = with_key(key()), chart()
    made = world.staff.post("/api/patients", body, headers=sent).json()
    assert world.doctor.patch(f"/api/patients/{made['id']}", {"allergies": "Penicillin"}).status_code == 200
    again = world.staff.post("/api/patients", body, headers=sent)
    assert (again.status_code, again.json()) == (201, {**made, "allergies": "Penicillin"})


def test_what_the_caller_may_no_longer_read_is_404(world: World, backend: Backend, since: int) -> None:
    patient, linked = world.linked_patient()
    body = {"patientId": linked["id"], "doctorId": world.doctor.me()["id"], "reason": "Check-up"}
    sent, body = with_key(key()), {**body, "date": world.slot()}
    made = patient.post("/api/appointments", body, headers=sent).json()
    assert world.staff.delete(f"/api/patients/{linked['id']}/account").status_code == 200
    refused = patient.post("/api/appointments", body, headers=sent)
    assert (refused.status_code, refused.json()) == (404, {"detail": "Appointment not found"})
    link = {"userId": patient.me()["id"]}
    assert world.admin.put(f"/api/patients/{linked['id']}/account", link).status_code == 200
    assert patient.post("/api/appointments", body, headers=sent).json() == made
    refusals = [row["outcome"] for row in new(backend, since, "appointment.create")]
    assert refusals == ["success", "refused"]


def test_an_account_that_was_changed_is_shown_again_to_those_who_may_read_it(world: World) -> None:
    """contract: "is shown again to those alone who may read it"."""
    patient, _ = world.account()
    found = {}
    for name, browser in {"admin": world.admin, "staff": world.staff, "patient": patient}.items():
        for role in (Role.PATIENT, Role.DOCTOR):
            sent, body = with_key(key()), registration(role)
            made = browser.post("/api/auth/register", body, headers=sent)
            unchanged = browser.post("/api/auth/register", body, headers=sent)
            assert (unchanged.status_code, unchanged.json()) == (201, made.json())
            assert unchanged.headers["etag"] == made.headers["etag"]
            change = world.admin.patch(f"/api/users/{made.json()['id']}", {"status": "disabled"})
            assert change.status_code == 200
            found[name, role.value] = browser.post("/api/auth/register", body, headers=sent).status_code
    assert found == {
        ("admin", "patient"): 201, ("admin", "doctor"): 201, ("staff", "patient"): 201,
        ("staff", "doctor"): 404, ("patient", "patient"): 404, ("patient", "doctor"): 404,
    }  # fmt: skip


def test_a_version_of_a_record_that_was_retracted_since_is_404(world: World) -> None:
    made, sent = new_version(world), key()
    record = made.send(sent).json()
    retracted = world.doctor.post(f"/api/records/{record['id']}/retraction", {"reason": "Wrong chart"})
    assert retracted.status_code == 201
    refused = made.send(sent)
    assert (refused.status_code, refused.json()) == (404, {"detail": "Record not found"})


def test_the_condition_of_a_version_is_judged_once(world: World) -> None:
    """The version itself has changed the tag; sent again, it finds what it has done."""
    made, sent = new_version(world), key()
    tag = made.browser.get(made.path.removesuffix("/versions")).headers["etag"]
    headers = {**with_key(sent), "if-match": tag}
    answers = [made.browser.post(made.path, made.body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert made.browser.post(made.path, made.body, headers={"if-match": tag}).status_code == 412


def test_a_repeat_is_a_read_in_the_trail(creation: Creation, backend: Backend, since: int) -> None:
    sent, read = key(), creation.action.split(".")[0] + ".read"
    first, again = creation.send(sent), creation.send(sent)
    [made], [seen] = (new(backend, since, action) for action in (creation.action, read))
    assert str(made["target_id"]) == str(seen["target_id"]) == first.json()["id"]
    assert str(seen["request_id"]) == again.headers["x-request-id"]
    assert made["patient_ids"] == seen["patient_ids"]


@pytest.mark.parametrize(
    ("value", "is_good"),
    [("x", True), ("!" + "~" * 254, True), ("a,b", True), ("", False), ("x" * 256, False), ("a b", False),
     ("a\tb", False), ("é", False)],
)  # fmt: skip
def test_a_key_has_1_to_255_visible_characters(world: World, value: str, is_good: bool) -> None:
    answer = send_lines(world.staff, chart(), value)
    assert answer.status_code == (201 if is_good else 400)
    if not is_good:
        detail = "Idempotency-Key: must be 1 to 255 visible characters of ASCII"
        assert (answer.json()["detail"], answer.json()["code"]) == (detail, "bad_format")


def test_a_repeated_key_is_400_together_with_the_faults_of_the_body(world: World) -> None:
    answer = send_lines(world.staff, chart(name="", phone=None), "a", "a")
    assert answer.status_code == 400
    assert [(one.get("parameter"), one.get("pointer")) for one in answer.json()["errors"]] == [
        ("Idempotency-Key", None), (None, "/name"), (None, "/phone"),
    ]  # fmt: skip


def test_an_anonymous_key_is_ignored(service: Service, backend: Backend) -> None:
    """contract: "The key of a caller who is not signed in is ignored"."""
    before, sent = claims(backend), with_key(key())
    malformed = {"Idempotency-Key": "x" * 256}
    made = [
        service.browser().post("/api/auth/register", registration(), headers=headers)
        for headers in (sent, sent, malformed)
    ]
    assert [answer.status_code for answer in made] == [201, 201, 201]
    assert not any(map(is_repeat, made))
    assert claims(backend) == before


def test_so_is_one_of_a_session_that_has_ended(world: World, backend: Backend) -> None:
    browser, _ = world.account(Role.ADMIN)
    sent, body, before = with_key(key()), registration(), claims(backend)
    cookies = dict(browser.cookies)
    assert browser.post("/api/auth/logout").status_code == 200
    browser.cookies = cookies
    assert browser.post("/api/auth/register", body, headers=sent).status_code == 201
    assert browser.post("/api/auth/register", body, headers=sent).status_code == 400  # it is registered
    assert claims(backend) == before


def test_operations_that_make_nothing_do_not_look_at_it(world: World) -> None:
    made = world.chart()
    for _ in range(2):
        changed = world.staff.patch(
            f"/api/patients/{made['id']}", {"phone": "+1 555 0111"}, headers=with_key("")
        )
        assert changed.status_code == 200
        assert not is_repeat(changed)


def test_refused_answers_are_not_kept(world: World, backend: Backend) -> None:
    """Neither a rule's 400 nor a 404 nor a 403: what was refused may be sent again with its key."""
    sent, before = with_key(key()), claims(backend)
    taken = world.appointment()
    book: Callable[..., httpx.Response] = lambda **changes: world.doctor.post(  # noqa: E731 - three calls of one
        "/api/appointments",
        {"patientId": world.chart()["id"], "doctorId": taken["doctorId"], "date": taken["date"],
         "reason": "Check-up", **changes},
        headers=sent,
    )  # fmt: skip
    assert book().status_code == 400
    assert book(doctorId=world.other_doctor.me()["id"]).status_code == 403
    assert book(patientId="00000000-0000-4000-8000-000000000000", date=world.slot()).status_code == 404
    assert claims(backend) == before
    cancelled = world.staff.patch(f"/api/appointments/{taken['id']}", {"status": "cancelled"})
    assert cancelled.status_code == 200
    booked = book()
    assert (booked.status_code, is_repeat(booked)) == (201, False)
    assert claims(backend) == before + 1
