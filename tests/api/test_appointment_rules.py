"""Appointments (contract): a rule that holds when something is made holds when it is moved, and also
after a request has waited for a lock."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest

from security.roles import Role
from tests.support.appointments import BEGUN, DEPARTED, TOO_EARLY, book, change, read
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

PAST = {"detail": "date: must not be in the past"}


Call = Callable[[], httpx.Response]


def outcome(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


def now(**by: float) -> str:
    moved = datetime.now(UTC) + timedelta(**by)
    return moved.isoformat().replace("+00:00", "Z")


def successes(backend: Backend) -> int:
    rows = backend.sql(
        "SELECT count(*) FROM audit_events WHERE outcome = 'success' AND action LIKE 'appointment.%e'"
    )
    return int(rows[0][0])


@contextmanager
def waiting_for_the_calendar(
    backend: Backend, doctor: str, *calls: Call
) -> Iterator[list[Future[httpx.Response]]]:
    """The calls, once all wait for the lock of the doctor's calendar, which is freed when the block ends."""
    key = int.from_bytes(UUID(doctor).bytes[8:], signed=True)
    with ThreadPoolExecutor(len(calls)) as pool, transaction(backend) as beside:
        beside("SELECT pg_advisory_xact_lock($1)", key)
        waiting = [pool.submit(call) for call in calls]
        until_they_wait(backend, *waiting)
        assert not any(call.done() for call in waiting)
        yield waiting


# The doctor has left


@pytest.mark.parametrize("departure", [{"status": "disabled"}, {"role": "staff"}])
def test_bookings_are_refused_when_the_doctor_leaves_while_they_wait(
    world: World, backend: Backend, departure: dict[str, str]
) -> None:
    """Nothing is booked or moved into their calendar; what is there can be completed or cancelled."""
    _, doctor = world.account(Role.DOCTOR)
    moving, ending, annotated = (world.appointment(doctorId=doctor["id"]) for _ in range(3))
    some, before = world.chart()["id"], successes(backend)
    calls = (
        partial(book, world.staff, some, doctor["id"], world.slot()),
        partial(change, world.staff, moving, date=world.slot()),
        partial(change, world.staff, moving, date=world.past_slot(), status="completed"),
        partial(change, world.staff, ending, status="cancelled"),
        partial(change, world.staff, annotated, notes="Rings back"),
    )
    with waiting_for_the_calendar(backend, doctor["id"], *calls) as waiting:
        left = world.admin.patch(f"/api/users/{doctor['id']}", departure)
        assert left.status_code == 200
    booked, moved, completed, ended, noted = (call.result() for call in waiting)
    assert outcome(booked) == (404, {"detail": "Doctor not found"})
    assert outcome(moved) == outcome(completed) == (400, DEPARTED)
    assert (ended.status_code, noted.status_code) == (200, 200)
    assert read(world, moving) == moving
    assert successes(backend) == before + 2
    same = change(world.staff, moving, date=moving["date"], status="scheduled")
    assert outcome(same) == (200, moving)  # an equal value is no move


def test_a_booking_waits_for_a_doctors_departure_under_way(world: World, backend: Backend) -> None:
    """Until the departure is stored or rolled back. Once it is stored, the booking is refused."""
    _, doctor = world.account(Role.DOCTOR)
    moving, some = world.appointment(doctorId=doctor["id"]), world.chart()["id"]
    with ThreadPoolExecutor(2) as pool:
        with transaction(backend) as beside:
            beside("UPDATE users SET status = 'disabled' WHERE id = $1", doctor["id"])
            booking = pool.submit(book, world.staff, some, doctor["id"], world.slot())
            move = pool.submit(change, world.staff, moving, date=world.slot())
            until_they_wait(backend, booking, move)
            assert not booking.done()
        assert outcome(booking.result()) == (404, {"detail": "Doctor not found"})
        assert outcome(move.result()) == (400, DEPARTED)


