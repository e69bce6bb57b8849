"""A doctor who is disabled or demoted, and what becomes of their appointments (contract, "When a doctor
leaves")."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from security.roles import Role
from tests.support import audit_trail
from tests.support.accounts import ME, make_account
from tests.support.appointments import book, change, listed, now, read
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend

NOT_LEAVING = "appointments: goes with a change that disables a doctor or gives them another role"
DISABLED = {"status": "disabled"}
UNKNOWN = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"


def doctor(world: World, **values: Any) -> str:
    return str(make_account(world, Role.DOCTOR, **values)["id"])


def leave(world: World, who: str, appointments: Any, **changes: Any) -> httpx.Response:
    return world.admin.patch(f"/api/users/{who}", {**(changes or DISABLED), "appointments": appointments})


def status_of(world: World, account: str) -> str:
    return str(world.admin.get(f"/api/users/{account}").json()["status"])


@pytest.mark.parametrize("fate", ["keep", None])
def test_the_account_is_locked_at_once_and_the_appointments_stay(world: World, fate: str | None) -> None:
    """contract: "works at once"; "`keep` (the default) leaves them"."""
    browser, me = world.account(Role.DOCTOR)
    appointment = world.appointment(doctorId=me["id"])
    body = {**DISABLED, "appointments": fate} if fate else DISABLED
    answer = world.admin.patch(f"/api/users/{me['id']}", body)
    assert (answer.status_code, answer.json()) == (200, {**me, "status": "disabled"})
    assert browser.get(ME).status_code == 401
    assert read(world, appointment) == appointment


def total(browser: Browser, **asked: str) -> int:
    return int(browser.get("/api/appointments", params=asked).json()["total"])


def test_the_front_desk_finds_what_was_kept(world: World) -> None:
    """contract: "Only scheduled appointments to come of whoever is not an active doctor"."""
    gone, demoted, active = doctor(world), doctor(world), doctor(world)
    kept = [world.appointment(doctorId=one) for one in (gone, demoted)]
    others = [world.appointment(doctorId=one, date=when) for one, when in ((gone, now(minutes=-1)),)]
    others += [world.appointment(doctorId=one) for one in (gone, active)]
    assert change(world.staff, others[1], status="cancelled").status_code == 200
    assert leave(world, gone, "keep").status_code == 200
    assert leave(world, demoted, "keep", role="patient").status_code == 200
    own = f"{gone},{demoted},{active}".split(",")
    for browser in (world.staff, world.admin):
        found = [one for one in listed(browser, orphaned="true") if one["doctorId"] in own]
        assert found == kept
        assert [one["id"] for one in listed(browser, orphaned="true", doctorId=gone)] == [kept[0]["id"]]
        shown = {one["id"] for who in own for one in listed(browser, orphaned="false", doctorId=who)}
        assert shown == {one["id"] for one in others}
        for status in ("", "scheduled", "cancelled", "scheduled,cancelled"):
            counted = total(browser, status=status, orphaned="true")
            counted += total(browser, status=status, orphaned="false")
            assert counted == total(browser, status=status)
    for browser in (world.doctor, world.patient):
        for orphaned in ("true", "false"):
            answer = browser.get(f"/api/appointments?orphaned={orphaned}")
            detail = "Your role may not use orphaned; admin and staff may"
            assert (answer.status_code, answer.json()) == (403, {"detail": detail})
    assert reassign_all(world, gone, active) == [kept[0]["id"]]
    assert listed(world.staff, orphaned="true", doctorId=gone) == []


def reassign_all(world: World, who: str, heir: str) -> list[str]:
    times = {"from": "2020-01-01T00:00:00Z", "to": "2199-12-31T00:00:00Z"}
    body = {"doctorId": who, **times, "appointments": {"reassignTo": heir}}
    answer = world.staff.post("/api/appointments/reassign", body)
    return [one["id"] for one in answer.json()["appointments"]]


def test_they_are_cancelled_with_the_account(backend: Backend, world: World, since: int) -> None:
    """contract: "`cancel` cancels them"; "the scheduled appointments to come"."""
    leaving = doctor(world)
    begun = world.appointment(doctorId=leaving, date=now(minutes=-1))
    coming = [world.appointment(doctorId=leaving) for _ in range(2)]
    assert leave(world, leaving, "cancel").status_code == 200
    assert [read(world, one)["status"] for one in (begun, *coming)] == ["scheduled", "cancelled", "cancelled"]
    ids, charts = audit_trail.named(backend, since, "appointment.update")
    assert (ids, charts) == ([one["id"] for one in coming], {one["patientId"] for one in coming})
    [account] = audit_trail.new(backend, since, "account.update")
    assert str(account["target_id"]) == leaving
    changes = world.staff.get(f"/api/appointments/{coming[0]['id']}/history").json()["changes"]
    assert [(one["field"], one["to"], one["role"]) for one in changes] == [("status", "cancelled", "admin")]
    visit = world.staff.get(f"/api/appointments/{coming[1]['id']}/visit").json()
    assert (visit["state"], visit["userId"]) == ("cancelled", world.admin.me()["id"])


def test_they_go_to_a_colleague_with_the_role(world: World) -> None:
    """contract: "`{"reassignTo": id}` gives them to another active doctor"; "or gives them another role"."""
    leaving, heir = doctor(world), doctor(world, name="Hanna Heir")
    appointment = world.appointment(doctorId=leaving)
    answer = leave(world, leaving, {"reassignTo": heir}, role="staff")
    assert (answer.status_code, answer.json()["role"]) == (200, "staff")
    moved = {**appointment, "doctorId": heir, "doctorName": "Hanna Heir"}
    assert read(world, appointment) == moved


def test_the_account_does_not_change_where_they_cannot_go(world: World) -> None:
    """contract: "where they cannot be reassigned, to an active doctor (404) who works and is free at
    all of these times (400), the account does not change either"."""
    leaving, heir = doctor(world), doctor(world)
    free, taken = [world.appointment(doctorId=leaving) for _ in range(2)]
    assert book(world.staff, world.chart()["id"], heir, taken["date"]).status_code == 201
    answer = leave(world, leaving, {"reassignTo": heir})
    detail = f"appointments: the doctor has another appointment at {taken['date']}"
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    for nobody in (UNKNOWN, world.staff.me()["id"]):
        answer = leave(world, leaving, {"reassignTo": nobody})
        assert (answer.status_code, answer.json()) == (404, {"detail": "Doctor not found"})
    stale = {"if-match": '"another"'}
    body = {**DISABLED, "appointments": "cancel"}
    assert world.admin.patch(f"/api/users/{leaving}", body, headers=stale).status_code == 412
    assert (status_of(world, leaving), read(world, free), read(world, taken)) == ("active", free, taken)
    assert leave(world, UNKNOWN, "cancel").status_code == 404


