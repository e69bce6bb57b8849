"""Absences: a doctor's leave, and the days on which the clinic is closed (contract: "The reason of a leave is
health data")."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from security.roles import Role
from tests.support.audit_trail import rows
from tests.support.client import PROBLEM, Browser
from tests.support.factories import PASSWORD, World
from tests.support.small_clinic import add_doctor

BEGIN = datetime(2150, 6, 1, tzinfo=UTC)


def at(hours: float) -> str:
    return (BEGIN + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def doctor_of(world: World) -> dict[str, Any]:
    """Somebody new, who does not sign in."""
    return {"id": str(add_doctor(world.service.backend, "Dr. Deniz Dogan"))}


def enter(browser: Browser, begins: float, ends: float, **more: Any) -> dict[str, Any]:
    answer = browser.post("/api/absences", {"from": at(begins), "to": at(ends), **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def listed(browser: Browser, **query: Any) -> list[dict[str, Any]]:
    answer = browser.get("/api/absences", params={"limit": 100, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["absences"])
    return list(answer.json()["absences"])


def test_a_leave_is_entered_read_and_deleted(world: World) -> None:
    browser, me = world.account(Role.DOCTOR)
    body = {"doctorId": me["id"], "from": "2150-06-01T02:00:00+02:00", "to": at(2), "reason": "A new knee"}
    made = browser.post("/api/absences", body).json()
    leave = {"id": made["id"], **body, "from": at(0)}
    assert made == {**leave, "appointments": [], "total": 0}
    assert listed(world.staff, doctorId=me["id"]) == [leave]
    gone = world.admin.delete(f"/api/absences/{made['id']}")
    assert (gone.status_code, gone.json()) == (200, {"message": "Absence deleted"})
    assert listed(world.staff, doctorId=me["id"]) == []
    again = world.admin.delete(f"/api/absences/{made['id']}")
    assert (again.status_code, again.json()) == (404, {"detail": "Absence not found"})


def test_colleagues_do_not_see_why_somebody_is_away(world: World) -> None:
    """Contract: "administrators, staff and that doctor see it, and to colleagues it is `null`"."""
    browser, me = world.account(Role.DOCTOR)
    enter(world.staff, 10, 11, doctorId=me["id"], reason="A new knee")
    closed = enter(world.staff, 10, 11, reason="Holidays")
    for whoever, told in ((world.admin, "A new knee"), (world.staff, "A new knee"), (browser, "A new knee"),
                          (world.doctor, None)):  # fmt: skip
        found = listed(whoever, **{"from": at(10), "to": at(11)})
        assert [one["reason"] for one in found if one["doctorId"] == me["id"]] == [told]
        assert [one["reason"] for one in found if one["id"] == closed["id"]] == ["Holidays"]
    assert world.patient.get("/api/absences").status_code == 403
    assert world.staff.delete(f"/api/absences/{closed['id']}").status_code == 200


def test_doctors_have_to_do_with_their_own_leave_only(world: World) -> None:
    browser, me = world.account(Role.DOCTOR)
    leave, closed = enter(browser, 20, 21, doctorId=me["id"]), enter(world.admin, 2000, 2001, doctorId=None)
    time = {"from": at(20), "to": at(21)}
    for body in (time, {**time, "doctorId": None}, {**time, "doctorId": me["id"]}):
        assert world.doctor.post("/api/absences", body).status_code == 403
    for each in (leave, closed):
        refused = world.doctor.delete(f"/api/absences/{each['id']}", headers=PROBLEM)
        assert (refused.status_code, refused.json()["errors"]) == (403, [])  # there is no body to be wrong
        assert world.patient.delete(f"/api/absences/{each['id']}").status_code == 403
    assert world.patient.post("/api/absences", time).status_code == 403
    assert browser.delete(f"/api/absences/{leave['id']}").status_code == 200
    assert world.staff.delete(f"/api/absences/{closed['id']}").status_code == 200


def test_nobody_is_away_who_is_no_active_doctor(world: World) -> None:
    _, gone = world.account(Role.DOCTOR)
    assert world.admin.patch(f"/api/users/{gone['id']}", {"status": "disabled"}).status_code == 200
    for person in (gone, world.patient.me()):
        body = {"doctorId": person["id"], "from": at(0), "to": at(1)}
        refused = world.staff.post("/api/absences", body)
        assert (refused.status_code, refused.json()) == (404, {"detail": "Doctor not found"})


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"to": at(0)}, "/to", "bad_order"),
        ({"to": at(-1)}, "/to", "bad_order"),
        ({"from": "1850-01-01T00:00:00Z"}, "/from", "out_of_range"),
        ({"to": "2200-01-01T00:00:00Z"}, "/to", "out_of_range"),
        ({"to": "9999-12-31T23:59:59-12:00"}, "/to", "out_of_range"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "/from", "out_of_range"),
        ({"from": "2150-06-01T00:00:00"}, "/from", "bad_format"),
        ({"to": None}, "/to", "required"),
        ({"reason": "x" * 501}, "/reason", "too_long"),
        ({"reason": "\0"}, "/reason", "bad_characters"),
        ({"reason": " \t\ufeff"}, "/reason", "bad_format"),
        ({"doctorId": "dora"}, "/doctorId", "bad_format"),
        ({"patientId": None}, "/patientId", "unknown_field"),
    ],
)
def test_an_absence_that_is_none_is_refused(
    world: World, changes: dict[str, Any], pointer: str, code: str
) -> None:
    body = {"from": at(0), "to": at(1), **changes}
    refused = world.staff.post("/api/absences", body, headers=PROBLEM)
    assert refused.status_code == 400
    assert (pointer, code) in {(error["pointer"], error["code"]) for error in refused.json()["errors"]}


def test_what_has_a_moment_in_a_time_is_listed_by_its_beginning(world: World) -> None:
    """Contract: "`from` and `to` what has a moment in that time"."""
    me = doctor_of(world)
    made = [
        enter(world.staff, *time, doctorId=me["id"], reason="")["id"]
        for time in ((30, 31), (31, 33), (30, 40), (33, 34))
    ]

    def found(**query: str) -> list[int]:
        return [made.index(one["id"]) for one in listed(world.staff, doctorId=me["id"], **query)]

    assert found() == [*sorted((0, 2), key=made.__getitem__), 1, 3]
    assert found(**{"from": at(31), "to": at(33)}) == [2, 1]
    assert found(**{"from": at(33)}) == [2, 3]
    assert found(to=at(31)) == sorted((0, 2), key=made.__getitem__)
    assert [one["reason"] for one in listed(world.staff, doctorId=me["id"])] == [None] * 4
    page = world.staff.get("/api/absences", params={"doctorId": me["id"], "limit": 1, "page": 3}).json()
    assert (page["absences"][0]["id"], page["total"]) == (made[1], 4)


@pytest.mark.parametrize("until", [at(0), at(-1)])
def test_a_list_does_not_go_backwards(world: World, until: str) -> None:
    query = {"from": at(0), "to": until}
    refused = world.staff.get("/api/absences", params=query, headers=PROBLEM)
    assert refused.status_code == 400
    assert refused.json()["errors"] == [
        {"parameter": "to", "code": "bad_order", "detail": "must be later than from"}
    ]


def test_the_answer_names_what_is_booked_in_the_time(world: World) -> None:
    """Contract: "The answer names the scheduled appointments that have a moment in that time"."""
    me, other = doctor_of(world), doctor_of(world)
    before, within, at_end, after, elsewhere, cancelled = (
        world.appointment(doctorId=doctor["id"], date=at(hours))
        for doctor, hours in ((me, 49.25), (me, 49.75), (me, 51.75), (me, 52.25), (other, 51), (me, 50.5))
    )
    path = f"/api/appointments/{cancelled['id']}"
    assert world.staff.patch(path, {"status": "cancelled"}).status_code == 200
    leave = enter(world.staff, 50, 52, doctorId=me["id"])
    assert (leave["appointments"], leave["total"]) == ([within, at_end], 2)
    closed = enter(world.staff, 49.75, 52.25)
    assert closed["appointments"] == [within, elsewhere, at_end]
    assert before["status"] == after["status"] == "scheduled"  # one ends, one begins where nobody is away
    *_, event = rows(world.service.backend, "action = 'absence.create'")
    assert str(event["target_id"]) == closed["id"]
    assert [str(id) for id in event["target_ids"]] == [each["id"] for each in closed["appointments"]]
    assert {str(id) for id in event["patient_ids"]} == {each["patientId"] for each in closed["appointments"]}
    for each in closed["appointments"]:
        assert world.staff.get(f"/api/appointments/{each['id']}").json() == each
    assert world.staff.delete(f"/api/absences/{closed['id']}").status_code == 200


def test_a_repeated_request_shows_what_is_booked_by_then(world: World) -> None:
    me = doctor_of(world)
    body, key = {"from": at(60), "to": at(61), "doctorId": me["id"]}, {"Idempotency-Key": "leave-of-june"}
    first = world.staff.post("/api/absences", body, headers=key).json()
    again = world.staff.post("/api/absences", body, headers=key)
    assert (again.status_code, again.json()) == (201, first)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert world.staff.delete(f"/api/absences/{first['id']}").status_code == 200
    late = world.staff.post("/api/absences", body, headers=key)
    assert (late.status_code, late.json()) == (404, {"detail": "Absence not found"})


def test_a_repeated_request_shows_nothing_that_its_caller_may_not_see_any_more(world: World) -> None:
    """Who closed the clinic as staff, and is a doctor by now, sees no colleague's bookings."""
    clerk, me = world.account(Role.STAFF)
    body, key = {"from": at(62), "to": at(63)}, {"Idempotency-Key": "closed"}
    assert clerk.post("/api/absences", body, headers=key).status_code == 201
    assert world.admin.patch(f"/api/users/{me['id']}", {"role": "doctor"}).status_code == 200
    assert clerk.login(me["email"], PASSWORD).status_code == 200
    again = clerk.post("/api/absences", body, headers=key)
    assert again.status_code == 403, again.text