def test_a_doctors_departure_waits_for_a_booking_under_way(world: World, backend: Backend) -> None:
    """A booking that is allowed is stored before the departure is."""
    _, doctor = world.account(Role.DOCTOR)
    first, some = world.appointment(doctorId=doctor["id"]), world.chart()["id"]
    with ThreadPoolExecutor(2) as pool:
        with transaction(backend) as beside:  # not through the service, so the booking meets it when stored
            beside(
                "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) "
                "SELECT gen_random_uuid(), patient_id, doctor_id, $2, $3, 'SQL', 0 "
                "FROM appointments WHERE id = $1",
                first["id"],
                datetime(2190, 1, 1, 9, tzinfo=UTC),
                datetime(2190, 1, 1, 10, tzinfo=UTC),
            )
            booking = pool.submit(book, world.staff, some, doctor["id"], "2190-01-01T09:30:00Z")
            until_they_wait(backend, booking)
            leaving = pool.submit(world.admin.patch, f"/api/users/{doctor['id']}", {"status": "disabled"})
            until_they_wait(backend, booking, leaving)
            assert not leaving.done()
        assert booking.result().status_code == 400
        assert leaving.result().status_code == 200


# The patient is linked or unlinked


def test_a_patient_who_is_unlinked_while_waiting_gets_404(world: World, backend: Backend) -> None:
    """The chart and its appointments are 404 for them now, like what does not exist."""
    patient, linked = world.linked_patient()
    doctor = world.doctor.me()["id"]
    own = world.appointment(patientId=linked["id"])
    before = successes(backend)
    calls = (
        partial(book, patient, linked["id"], doctor, world.slot()),
        partial(change, patient, own, date=world.slot()),
        partial(change, patient, own, status="cancelled"),
        partial(change, patient, own),
    )
    with waiting_for_the_calendar(backend, doctor, *calls) as waiting:
        assert world.staff.delete(f"/api/patients/{linked['id']}/account").status_code == 200
    booked, *changed = (call.result() for call in waiting)
    assert outcome(booked) == (404, {"detail": "Patient not found"})
    assert [outcome(answer) for answer in changed] == [(404, {"detail": "Appointment not found"})] * 3
    assert (read(world, own), successes(backend)) == (own, before)


def test_a_booking_waits_for_a_link_under_way(world: World, backend: Backend) -> None:
    patient, linked = world.linked_patient()
    own = world.appointment(patientId=linked["id"])
    with ThreadPoolExecutor(2) as pool:
        with transaction(backend) as beside:
            beside("UPDATE patients SET user_id = NULL WHERE id = $1", linked["id"])
            booking = pool.submit(book, patient, linked["id"], own["doctorId"], world.slot())
            move = pool.submit(change, patient, own, date=world.slot())
            until_they_wait(backend, booking, move)
            assert not booking.done()
        assert outcome(booking.result()) == (404, {"detail": "Patient not found"})
        assert outcome(move.result()) == (404, {"detail": "Appointment not found"})


# Time has passed


def test_a_patient_is_refused_if_the_appointment_begins_while_they_wait(
    world: World, backend: Backend
) -> None:
    """The appointment was ahead when they asked, and has begun when the lock is theirs."""
    patient, linked = world.linked_patient()
    _, doctor = world.account(Role.DOCTOR)
    soon = datetime.now(UTC) + timedelta(seconds=4)
    date = soon.isoformat().replace("+00:00", "Z")
    own = world.appointment(patientId=linked["id"], doctorId=doctor["id"], date=date)
    far = world.appointment(patientId=linked["id"], doctorId=doctor["id"])
    calls = (
        partial(book, patient, linked["id"], doctor["id"], date),
        partial(change, patient, own, date=world.slot()),
        partial(change, patient, own, status="cancelled"),
        partial(change, patient, far, date=date),
        partial(change, world.staff, own, notes="Is late"),
    )
    with waiting_for_the_calendar(backend, doctor["id"], *calls) as waiting:
        while datetime.now(UTC) <= soon:
            time.sleep(0.05)
    booked, moved, cancelled, moved_there, noted = (call.result() for call in waiting)
    assert outcome(booked) == outcome(moved_there) == (400, PAST)
    assert outcome(moved) == outcome(cancelled) == (400, BEGUN)
    assert noted.status_code == 200
    assert read(world, own) == {**own, "notes": "Is late"}


