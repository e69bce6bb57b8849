"""The appointments of a doctor, reassigned or cancelled for a time (contract, "When a doctor leaves")."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key
from persistence.handovers import MAX_APPOINTMENTS
from security.roles import Role
from tests.support import audit_trail
from tests.support.accounts import make_account
from tests.support.appointments import book, change, later, listed, now, read
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import KEY, Backend

ALWAYS = {"from": "1999-12-31T23:00:00-01:00", "to": "9999-12-31T23:59:59-12:00"}
NO_DOCTOR = {"detail": "Doctor not found"}
UNKNOWN = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"
Appointment = dict[str, Any]


def doctor(world: World, **values: Any) -> str:
    return str(make_account(world, Role.DOCTOR, **values)["id"])


def reassign(browser: Browser, of: str, fate: Any, *, query: str = "", **changes: Any) -> httpx.Response:
    body = {"doctorId": of, **ALWAYS, "appointments": fate, **changes}
    return browser.post(f"/api/appointments/reassign{query}", body)


def to(heir: str) -> dict[str, str]:
    return {"reassignTo": heir}


def history(world: World, appointment: Appointment) -> list[tuple[str, str, str]]:
    changes = world.admin.get(f"/api/appointments/{appointment['id']}/history").json()["changes"]
    return [(change["field"], change["from"], change["to"]) for change in changes]


def test_those_to_come_of_a_time_go_to_the_colleague(world: World) -> None:
    """contract: "All scheduled appointments of the doctor that begin in the time and are still to come"."""
    leaving, heir = doctor(world), doctor(world, name="Hanna Heir")
    begun = world.appointment(doctorId=leaving, date=now(minutes=-1))
    before, *within, after = [world.appointment(doctorId=leaving) for _ in range(4)]
    over = world.appointment(doctorId=leaving)
    assert change(world.staff, over, status="cancelled").status_code == 200
    times = {"from": within[0]["date"], "to": after["date"]}
    for query, browser in (("?dryRun=true", world.admin), ("?dryRun=false", world.staff)):
        answer = reassign(browser, leaving, to(heir), query=query, **times)
        assert answer.status_code == 200, answer.text
        moved = [{**one, "doctorId": heir, "doctorName": "Hanna Heir"} for one in within]
        assert answer.json() == {"appointments": moved, "total": 2}
        shown = [read(world, one) for one in within]
        assert shown == (within if query == "?dryRun=true" else moved)
    assert [read(world, one)["doctorId"] for one in (begun, before, after, over)] == [leaving] * 4
    assert reassign(world.staff, leaving, to(heir), **times).json() == {"appointments": [], "total": 0}


def test_those_of_a_disabled_doctor_are_cancelled_too(world: World) -> None:
    """contract: "disabled, or no doctor's any more and still has appointments"."""
    gone, demoted = doctor(world), doctor(world)
    appointments = [world.appointment(doctorId=one) for one in (gone, demoted)]
    assert world.admin.patch(f"/api/users/{gone}", {"status": "disabled"}).status_code == 200
    assert world.admin.patch(f"/api/users/{demoted}", {"role": "staff"}).status_code == 200
    for of, appointment in zip((gone, demoted), appointments, strict=True):
        answer = reassign(world.staff, of, "cancel").json()
        assert answer == {"appointments": [{**appointment, "status": "cancelled"}], "total": 1}
        assert read(world, appointment)["status"] == "cancelled"
        assert history(world, appointment) == [("status", "scheduled", "cancelled")]


def test_all_of_them_go_or_none(world: World) -> None:
    """contract: "where the colleague has another appointment at one of these times, or does not work
    then, it is 400, and the detail names the first"."""
    leaving, heir = doctor(world), doctor(world)
    appointments = [world.appointment(doctorId=leaving) for _ in range(3)]
    for taken in reversed(appointments[1:]):
        assert book(world.staff, world.chart()["id"], heir, taken["date"]).status_code == 201
    detail = f"appointments: the doctor has another appointment at {appointments[1]['date']}"
    for query in ("?dryRun=true", ""):
        answer = reassign(world.staff, leaving, to(heir), query=query)
        assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert [read(world, one) for one in appointments] == appointments
    assert reassign(world.staff, leaving, to(heir), to=appointments[1]["date"]).json()["total"] == 1


def test_what_was_overbooked_is_not_for_the_colleague(backend: Backend, world: World) -> None:
    """contract: "if it was overbooked, the permission ends"."""
    leaving, heir = doctor(world), doctor(world)
    first = world.appointment(doctorId=leaving)
    at = later(first["date"], minutes=10)
    second = world.appointment(doctorId=leaving, date=at, overbook={"reason": "Cannot wait"})
    answer = reassign(world.staff, leaving, to(heir))
    detail = f"appointments: the doctor would have two appointments at {at}"
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert reassign(world.staff, leaving, to(heir), **{"from": at}).json()["total"] == 1
    assert book(world.staff, world.chart()["id"], heir, first["date"]).status_code == 400
    assert backend.sql("SELECT overbooked FROM appointments WHERE id = $1", second["id"])[0][0] is False


