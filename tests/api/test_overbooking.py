"""Visits over others of the doctor (contract: "lets them book over another visit of the doctor")."""

from functools import partial
from typing import Any

import asyncpg
import pytest

from tests.api.test_appointment_slots import DOCTOR_TAKEN, PATIENT_TAKEN, concurrently, insert
from tests.support.appointments import book, change, later
from tests.support.factories import World
from tests.support.schedule import WHY, at, doctor_with, history, noted, week
from tests.support.service import Backend, Service

OVERBOOK = {"overbook": WHY}


def is_overbooked(backend: Backend, appointment: dict[str, Any]) -> bool:
    return bool(backend.sql("SELECT overbooked FROM appointments WHERE id = $1", appointment["id"])[0][0])


def test_staff_and_the_doctor_overbook_and_it_is_noted(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    first = world.appointment()
    for browser in (world.staff, world.doctor):
        chart = world.chart()["id"]
        assert book(browser, chart, doctors[0], first["date"]).json() == DOCTOR_TAKEN
        booked = book(browser, chart, doctors[0], later(first["date"], minutes=10), **OVERBOOK)
        assert booked.status_code == 201, booked.text
        assert is_overbooked(backend, booked.json())
        assert noted(backend, booked.json()) == ["create", "overbook"]
        assert history(world.admin, booked.json()) == [("overbook", None, WHY["reason"])]
    other = book(world.doctor, world.chart()["id"], doctors[1], first["date"], **OVERBOOK)
    assert other.status_code == 403


def test_an_overbooked_visit_takes_its_time(world: World, backend: Backend, doctors: list[str]) -> None:
    """For everyone without `overbook`, also when the visit below is gone."""
    first, chart = world.appointment(), world.chart()["id"]
    world.slot()  # the hour that it reaches into
    date = later(first["date"], minutes=20)
    over = book(world.staff, chart, doctors[0], date, **OVERBOOK).json()
    assert change(world.staff, first, status="cancelled").status_code == 200
    for clash in (later(first["date"], minutes=5), later(date, minutes=29)):
        assert book(world.staff, world.chart()["id"], doctors[0], clash).json() == DOCTOR_TAKEN
    assert book(world.staff, world.chart()["id"], doctors[0], later(date, minutes=30)).status_code == 201
    assert book(world.staff, chart, doctors[1], date).json() == PATIENT_TAKEN
    assert is_overbooked(backend, over)


def test_nobody_is_overbooked_over_the_patients_own_visit(world: World, doctors: list[str]) -> None:
    first = world.appointment()
    for doctor in doctors[:2]:
        answer = book(world.staff, first["patientId"], doctor, first["date"], **OVERBOOK)
        assert (answer.status_code, answer.json()) == (400, PATIENT_TAKEN)
    other = world.appointment(doctorId=doctors[1])
    moved = change(world.staff, other, date=first["date"], **OVERBOOK)
    assert moved.status_code == 200  # with another doctor
    own = world.appointment(doctorId=doctors[2], patientId=first["patientId"])
    assert change(world.staff, own, date=first["date"], **OVERBOOK).json() == PATIENT_TAKEN


def test_neither_permission_does_the_others_work(world: World, backend: Backend) -> None:
    _, doctor = doctor_with(world, week("08:00-12:00"))
    world.appointment(doctorId=doctor, date=at("08:00"))
    outside = book(world.staff, world.chart()["id"], doctor, at("13:00"), override=WHY).json()
    chart = world.chart()["id"]
    assert book(world.staff, chart, doctor, at("08:10"), override=WHY).json() == DOCTOR_TAKEN
    assert book(world.staff, chart, doctor, at("13:10"), override=WHY).json() == DOCTOR_TAKEN
    refused = book(world.staff, chart, doctor, at("13:10"), **OVERBOOK).json()
    assert refused == {"detail": "date: is outside the hours of the doctor"}
    both = book(world.staff, chart, doctor, at("13:10"), override=WHY, overbook={"reason": "Two beds"})
    assert noted(backend, both.json()) == ["create", "override", "overbook"]
    assert sorted(history(world.admin, both.json())) == [
        ("overbook", None, "Two beds"),
        ("override", None, WHY["reason"]),
    ]
    assert change(world.staff, outside, date=at("08:10"), override=WHY).json() == DOCTOR_TAKEN


def test_the_permission_ends_when_the_visit_moves(world: World, backend: Backend, doctors: list[str]) -> None:
    """Contract: "What permitted the time before does not permit the new one"."""
    first, second = world.appointment(), world.appointment()
    over = book(world.staff, world.chart()["id"], doctors[0], first["date"], **OVERBOOK).json()
    a_little = later(first["date"], minutes=5)
    assert change(world.doctor, over, date=a_little).json() == DOCTOR_TAKEN
    assert is_overbooked(backend, over)
    assert change(world.doctor, over, date=a_little, **OVERBOOK).status_code == 200
    assert (noted(backend, over), is_overbooked(backend, over)) == (
        ["create", "overbook", "update", "overbook"],
        True,
    )
    assert change(world.staff, over, notes="Came alone").status_code == 200
    assert is_overbooked(backend, over)
    free = world.slot()
    assert change(world.staff, over, date=free).status_code == 200
    assert not is_overbooked(backend, over)
    assert book(world.staff, world.chart()["id"], doctors[0], free).json() == DOCTOR_TAKEN
    assert change(world.admin, over, date=second["date"], **OVERBOOK).status_code == 200
    assert change(world.admin, over, date=world.slot(), status="cancelled").status_code == 200
    assert not is_overbooked(backend, over)


def test_of_racers_without_overbook_one_is_stored_whatever_the_others_permit(
    world: World, backend: Backend, second_instance: Service, doctors: list[str]
) -> None:
    """One is not overbooked, and the constraint in the database holds for it."""
    charts, date = [world.chart()["id"] for _ in range(12)], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 6
    more: list[dict[str, Any]] = [{}, {}, OVERBOOK, {}] * 3
    answers = concurrently(
        [
            partial(book, browser, chart, doctors[0], date, **permitted)
            for browser, chart, permitted in zip(browsers, charts, more, strict=True)
        ]
    )
    stored = backend.sql(
        "SELECT overbooked FROM appointments WHERE doctor_id = $1 AND date = $2::text::timestamptz",
        doctors[0],
        date,
    )
    assert sorted(row[0] for row in stored) in ([False, True, True], [False, True, True, True])
    for answer, permitted in zip(answers, more, strict=True):
        assert answer.status_code == 201 or answer.json() == DOCTOR_TAKEN
        assert answer.status_code == 201 or not permitted


def test_the_database_itself_knows_what_is_overbooked(world: World, backend: Backend) -> None:
    """The constraints hold for everything else."""
    some = world.appointment()
    other = f"'{world.chart()['id']}'::uuid"
    over = insert(patient=other).replace("fee)", "fee, overbooked)").replace("'SQL', 0", "'SQL', 0, true")
    backend.sql(over, some["id"])
    with pytest.raises(asyncpg.ExclusionViolationError, match="doctor_id_overlap"):
        backend.sql(insert(patient=f"'{world.chart()['id']}'::uuid"), some["id"])
    with pytest.raises(asyncpg.ExclusionViolationError, match="patient_id_overlap"):
        backend.sql(over, some["id"])


def test_a_request_that_permits_may_be_repeated(world: World, backend: Backend, doctors: list[str]) -> None:
    first, chart = world.appointment(), world.chart()["id"]
    body = {"patientId": chart, "doctorId": doctors[0], "date": first["date"], "reason": "x", **OVERBOOK}
    key = {"idempotency-key": f"over-{first['id']}"}
    booked, again = (world.staff.post("/api/appointments", body, headers=key) for _ in range(2))
    assert (booked.status_code, again.json()) == (201, booked.json())
    assert noted(backend, booked.json()) == ["create", "overbook"]


def test_a_merged_chart_is_overbooked_as_its_survivor(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    first, survivor, merged = world.appointment(), world.chart(), world.chart()
    path = f"/api/patients/{survivor['id']}/merge"
    assert world.admin.post(path, {"from": merged["id"], "reason": "One person"}).status_code == 200
    booked = book(world.staff, merged["id"], doctors[0], first["date"], **OVERBOOK)
    assert (booked.status_code, booked.json()["patientId"]) == (201, survivor["id"])
    assert noted(backend, booked.json()) == ["create", "overbook"]


def test_what_is_permitted_is_judged_by_the_hours_of_now(
    world: World, backend: Backend, second_instance: Service
) -> None:
    """This process learns how long a visit takes, and only then that it reaches over another."""
    _, doctor = doctor_with(world, week("08:00-12:00", minutes=60))
    there = second_instance.browser(world.staff.cookies)
    assert book(there, world.chart()["id"], doctor, at("09:00")).status_code == 201
    booked = book(world.staff, world.chart()["id"], doctor, at("08:15"), **OVERBOOK)
    assert (booked.status_code, is_overbooked(backend, booked.json())) == (201, True)
    assert noted(backend, booked.json()) == ["create", "overbook"]