def test_a_patient_moves_and_cancels_future_appointments_only(world: World) -> None:
    """Staff and doctors may change what has begun; a value that is so already is no change."""
    patient, linked = world.linked_patient()
    for begun in (now(minutes=-1), now(days=-1), "1999-12-31T23:00:00Z"):
        some = world.appointment(patientId=linked["id"], date=begun)
        for changes in ({"status": "cancelled"}, {"date": world.slot()}, {"date": now(days=-2)}):
            assert outcome(change(patient, some, **changes)) == (400, BEGUN)
        assert outcome(change(patient, some, status="scheduled", date=begun)) == (200, some)
        assert outcome(change(patient, some, notes="x"))[0] == 403  # the role is checked before the state
        assert change(world.doctor, some, date=world.past_slot()).status_code == 200
        assert change(world.staff, some, status="cancelled").status_code == 200
    ahead = world.appointment(patientId=linked["id"])
    assert outcome(change(patient, ahead, date=now(minutes=-1), status="cancelled")) == (400, PAST)
    assert change(patient, ahead, status="cancelled").status_code == 200


# Completed on its day


def test_no_appointment_is_completed_before_its_day(world: World) -> None:
    some = world.appointment(date="2042-05-20T10:00:00Z")
    for browser in (world.admin, world.staff, world.doctor):
        for more in ({}, {"notes": "x"}, {"date": "2042-05-21T10:00:00Z"}):
            assert outcome(change(browser, some, status="completed", **more)) == (400, TOO_EARLY)
    assert read(world, some) == some
    came = now(minutes=-5)
    assert change(world.doctor, some, status="completed", date=came).json()["status"] == "completed"
    late = world.appointment(date=world.past_slot())
    assert outcome(change(world.staff, late, status="completed", date=world.slot())) == (400, TOO_EARLY)
    assert change(world.staff, late, status="completed").status_code == 200


@pytest.mark.parametrize("hours", range(-12, 15, 3))
def test_an_appointment_may_be_completed_from_midnight_at_the_clinic(
    world: World, backend: Backend, hours: int
) -> None:
    """From the first instant of the day there, whatever the hour of the appointment; not an hour before."""
    zone = f"Etc/GMT{-hours:+d}"
    today = datetime.now(ZoneInfo(zone)).date()
    last = datetime.combine(today, datetime.max.time(), ZoneInfo(zone)).replace(microsecond=0)
    with Service(backend, backend.settings(clinic_timezone=zone)) as clinic:
        doctor = clinic.browser(world.other_doctor.cookies)
        at_its_end, tomorrow = (
            world.appointment(doctorId=world.other_doctor.me()["id"], date=instant.isoformat())
            for instant in (last - timedelta(hours=1), last + timedelta(seconds=1))
        )
        answers = [change(doctor, some, status="completed") for some in (tomorrow, at_its_end)]
    if datetime.now(ZoneInfo(zone)).date() == today:
        assert outcome(answers[0]) == (400, TOO_EARLY)
    assert answers[1].status_code == 200
    for some in (at_its_end, tomorrow):
        change(world.staff, some, status="cancelled")


# Locks are taken in one order


def test_concurrent_bookings_links_and_departures_do_not_deadlock(world: World) -> None:
    """They touch the same rows, and none of them waits in a circle (which would be a 503)."""
    patient, linked = world.linked_patient()
    _, doctor = world.account(Role.DOCTOR)
    link = f"/api/patients/{linked['id']}/account"
    account, user = f"/api/users/{doctor['id']}", {"userId": patient.me()["id"]}
    moving = world.appointment(patientId=linked["id"], doctorId=doctor["id"])
    calls: list[Call] = []
    for _ in range(4):
        calls += [
            partial(book, world.staff, linked["id"], doctor["id"], world.slot()),
            partial(book, patient, linked["id"], doctor["id"], world.slot()),
            partial(change, patient, moving, date=world.slot()),
            partial(world.admin.patch, account, {"status": "disabled"}),
            partial(world.admin.patch, account, {"status": "active"}),
            partial(world.staff.delete, link),
            partial(world.admin.put, link, user),
            partial(world.staff.patch, f"/api/patients/{linked['id']}", {"phone": "1"}),
        ]
    with ThreadPoolExecutor(8) as pool:
        answers = [call.result() for call in [pool.submit(call) for call in calls]]
    assert {answer.status_code for answer in answers} <= {200, 201, 400, 404}