def test_the_colleague_must_work_then(world: World) -> None:
    """contract: "who must work and be free at all of these times (400 otherwise)"."""
    leaving, heir = doctor(world), doctor(world)
    days = ("2101-03-07", "2101-03-08", "2101-03-09")  # from a Monday on
    visits = [world.appointment(doctorId=leaving, date=f"{day}T11:45:00Z") for day in days]
    whole, short = {"from": "00:00", "to": "24:00"}, {"from": "08:00", "to": "12:00"}
    for week, day in (
        ([], days[0]),
        ([{"weekday": 1, **whole}, {"weekday": 2, **short}, {"weekday": 3, **whole}], days[1]),
        ([{"weekday": 1, **whole}, {"weekday": 2, **whole}], days[2]),
    ):
        assert world.staff.put(f"/api/doctors/{heir}/hours", {"hours": week}).status_code == 200
        answer = reassign(world.staff, leaving, to(heir))
        detail = f"appointments: the doctor does not work at {day}T11:45:00Z"
        assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert [read(world, one) for one in visits] == visits
    assert world.staff.put(f"/api/doctors/{heir}/hours", {"hours": None}).status_code == 200
    assert reassign(world.staff, leaving, to(heir)).json()["total"] == 3


def test_whatever_is_first_in_the_way_is_named(world: World) -> None:
    """contract: "where the colleague has another appointment at one of these times, or does not work then, it
    is 400, and the detail names the first"."""
    leaving, heir = doctor(world), doctor(world)
    closed, taken = "2101-04-04T11:45:00.250000Z", "2101-04-05T11:45:00Z"  # a Monday and a Tuesday
    for date in (closed, taken):
        world.appointment(doctorId=leaving, date=date)
    assert book(world.staff, world.chart()["id"], heir, taken).status_code == 201
    tuesdays = [{"weekday": 2, "from": "00:00", "to": "24:00"}]
    assert world.staff.put(f"/api/doctors/{heir}/hours", {"hours": tuesdays}).status_code == 200
    for times, why in (
        ({}, f"the doctor does not work at {closed}"),
        ({"from": taken}, f"the doctor has another appointment at {taken}"),
    ):
        answer = reassign(world.staff, leaving, to(heir), **times)
        assert (answer.status_code, answer.json()) == (400, {"detail": f"appointments: {why}"})


def test_nobody_takes_them_who_is_away(backend: Backend, world: World) -> None:
    """contract: "the doctor does not work then, is away, or the clinic is closed"."""
    leaving, heir = doctor(world), doctor(world)
    visit = world.appointment(doctorId=leaving)
    begins = datetime.fromisoformat(visit["date"])
    times = begins + timedelta(minutes=29), begins + timedelta(hours=1)
    detail = f"appointments: the doctor is away or the clinic is closed at {visit['date']}"
    for who, status in ((heir, 400), (None, 400), (leaving, 200)):
        absence = "INSERT INTO absences (id, doctor_id, begins, ends) VALUES (gen_random_uuid(), $1, $2, $3)"
        backend.sql(absence, who, *times)
        answer = reassign(world.staff, leaving, to(heir))
        assert answer.status_code == status
        if status == 400:
            assert answer.json() == {"detail": detail}
        backend.sql("DELETE FROM absences")


def test_what_cannot_be_is_refused(world: World) -> None:
    """contract: "to another active doctor (404 otherwise)"; "any other is 404"."""
    leaving, away = doctor(world), doctor(world)
    assert world.admin.patch(f"/api/users/{away}", {"status": "disabled"}).status_code == 200
    for heir in (UNKNOWN, away, world.staff.me()["id"], world.patient.me()["id"]):
        answer = reassign(world.staff, leaving, to(heir))
        assert (answer.status_code, answer.json()) == (404, NO_DOCTOR)
    former = doctor(world)  # without an appointment
    assert world.admin.patch(f"/api/users/{former}", {"role": "staff"}).status_code == 200
    for of in (UNKNOWN, former, world.staff.me()["id"], world.patient.me()["id"]):
        assert reassign(world.staff, of, "cancel").status_code == 404
    asked = {"accept": "application/problem+json"}
    body = {"doctorId": leaving, **ALWAYS, "appointments": to(UNKNOWN)}
    problem = world.staff.post("/api/appointments/reassign", body, headers=asked).json()
    assert problem["errors"][0]["pointer"] == "/appointments/reassignTo"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"appointments": "keep"}, "appointments: must be cancel or an object with reassignTo"),
        ({"appointments": None}, "appointments: is required"),
        ({"appointments": {}}, "appointments.reassignTo: is required"),
        ({"appointments": {"reassignTo": "x"}}, "appointments.reassignTo: must be a UUID"),
        (
            {"appointments": {"reassignTo": UNKNOWN, "x": 1}},
            "appointments.x: is not a known field; known are reassignTo",
        ),
        ({"appointments": to(UNKNOWN)}, "appointments.reassignTo: must be another doctor"),
        ({"to": ALWAYS["from"]}, "to: must be after from"),
        ({"to": None}, "to: is required"),
    ],
)
def test_malformed_requests_are_refused(world: World, changes: dict[str, Any], detail: str) -> None:
    """contract: "after `from` (400 otherwise)"."""
    answer = reassign(world.staff, UNKNOWN, changes.pop("appointments", "cancel"), **changes)
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})


