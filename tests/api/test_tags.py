"""Entity tags of single charts, appointments, records and accounts (RFC 9110, 8.8.3 and 13)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, registration
from tests.support.service import Backend

pytestmark = pytest.mark.slow

Make = Callable[[World], tuple[Browser, str]]


def a_chart(world: World) -> tuple[Browser, str]:
    return world.staff, f"/api/patients/{world.chart()['id']}"


def an_appointment(world: World) -> tuple[Browser, str]:
    return world.staff, f"/api/appointments/{world.appointment()['id']}"


def a_record(world: World) -> tuple[Browser, str]:
    return world.doctor, f"/api/records/{world.record(world.chart()['id'])['id']}"


def an_account(world: World) -> tuple[Browser, str]:
    return world.account()[0], "/api/users/me"


def a_patients_account(world: World) -> tuple[Browser, str]:
    return world.staff, f"/api/users/{world.account()[1]['id']}"


NOUNS: list[Make] = [a_chart, an_appointment, a_record, an_account, a_patients_account]


def tag_at(browser: Browser, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["etag"])


@pytest.mark.parametrize("make", NOUNS)
def test_what_the_client_holds_is_304(make: Make, world: World, backend: Backend) -> None:
    """The read is in the audit trail all the same."""
    browser, path = make(world)
    tag = tag_at(browser, path)
    assert tag.startswith('"')  # strong
    assert tag_at(browser, path) == tag
    count = "SELECT count(*) FROM audit_events WHERE outcome = 'success'"
    [[before]] = backend.sql(count)
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = browser.get(path, headers={"if-none-match": held})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    [[after]] = backend.sql(count)
    assert after - before == (0 if path == "/api/users/me" else 4)
    for other in ('"other"', tag.strip('"'), ""):
        assert browser.get(path, headers={"if-none-match": other}).status_code == 200


@pytest.mark.parametrize("make", NOUNS)
def test_a_read_that_wants_another_tag_is_412(make: Make, world: World) -> None:
    browser, path = make(world)
    tag = tag_at(browser, path)
    assert browser.get(path, headers={"if-match": tag}).status_code == 200
    for stale in ('"other"', f"W/{tag}"):
        assert browser.get(path, headers={"if-match": stale}).status_code == 412


@pytest.mark.parametrize("make", NOUNS)
def test_conditions_do_not_reach_what_the_caller_may_not_see(make: Make, world: World) -> None:
    """13.2.1: where the answer would not be 2xx, the conditions are ignored."""
    browser, path = make(world)
    tag = tag_at(browser, path)
    stranger = world.service.browser() if path == "/api/users/me" else world.other_patient
    for condition in ({"if-none-match": tag}, {"if-match": '"other"'}, {"if-none-match": "*"}):
        assert stranger.get(path, headers=condition).status_code in {401, 403, 404}


def require_new_tag(browser: Browser, path: str, change: Callable[[], httpx.Response]) -> httpx.Response:
    """Hold that the change gives what is at `path` another tag."""
    before = tag_at(browser, path)
    answer = change()
    assert answer.is_success, answer.text
    assert tag_at(browser, path) != before, answer.request.content
    return answer


CHART_CHANGES: list[dict[str, Any]] = [
    {"name": "Other Name"}, {"email": "other@example.com"}, {"phone": "+1 555 0199"}, {"gender": "male"},
    {"dateOfBirth": "1980-05-18"}, {"address": "2 Main Street"}, {"bloodType": "0+"}, {"allergies": "pollen"},
    {"medicalHistory": "asthma"}, {"medicalHistory": None},
]  # fmt: skip


def test_the_tag_of_a_chart_changes_with_all_that_it_shows_and_with_its_account(world: World) -> None:
    """Each answer to a write has the tag that the next read has."""
    made = world.staff.post("/api/patients", chart())
    path = f"/api/patients/{made.json()['id']}"
    assert made.headers["etag"] == tag_at(world.doctor, path)
    link = {"userId": world.account()[1]["id"]}
    for change in (
        *(partial(world.admin.patch, path, body) for body in CHART_CHANGES),
        partial(world.admin.put, f"{path}/account", link),
        partial(world.admin.delete, f"{path}/account"),
    ):
        answer = require_new_tag(world.staff, path, change)
        assert answer.headers["etag"] == tag_at(world.doctor, path)
    again = world.admin.patch(path, {"address": "2 Main Street"})
    assert again.headers["etag"] == answer.headers["etag"]
    assert "etag" not in world.admin.get(f"{path}/account").headers


def test_the_tag_of_an_appointment_changes_with_all_that_it_shows(world: World) -> None:
    doctor, _ = world.account(Role.DOCTOR)
    body = {"patientId": world.chart()["id"], "doctorId": doctor.me()["id"], "reason": "Check-up"}
    made = world.staff.post("/api/appointments", {**body, "date": world.past_slot()})
    path = f"/api/appointments/{made.json()['id']}"
    assert made.headers["etag"] == tag_at(world.admin, path)
    for changed in ({"date": world.past_slot()}, {"notes": "Bring the letter."}, {"status": "completed"}):
        answer = require_new_tag(doctor, path, partial(doctor.patch, path, changed))
        assert answer.headers["etag"] == tag_at(world.admin, path)
    rename = {"name": "Somebody Else"}
    require_new_tag(doctor, path, partial(world.staff.patch, f"/api/patients/{body['patientId']}", rename))
    require_new_tag(doctor, path, partial(doctor.patch, "/api/users/me", rename))


def test_the_tag_of_a_record_changes_with_the_names_that_it_shows(world: World) -> None:
    doctor, _ = world.account(Role.DOCTOR)
    patient_id = world.chart()["id"]
    body = {"patientId": patient_id, "diagnosis": "Well", "prescription": "", "notes": ""}
    made = doctor.post("/api/records", body)
    path = f"/api/records/{made.json()['id']}"
    assert made.headers["etag"] == tag_at(world.admin, path)
    rename = {"name": "Somebody Else"}
    require_new_tag(doctor, path, partial(world.staff.patch, f"/api/patients/{patient_id}", rename))
    require_new_tag(doctor, path, partial(doctor.patch, "/api/users/me", rename))


def test_the_tag_of_an_account_changes_with_all_that_it_shows(world: World) -> None:
    for role, field in ((Role.DOCTOR, "specialization"), (Role.STAFF, "department"), (Role.PATIENT, "phone")):
        person, _ = world.account(role)
        for body in ({"name": "Somebody Else"}, {field: "1"}, {field: None}):
            answer = require_new_tag(person, "/api/users/me", partial(person.patch, "/api/users/me", body))
            assert answer.headers["etag"] == tag_at(person, "/api/users/me")


def test_registering_answers_the_tag_of_the_new_account(world: World, anonymous: Browser) -> None:
    """Contract: "`ETag` is that of `GET /api/users/{id}`"."""
    for browser in (world.admin, anonymous):
        made = browser.post("/api/auth/register", registration(Role.DOCTOR))
        path = f"/api/users/{made.json()['id']}"
        assert made.headers["etag"] == tag_at(world.admin, path)
        change = {"name": "Somebody Else"}
        changed = world.admin.patch(path, change, headers={"if-match": made.headers["etag"]})
        assert changed.headers["etag"] == tag_at(world.admin, path) != made.headers["etag"]


def test_listed_pages_may_read_the_tag_of_an_object(world: World) -> None:
    browser, path = a_chart(world)
    answer = browser.get(path, headers={"origin": "http://localhost:5173"})
    assert "ETag" in answer.headers["access-control-expose-headers"].split(", ")
