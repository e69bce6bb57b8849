"""Appointments (contract, "Appointments"): nobody has two at the same time, under any concurrency and on two
instances."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import asyncpg
import httpx
import pytest

from tests.support.appointments import FINAL, book, change, later, listed, read
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

DOCTOR_TAKEN = {"detail": "date: the doctor has another appointment at that time"}


PATIENT_TAKEN = {"detail": "date: the patient has another appointment at that time"}


def concurrently(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """Make all calls at the same time; the answers, none of which may be a server error."""
    gate = threading.Barrier(len(calls))

    def made(call: Callable[[], httpx.Response]) -> httpx.Response:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(made, calls))
    assert {answer.status_code for answer in answers} <= {200, 201, 400}
    return answers


# Contract, "Appointments": nobody has two at the same time


@pytest.mark.parametrize(
    ("minutes", "free"),
    [(-31, True), (-30, True), (-29, False), (0, False), (29, False), (30, True), (31, True)],
)
def test_an_appointment_takes_thirty_minutes_of_doctor_and_patient(
    world: World, doctors: list[str], minutes: int, free: bool
) -> None:
    """APPOINTMENT_MINUTES: those right before and right after are free, for the doctor and the patient."""
    world.slot()  # an hour that stays empty
    first = world.appointment()
    world.slot()
    near = later(first["date"], minutes=minutes)
    for patient, doctor, taken in [
        (world.chart()["id"], doctors[0], DOCTOR_TAKEN),
        (first["patientId"], doctors[1], PATIENT_TAKEN),
    ]:
        answer = book(world.staff, patient, doctor, near)
        assert answer.status_code == (201 if free else 400)
        if not free:
            assert answer.json() == taken
    assert book(world.staff, world.chart()["id"], doctors[2], first["date"]).status_code == 201


@pytest.mark.parametrize("end", ["cancelled", "completed"])
def test_cancelled_and_completed_appointments_free_their_slot(
    world: World, doctors: list[str], end: str
) -> None:
    """A cancelled one frees its slot, and so does one that was completed early."""
    first = world.appointment(date=world.past_slot())
    assert book(world.staff, world.chart()["id"], doctors[0], first["date"]).status_code == 400
    assert change(world.staff, first, status=end).status_code == 200
    assert book(world.staff, first["patientId"], doctors[0], first["date"]).status_code == 201
    assert book(world.staff, world.chart()["id"], doctors[0], first["date"]).status_code == 400


def test_moving_into_another_appointment_is_400_and_changes_nothing(world: World, doctors: list[str]) -> None:
    """On every path: a move is refused like a booking, and then nothing has changed."""
    taken, moving = world.appointment(), world.appointment()
    refused = change(world.staff, moving, date=later(taken["date"], minutes=15), notes="moved")
    assert (refused.status_code, refused.json()) == (400, DOCTOR_TAKEN)
    assert read(world, moving) == moving
    with_other = world.appointment(patientId=moving["patientId"], doctorId=doctors[1])
    refused = change(world.doctor, moving, date=with_other["date"])
    assert (refused.status_code, refused.json()) == (400, PATIENT_TAKEN)
    assert read(world, moving) == moving


def test_moving_an_appointment_frees_the_old_slot_and_takes_the_new(world: World, doctors: list[str]) -> None:
    moving, new = world.appointment(), world.slot()
    a_little = change(world.staff, moving, date=later(moving["date"], minutes=10))  # over itself
    assert a_little.status_code == 200
    moved = change(world.staff, moving, date=new)
    assert moved.json() == {**moving, "date": new}
    assert book(world.staff, world.chart()["id"], doctors[0], moving["date"]).status_code == 201
    assert book(world.staff, world.chart()["id"], doctors[0], new).status_code == 400


def test_a_moved_appointment_keeps_the_length_it_was_booked_with(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    """APPOINTMENT_MINUTES of the day of the booking: a visit keeps its length when it moves later on."""
    with Service(backend, backend.settings(appointment_minutes=60)) as hourly:
        staff = hourly.browser(world.staff.cookies)
        first = book(staff, world.chart()["id"], doctors[0], world.slot()).json()
        assert (
            book(staff, world.chart()["id"], doctors[0], later(first["date"], minutes=45)).status_code == 400
        )
    moved = change(world.staff, first, date=world.slot()).json()
    after = [later(moved["date"], minutes=minutes) for minutes in (45, 60)]
    world.slot()  # the hour that the visit reaches into
    assert book(world.staff, world.chart()["id"], doctors[0], after[0]).status_code == 400
    assert book(world.staff, world.chart()["id"], doctors[0], after[1]).status_code == 201


# The same, under any concurrency and on two instances


def winners(answers: list[httpx.Response], status: int = 201) -> list[int]:
    """The indexes of the calls that succeeded; all others were told whose time was taken."""
    for answer in answers:
        assert answer.status_code == status or answer.json() in (DOCTOR_TAKEN, PATIENT_TAKEN)
    return [number for number, answer in enumerate(answers) if answer.status_code == status]


def test_of_twenty_concurrent_bookings_of_one_slot_one_is_stored(
    world: World, second_instance: Service, doctors: list[str]
) -> None:
    """The same doctor and the same patient: one 201 and nineteen 400."""
    some, date = world.chart()["id"], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 10
    answers = concurrently([partial(book, browser, some, doctors[0], date) for browser in browsers])
    assert len(winners(answers)) == 1
    [booked] = [a for a in listed(world.admin, date=date[:10]) if a["patientId"] == some]
    assert booked["date"] == date


def test_of_twenty_concurrent_overlapping_bookings_with_one_doctor_one_is_stored(
    world: World, second_instance: Service, doctors: list[str]
) -> None:
    """Overlapping times, not just equal ones."""
    charts, date = [world.chart()["id"] for _ in range(20)], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 10
    answers = concurrently(
        [
            partial(book, browser, patient, doctors[0], later(date, minutes=number % 10))
            for number, (browser, patient) in enumerate(zip(browsers, charts, strict=True))
        ]
    )
    assert len(winners(answers)) == 1


def test_of_concurrent_bookings_of_one_patient_with_many_doctors_one_is_stored(
    world: World, second_instance: Service, doctors: list[str]
) -> None:
    some, date = world.chart()["id"], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 10
    answers = concurrently(
        [
            partial(book, browser, some, doctors[number % len(doctors)], date)
            for number, browser in enumerate(browsers)
        ]
    )
    assert len(winners(answers)) == 1


def test_concurrent_bookings_at_one_time_never_double_book_a_doctor_or_patient(
    world: World, second_instance: Service, doctors: list[str]
) -> None:
    """Five doctors and four patients at one time: every pair is tried, and nobody is booked twice."""
    charts, date = [world.chart()["id"] for _ in range(4)], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)]
    pairs = [(patient, doctor) for patient in charts for doctor in doctors]
    answers = concurrently(
        [
            partial(book, browsers[number % 2], patient, doctor, date)
            for number, (patient, doctor) in enumerate(pairs)
        ]
    )
    booked = [pairs[number] for number in winners(answers)]
    assert booked
    assert len({patient for patient, _ in booked}) == len({doctor for _, doctor in booked}) == len(booked)
    free_patients = set(charts) - {patient for patient, _ in booked}
    free_doctors = set(doctors) - {doctor for _, doctor in booked}
    assert not (free_patients and free_doctors), "two who both were free have been refused"


def test_of_twenty_concurrent_moves_to_one_slot_one_is_stored(world: World, second_instance: Service) -> None:
    """Concurrent moves of twenty appointments of one doctor: one 200, and the rest stand where they were."""
    moving, date = [world.appointment() for _ in range(20)], world.slot()
    browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 10
    answers = concurrently(
        [
            partial(change, browser, appointment, date=date)
            for browser, appointment in zip(browsers, moving, strict=True)
        ]
    )
    [winner] = winners(answers, 200)
    for number, appointment in enumerate(moving):
        assert read(world, appointment)["date"] == (date if number == winner else appointment["date"])


def test_concurrent_swaps_of_two_slots_are_refused_without_deadlock(
    world: World, second_instance: Service, doctors: list[str]
) -> None:
    """Two who would swap places are both refused, and neither waits for the other for ever."""
    first, other = world.appointment(), world.appointment()
    there = second_instance.browser(world.staff.cookies)
    answers = concurrently(
        [
            partial(change, world.staff, first, date=other["date"]),
            partial(change, there, other, date=first["date"]),
            partial(book, there, first["patientId"], doctors[0], other["date"]),
            partial(book, world.staff, other["patientId"], doctors[0], first["date"]),
        ]
        * 3
    )
    assert winners(answers) == []
    assert (read(world, first), read(world, other)) == (first, other)


def test_of_concurrent_completion_and_cancellation_the_first_is_final(
    world: World, second_instance: Service
) -> None:
    """Completed here and cancelled there: the first is final for the second."""
    some = world.appointment(date=world.past_slot())
    there = second_instance.browser(world.doctor.cookies)
    ends = ["completed", "cancelled"] * 5
    answers = concurrently(
        [
            partial(change, browser, some, status=end)
            for browser, end in zip([world.staff, there] * 5, ends, strict=True)
        ]
    )
    stored = read(world, some)["status"]
    for end, answer in zip(ends, answers, strict=True):
        if end == stored:  # the winner, and an equal change after it
            assert (answer.status_code, answer.json()["status"]) == (200, stored)
        else:
            assert (answer.status_code, answer.json()) == (400, FINAL)


# The constraints of the database

INSERT = (
    "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, status, reason, fee) "
    "SELECT gen_random_uuid(), {patient}, {doctor}, date + {by}, {ends}, {status}, 'SQL', 0 "
    "FROM appointments WHERE id = $1"
)
SAME = {"patient": "patient_id", "doctor": "doctor_id", "by": "'0'::interval", "status": "'scheduled'"}


def insert(**changes: str) -> str:
    values = {**SAME, **changes}
    return INSERT.format(**{"ends": f"ends_at + {values['by']}", **values})


def test_the_database_itself_refuses_overlapping_and_endless_appointments(
    world: World, backend: Backend
) -> None:
    """Two exclusion constraints and a CHECK, without the service: SQLSTATE 23P01 and 23514."""
    some, other = world.appointment(), world.chart()["id"]
    another_patient, another_doctor = f"'{other}'::uuid", f"'{world.other_doctor.me()['id']}'::uuid"
    overlapping = [
        (insert(patient=another_patient), "appointments_doctor_id_overlap"),
        (insert(patient=another_patient, by="'29 minutes'::interval"), "appointments_doctor_id_overlap"),
        (insert(doctor=another_doctor), "appointments_patient_id_overlap"),
        (insert(doctor=another_doctor, by="'-29 minutes'::interval"), "appointments_patient_id_overlap"),
    ]
    for statement, constraint in overlapping:
        with pytest.raises(asyncpg.ExclusionViolationError) as refused:
            backend.sql(statement, some["id"])
        assert (refused.value.sqlstate, refused.value.constraint_name) == ("23P01", constraint)
    with pytest.raises(asyncpg.CheckViolationError):
        backend.sql(insert(ends="date", status="'cancelled'"), some["id"])
    for allowed in (
        insert(status="'cancelled'"),
        insert(status="'completed'"),
        insert(by="'30 minutes'::interval"),
        insert(patient=another_patient, doctor=another_doctor),
    ):
        backend.sql(allowed, some["id"])
    with pytest.raises(asyncpg.ExclusionViolationError):
        backend.sql("UPDATE appointments SET status = 'scheduled' WHERE doctor_id = $1", some["doctorId"])


def test_a_slot_taken_by_direct_sql_is_400(world: World, backend: Backend, doctors: list[str]) -> None:
    """SQL that takes no lock is committed in between: the constraint refuses the booking, which is a 400
    too."""
    some, other, date = world.appointment(), world.chart()["id"], world.slot()
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as beside:
            beside(insert(by=f"('{date}'::timestamptz - date)"), some["id"])
            booking = pool.submit(book, world.staff, other, doctors[0], date)
            until_they_wait(backend, booking)
            assert not booking.done()
        refused = booking.result()
    assert refused.status_code == 400
    assert refused.json() == {"detail": "date: there is another appointment at that time"}