def test_whoever_stays_keeps_their_appointments(world: World) -> None:
    """contract: "400 unless the request disables a doctor or gives them another role"."""
    staying = doctor(world)
    staff = make_account(world, Role.STAFF)["id"]
    refused = (400, {"detail": NOT_LEAVING})
    for who, changes in (
        (staying, {"name": "New Name"}),
        (staying, {"status": "active"}),
        (staying, {"role": "doctor"}),
        (staff, DISABLED),
        (staff, {"role": "doctor"}),
    ):
        for fate in ("keep", "cancel"):
            answer = leave(world, who, fate, **changes)
            assert (answer.status_code, answer.json()) == refused
    assert world.admin.patch(f"/api/users/{staying}", DISABLED).status_code == 200
    assert (leave(world, staying, "cancel").json(), status_of(world, staff)) == (refused[1], "active")
    assert leave(world, staying, "cancel", role="patient").status_code == 200


@pytest.mark.parametrize(
    ("appointments", "detail"),
    [
        ("forget", "appointments: must be one of cancel, keep or an object with reassignTo"),
        (None, "appointments: must be one of cancel, keep or an object with reassignTo"),
        ({}, "appointments.reassignTo: is required"),
        ({"reassignTo": UNKNOWN.upper()}, "appointments.reassignTo: must be another doctor"),
    ],
)
def test_a_malformed_fate_is_refused(world: World, appointments: Any, detail: str) -> None:
    """contract: "The id of another active doctor (404 otherwise)"."""
    answer = leave(world, UNKNOWN, appointments)
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})


def test_a_colleague_who_leaves_in_the_same_moment_takes_none(backend: Backend, world: World) -> None:
    """contract: "to another active doctor (404 otherwise)"."""
    leaving, heir = doctor(world), doctor(world)
    appointment = world.appointment(doctorId=leaving)
    with ThreadPoolExecutor() as pool:
        with transaction(backend) as elsewhere:
            elsewhere("UPDATE users SET status = 'disabled' WHERE id = $1", heir)
            answer = pool.submit(leave, world, leaving, {"reassignTo": heir})
            until_they_wait(backend, answer)
        assert answer.result().status_code == 404
    assert (read(world, appointment), status_of(world, leaving)) == (appointment, "active")


def test_of_two_doctors_who_leave_to_each_other_one_stays(world: World) -> None:
    """contract: "All of them go or none"; nobody waits for ever."""
    pairs = [(doctor(world), doctor(world)) for _ in range(4)]
    for pair in pairs:
        for one in pair:
            world.appointment(doctorId=one)
    with ThreadPoolExecutor() as pool:
        for one, other in pairs:
            answers = [
                pool.submit(leave, world, one, {"reassignTo": other}),
                pool.submit(leave, world, other, {"reassignTo": one}),
            ]
            assert sorted(answer.result().status_code for answer in answers) == [200, 404]