def test_the_first_hundred_are_shown_and_all_are_sealed(backend: Backend, world: World, since: int) -> None:
    """contract: "The answer shows the first 100, by date"; "Each appointment has it in its history"."""
    leaving, heir = doctor(world), doctor(world, name="Hanna Heir")
    charts = [world.chart()["id"] for _ in range(2)]
    backend.sql(
        "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) "
        "SELECT gen_random_uuid(), chart, $1, at, at + interval '20 minutes', 'Check-up', 1 FROM "
        "(SELECT ($2::uuid[])[n % 2 + 1], timestamptz '2150-01-01' + n * interval '1 hour' "
        "FROM generate_series(0, 119) AS n) AS visits(chart, at)",
        UUID(leaving),
        [UUID(chart) for chart in charts],
    )
    preview = reassign(world.staff, leaving, to(heir), query="?dryRun=true").json()
    ids, named = audit_trail.named(backend, since, "appointment.list")
    assert (ids, named) == ([one["id"] for one in preview["appointments"]], set(charts))
    answer = reassign(world.staff, leaving, to(heir)).json()
    assert answer == preview
    assert (len(answer["appointments"]), answer["total"]) == (100, 120)
    events = audit_trail.new(backend, since, "appointment.update")
    assert [len(event["target_ids"]) for event in events] == [50, 50, 20]
    assert {str(id) for event in events for id in event["patient_ids"]} == set(charts)
    assert history(world, answer["appointments"][60]) == [
        ("doctorName", "Robin Roe", "Hanna Heir"),
        ("doctorId", leaving, heir),
    ]
    audit_trail.wait_until_sealed(backend)
    verified = asyncio.run(verify_seals(backend.database_url, [Key.of(KEY)], None))
    assert verified.damage == []
    assert verified.vouched_rows >= 2 * 120


def test_too_many_at_once_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: "More than 5,000 at once are 400"."""
    assert MAX_APPOINTMENTS == 5000
    leaving = doctor(world)
    visits = [world.appointment(doctorId=leaving) for _ in range(2)]
    monkeypatch.setattr("persistence.handovers.MAX_APPOINTMENTS", 1)
    answer = reassign(world.staff, leaving, "cancel")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("appointments: are more than 1, ")
    account = f"/api/users/{leaving}"
    assert world.admin.patch(account, {"status": "disabled", "appointments": "cancel"}).status_code == 400
    assert world.admin.patch(account, {"status": "disabled", "appointments": "keep"}).status_code == 200
    assert reassign(world.staff, leaving, "cancel", to=visits[1]["date"]).json()["total"] == 1


def test_what_is_booked_in_the_same_moment_goes_along(backend: Backend, world: World) -> None:
    """contract: "All scheduled appointments of the doctor that begin in the time"."""
    leaving, heir = doctor(world), doctor(world)
    appointments = [world.appointment(doctorId=leaving)]
    with ThreadPoolExecutor() as pool:
        with transaction(backend) as closing:
            closing("SELECT pg_advisory_xact_lock(0)")  # as the clinic's, when it is closed
            answer = pool.submit(reassign, world.staff, leaving, to(heir))
            until_they_wait(backend, answer)
            backend.sql(
                "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) "
                "SELECT gen_random_uuid(), $1, $2, at, at + interval '20 minutes', 'Check-up', 1 "
                "FROM (SELECT $3::timestamptz) AS visit(at)",
                UUID(world.chart()["id"]),
                UUID(leaving),
                datetime.fromisoformat(world.slot()),
            )
        assert answer.result().json()["total"] == 2
    assert read(world, appointments[0])["doctorId"] == heir


def test_of_a_booking_and_a_reassignment_of_one_time_one_wins(world: World) -> None:
    """contract: "neither the doctor nor the patient can be in two scheduled ones at once"."""
    leaving, heir, chart = doctor(world), doctor(world), world.chart()["id"]
    with ThreadPoolExecutor() as pool:
        for _ in range(4):
            at = world.appointment(doctorId=leaving)["date"]
            times = {"from": at, "to": later(at, hours=1)}
            moved = pool.submit(reassign, world.staff, leaving, to(heir), **times)
            booked = pool.submit(book, world.staff, chart, heir, at)
            outcome = moved.result().status_code, booked.result().status_code
            assert outcome in {(200, 400), (400, 201)}


def test_whoever_loses_an_appointment_sees_it_no_more(world: World) -> None:
    """contract: "doctors and patients see their own"."""
    (leaving, me), (heir, other) = world.account(Role.DOCTOR), world.account(Role.DOCTOR)
    appointment = world.appointment(doctorId=me["id"])
    assert reassign(leaving, me["id"], to(other["id"])).status_code == 403
    assert reassign(world.staff, me["id"], to(other["id"])).status_code == 200
    assert listed(leaving) == []
    assert [one["id"] for one in listed(heir)] == [appointment["id"]]
