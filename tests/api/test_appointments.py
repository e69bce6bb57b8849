"""Appointments (requirement, section 5; contract, "Appointments"): booking, moving, and the two ends."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

KEYS = ["id", "patientId", "patientName", "doctorId", "doctorName", "date", "status", "reason", "notes"]
DOCTOR_TAKEN = {"detail": "date: the doctor has another appointment at that time"}
PATIENT_TAKEN = {"detail": "date: the patient has another appointment at that time"}
DEPARTED = {"detail": "date: the doctor takes no appointments any more"}
BEGUN = {"detail": "An appointment that has begun cannot be moved or cancelled by the patient"}
TOO_EARLY = {"detail": "status: an appointment cannot be completed before its day"}
FINAL = {"detail": "A completed or cancelled appointment cannot change"}
NO_DATE = {"detail": "date: must be an RFC 3339 date and time with an offset, such as 2026-01-31T09:30:00Z"}


@pytest.fixture(scope="module")
def own(world: World) -> dict[str, Any]:
    """The chart that is linked to the patient's account; the other patient has none."""
    linked = world.chart(name="Paula Patient")
    world.link(linked["id"], world.patient)
    return linked


@pytest.fixture(scope="module")
def doctors(world: World) -> list[str]:
    """Five doctors; the first two are those of the world."""
    made = [world.admin.post("/api/auth/register", registration(Role.DOCTOR)).json() for _ in range(3)]
    return [world.doctor.me()["id"], world.other_doctor.me()["id"], *(doctor["id"] for doctor in made)]


def book(browser: Browser, patient: str, doctor: str, date: str, **more: Any) -> httpx.Response:
    body = {"patientId": patient, "doctorId": doctor, "date": date, "reason": "Check-up", **more}
    return browser.post("/api/appointments", body)


def change(browser: Browser, appointment: dict[str, Any], **changes: Any) -> httpx.Response:
    return browser.patch(f"/api/appointments/{appointment['id']}", changes)


def later(date: str, **by: float) -> str:
    moved = datetime.fromisoformat(date) + timedelta(**by)
    return moved.astimezone(UTC).isoformat().replace("+00:00", "Z")


def now(**by: float) -> str:
    return later(datetime.now(UTC).replace(microsecond=0).isoformat(), **by)


def read(world: World, appointment: dict[str, Any]) -> dict[str, Any]:
    return dict(world.admin.get(f"/api/appointments/{appointment['id']}").json())


def listed(browser: Browser, **params: Any) -> list[dict[str, Any]]:
    page = browser.get("/api/appointments", params={"limit": 100, **params}).json()
    assert list(page) == ["appointments", "total"]
    assert page["total"] == len(page["appointments"])
    return list(page["appointments"])


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


# Requirement, section 5: shape


def test_a_booking_has_every_key_in_the_order_of_the_requirement(world: World) -> None:
    """Section 5, POST, GET and the list: the same object everywhere, null where there are no notes."""
    some, doctor = world.chart(name="Nora Novak"), world.doctor.me()
    made = book(world.staff, some["id"], doctor["id"], world.slot(), reason="Chest pain")
    assert made.status_code == 201
    booked = made.json()
    assert list(booked) == KEYS
    assert (booked["patientId"], booked["patientName"]) == (some["id"], "Nora Novak")
    assert (booked["doctorId"], booked["doctorName"]) == (doctor["id"], doctor["name"])
    assert (booked["status"], booked["reason"], booked["notes"]) == ("scheduled", "Chest pain", None)
    one = world.staff.get(f"/api/appointments/{booked['id']}")
    assert (one.status_code, one.json()) == (200, booked)
    assert booked in listed(world.staff, date=booked["date"][:10])


def test_appointments_show_the_current_names_of_patient_and_doctor(world: World) -> None:
    booked = world.appointment()
    world.staff.patch(f"/api/patients/{booked['patientId']}", {"name": "Married Name"})
    assert read(world, booked)["patientName"] == "Married Name"


@pytest.mark.parametrize("notes", [None, ""])
def test_empty_absent_and_null_notes_are_answered_as_null(world: World, notes: str | None) -> None:
    """Contract, "Values": null on POST equals absent, `""` becomes null."""
    assert world.appointment(notes=notes)["notes"] is None
    assert world.appointment(notes=" x ")["notes"] == " x "


# Contract, "Who may do what": booking


def test_staff_book_any_patient_with_any_doctor(world: World, doctors: list[str]) -> None:
    for doctor in doctors:
        assert book(world.staff, world.chart()["id"], doctor, world.slot()).status_code == 201


def test_doctors_book_any_patient_with_themselves_only(world: World, doctors: list[str]) -> None:
    some = world.chart()["id"]
    assert book(world.doctor, some, doctors[0], world.slot()).status_code == 201
    for doctor in (doctors[1], str(uuid4()), world.staff.me()["id"]):
        assert book(world.doctor, some, doctor, world.slot()).status_code == 403
    assert book(world.doctor, str(uuid4()), doctors[0], world.slot()).json() == {
        "detail": "Patient not found"
    }


def test_patients_book_for_their_own_chart_only(
    world: World, own: dict[str, Any], doctors: list[str]
) -> None:
    assert book(world.patient, own["id"], doctors[1], world.slot()).status_code == 201
    for foreign in (world.chart()["id"], str(uuid4())):
        refused = book(world.patient, foreign, doctors[0], world.slot())
        assert (refused.status_code, refused.json()) == (404, {"detail": "Patient not found"})
    assert book(world.other_patient, own["id"], doctors[0], world.slot()).status_code == 404


def test_administrators_and_anonymous_callers_cannot_book(
    world: World, anonymous: Browser, doctors: list[str]
) -> None:
    """Section 5: staff, doctor, patient. Nor does anyone who has not signed in."""
    some, before = world.chart()["id"], len(listed(world.admin, date="2099-12-31"))
    assert book(world.admin, some, doctors[0], "2099-12-31T10:00:00Z").status_code == 403
    assert book(anonymous, some, doctors[0], "2099-12-31T10:00:00Z").status_code == 401
    assert len(listed(world.admin, date="2099-12-31")) == before


def test_unknown_patients_and_inactive_doctors_cannot_be_booked(world: World, anonymous: Browser) -> None:
    """Contract: unknown ids, and one who is not an active doctor, are 404 in a body."""
    some = world.chart()["id"]
    pending = anonymous.post("/api/auth/register", registration(Role.DOCTOR)).json()["id"]
    nobody = [world.staff.me()["id"], world.patient.me()["id"], world.admin.me()["id"], some, str(uuid4())]
    for doctor in [pending, *nobody]:
        refused = book(world.staff, some, doctor, world.slot())
        assert (refused.status_code, refused.json()) == (404, {"detail": "Doctor not found"})
    account = f"/api/users/{pending}"
    assert world.admin.patch(account, {"status": "active"}).status_code == 200
    booked = book(world.staff, some, pending, world.slot())
    assert booked.status_code == 201
    assert world.admin.patch(account, {"status": "disabled"}).status_code == 200
    assert book(world.staff, some, pending, world.slot()).status_code == 404
    moved = change(world.staff, booked.json(), date=world.slot())  # the appointment stays where it is
    assert (moved.status_code, moved.json()) == (400, DEPARTED)
    assert read(world, booked.json())["doctorId"] == pending


INVALID: dict[str, list[Any]] = {
    "patientId": ["", "1", "not-a-uuid", None, 5],
    "doctorId": ["", "1", "not-a-uuid", None, 5],
    "reason": ["", "  ", "\n", None, "r" * 501, 5, "nul\u0000"],
    "notes": ["n" * 5001, 5, ["x"], "\u0000"],
    "status": ["scheduled"],
    "fee": [0],
    "id": [str(uuid4())],
}


@pytest.mark.parametrize("field", INVALID)
def test_invalid_booking_fields_are_400(world: World, doctors: list[str], field: str) -> None:
    """Contract, "Values": bounds, blank text, malformed ids in a body and unknown fields are 400."""
    some = world.chart()["id"]
    for value in INVALID[field]:
        refused = book(
            world.staff, **{"patient": some, "doctor": doctors[0], "date": world.slot(), field: value}
        )
        assert refused.status_code == 400, value
        assert refused.json()["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize("missing", ["patientId", "doctorId", "date", "reason"])
def test_missing_or_null_booking_fields_are_400(world: World, missing: str) -> None:
    body = {"patientId": str(uuid4()), "doctorId": str(uuid4()), "date": world.slot(), "reason": "x"}
    del body[missing]
    refused = world.staff.post("/api/appointments", body)
    assert (refused.status_code, refused.json()) == (400, {"detail": f"{missing}: is required"})


# Contract, "Appointments": dates


def test_patients_cannot_book_in_the_past_but_staff_and_doctors_can(
    world: World, own: dict[str, Any], doctors: list[str]
) -> None:
    """Staff and doctors may enter what has happened."""
    for past in (now(hours=-1), now(minutes=-2), "1999-12-31T23:59:59Z"):
        refused = book(world.patient, own["id"], doctors[0], past)
        assert (refused.status_code, refused.json()) == (400, {"detail": "date: must not be in the past"})
    assert book(world.staff, own["id"], doctors[0], now(days=-400)).status_code == 201
    assert book(world.doctor, own["id"], doctors[0], now(days=-401)).status_code == 201
    assert book(world.patient, own["id"], doctors[0], now(days=1)).status_code == 201


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2150-01-01T12:00:00Z", "2150-01-01T12:00:00Z"),
        ("2150-01-02T12:00:00+03:00", "2150-01-02T09:00:00Z"),
        ("2150-01-03T23:30:00-05:30", "2150-01-04T05:00:00Z"),
        ("2150-01-05T00:15:00+14:00", "2150-01-04T10:15:00Z"),
        ("2150-01-06T12:00:00-00:00", "2150-01-06T12:00:00Z"),
        ("2150-01-07T12:00:00.000Z", "2150-01-07T12:00:00Z"),
        ("2150-01-08t12:00:00z", "2150-01-08T12:00:00Z"),
        ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z"),
        ("2199-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
        ("2200-01-01T01:00:00+02:00", "2199-12-31T23:00:00Z"),
    ],
)
def test_appointment_dates_with_an_offset_are_answered_in_utc(
    world: World, doctors: list[str], sent: str, answered: str
) -> None:
    booked = book(world.staff, world.chart()["id"], doctors[2], sent)
    assert booked.status_code == 201
    assert booked.json()["date"] == read(world, booked.json())["date"] == answered


@pytest.mark.parametrize(
    "date",
    [
        "2150-02-01T12:00:00", "2150-02-01T12:00", "2150-02-01", "2150-02-01T12:00Z", "2150-02-01T12:00:00 Z",
        "2150-02-30T12:00:00Z", "2150-02-01T24:00:00Z", "2150-02-01T23:60:00Z",
        "2150-02-01T12:00:00+24:00", "2150-02-01T12:00:00+3", "2150-02-01T12:00:00+0530",
        "2150-02-01 12:00:00Z", "20500201T120000Z", f"2150-02-01T12:00:00.{'1' * 60}Z",
        "tomorrow", "now", 4102444800, "4102444800", True,
        "+292277026596-12-04T15:30:07Z", "0000-01-01T00:00:00Z", "2150-02-01T12:00:00Z\u0000",
    ],
)  # fmt: skip
def test_invalid_appointment_dates_are_400(world: World, doctors: list[str], date: Any) -> None:
    """Above all a time without an offset: 400 on POST and PATCH."""
    refused = book(world.staff, world.chart()["id"], doctors[0], date)
    assert (refused.status_code, refused.json()) == (400, NO_DATE)
    moved = world.staff.patch(f"/api/appointments/{uuid4()}", {"date": date})
    assert (moved.status_code, moved.json()) == (400, NO_DATE)


@pytest.mark.parametrize("date", ["2150-02-01T23:59:60Z", "2016-12-31t15:59:60.5-08:00"])
def test_a_leap_second_is_400_with_its_own_detail(world: World, doctors: list[str], date: str) -> None:
    """Contract, "Errors": no other rule speaks of them."""
    leap = {"detail": "date: must not be a leap second"}
    refused = book(world.staff, world.chart()["id"], doctors[0], date)
    assert (refused.status_code, refused.json()) == (400, leap)
    moved = world.staff.patch(f"/api/appointments/{uuid4()}", {"date": date})
    assert (moved.status_code, moved.json()) == (400, leap)


@pytest.mark.parametrize("date", ["", " ", None])
def test_an_empty_appointment_date_is_400(world: World, doctors: list[str], date: Any) -> None:
    """As a form sends an empty field: missing where it is required, and no date elsewhere."""
    refused = book(world.staff, world.chart()["id"], doctors[0], date)
    assert (refused.status_code, refused.json()) == (400, {"detail": "date: is required"})
    moved = world.staff.patch(f"/api/appointments/{uuid4()}", {"date": date})
    assert (moved.status_code, moved.json()) == (400, NO_DATE)


@pytest.mark.parametrize(
    "date",
    [
        "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1899-12-31T23:59:59Z",
        "1900-01-01T00:00:00+01:00", "2199-12-31T23:59:59-01:00", "2200-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00",
    ],
)  # fmt: skip
def test_appointment_dates_beyond_the_calendar_are_400(world: World, doctors: list[str], date: str) -> None:
    """Contract, "Values": what no database could hold is 400, never 500."""
    refused = book(world.staff, world.chart()["id"], doctors[0], date)
    assert refused.status_code == 400
    assert refused.json() == {"detail": "date: must be from 1900-01-01 to 2199-12-31"}
    booked = world.appointment()
    assert change(world.staff, booked, date=date).status_code == 400
    assert read(world, booked) == booked


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


# Contract, "Appointments": scheduled, then completed or cancelled for good


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_completed_and_cancelled_appointments_cannot_change(world: World, end: str) -> None:
    some = world.appointment(date=world.past_slot())
    ended = change(world.doctor, some, status=end)
    assert (ended.status_code, ended.json()) == (200, {**some, "status": end})
    other_end = {"completed": "cancelled", "cancelled": "completed"}[end]
    for too_late in ({"status": "scheduled"}, {"status": other_end}, {"date": world.slot()}):
        for browser in (world.admin, world.staff, world.doctor):
            refused = change(browser, some, **too_late)
            assert (refused.status_code, refused.json()) == (400, FINAL)
    assert change(world.staff, some, notes="x", date=world.slot()).json() == FINAL
    assert read(world, some) == {**some, "status": end}


def test_only_the_notes_of_a_completed_appointment_may_change(world: World) -> None:
    done, off = (world.appointment(notes="before", date=world.past_slot()) for _ in range(2))
    assert change(world.doctor, done, status="completed", notes="while").json()["notes"] == "while"
    assert change(world.doctor, done, notes="after").json() == {
        **done,
        "status": "completed",
        "notes": "after",
    }
    assert change(world.staff, done, notes=None).json()["notes"] is None
    assert change(world.staff, off, status="cancelled", notes="while").json()["notes"] == "while"
    assert change(world.staff, off, notes="after").json() == FINAL
    assert read(world, off)["notes"] == "while"


@pytest.mark.parametrize("end", ["scheduled", "completed", "cancelled"])
def test_equal_values_in_an_appointment_change_count_as_absent(world: World, end: str) -> None:
    """So a client may send back what it has read, even of one that is over, the date in whatever offset."""
    some = world.appointment(notes="noted", date=world.past_slot())
    assert change(world.staff, some, status=end).status_code == 200
    shifted = datetime.fromisoformat(some["date"]) + timedelta(hours=3)
    in_istanbul = shifted.replace(tzinfo=None).isoformat() + "+03:00"
    same = change(world.staff, some, status=end, notes="noted", date=in_istanbul)
    assert (same.status_code, same.json()) == (200, {**some, "status": end})
    assert change(world.staff, some).json() == {**some, "status": end}
    if end == "completed":
        assert change(world.staff, some, status=end, date=some["date"], notes="new").json()["notes"] == "new"


def test_an_appointment_may_be_completed_and_moved_in_one_change(world: World, doctors: list[str]) -> None:
    """It took place at another time than planned, when others have appointments: only scheduled ones
    overlap."""
    taken, some = world.appointment(date=world.past_slot()), world.appointment()
    done = change(world.doctor, some, status="completed", date=taken["date"])
    assert done.json() == {**some, "status": "completed", "date": taken["date"]}


UNCHANGEABLE = [
    {"status": "done"}, {"status": None}, {"status": ""}, {"date": None}, {"notes": 5},
    {"notes": "n" * 5001}, {"reason": "x"}, {"fee": 0}, {"id": str(uuid4())},
    {"patientId": str(uuid4())}, {"doctorId": str(uuid4())},
]  # fmt: skip


@pytest.mark.parametrize("body", UNCHANGEABLE)
def test_unknown_and_null_fields_of_an_appointment_change_are_400(world: World, body: dict[str, Any]) -> None:
    some = world.appointment()
    assert change(world.staff, some, **body).status_code == 400
    assert read(world, some) == some


@pytest.mark.parametrize("cleared", [None, ""])
def test_notes_of_an_appointment_can_be_cleared(world: World, cleared: str | None) -> None:
    some = world.appointment(notes="noted")
    assert change(world.staff, some, notes=cleared).json() == {**some, "notes": None}


# Contract, "Who may do what": changing and reading


def test_patients_move_or_cancel_their_own_appointments(world: World, own: dict[str, Any]) -> None:
    some, new = world.appointment(patientId=own["id"]), world.slot()
    moved = change(world.patient, some, date=new)
    assert (moved.status_code, moved.json()) == (200, {**some, "date": new})
    past = change(world.patient, some, date=now(hours=-2))
    assert (past.status_code, past.json()) == (400, {"detail": "date: must not be in the past"})
    cancelled = change(world.patient, some, status="cancelled")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert change(world.patient, some, date=world.slot()).json() == FINAL


def test_patients_cannot_complete_appointments_or_change_notes(world: World, own: dict[str, Any]) -> None:
    """403 and nothing changes; a value that is so already is no change."""
    some = world.appointment(patientId=own["id"], notes="by staff", date=world.past_slot())
    for body in ({"notes": "mine"}, {"notes": None}, {"status": "completed"}):
        for more in ({}, {"date": world.slot()}):
            assert change(world.patient, some, **body, **more).status_code == 403
    assert read(world, some) == some
    assert change(world.patient, some, notes="by staff", status="scheduled").json() == some
    assert change(world.staff, some, status="completed").status_code == 200
    # The role is checked before the state.
    assert change(world.patient, some, notes="mine").status_code == 403
    assert change(world.patient, some, status="scheduled").status_code == 403
    assert change(world.patient, some, status="cancelled").json() == FINAL


def test_appointments_of_other_people_are_404(world: World, own: dict[str, Any]) -> None:
    """Doctors and patients see and change their own; the rest is the same 404 as an unknown id."""
    foreign = world.appointment(doctorId=world.other_doctor.me()["id"])
    missing = {"detail": "Appointment not found"}
    for browser in (world.doctor, world.patient, world.other_patient):
        for id in (foreign["id"], str(uuid4()), "not-a-uuid"):
            seen = browser.get(f"/api/appointments/{id}")
            changed = browser.patch(f"/api/appointments/{id}", {"status": "cancelled"})
            assert (seen.status_code, seen.json()) == (changed.status_code, changed.json()) == (404, missing)
        assert foreign["id"] not in [seen["id"] for seen in listed(browser, date=foreign["date"][:10])]
    assert read(world, foreign) == foreign
    for browser in (world.admin, world.staff, world.other_doctor):
        foreign = {**foreign, "notes": f"by {browser.me()['name']}"}
        assert change(browser, foreign, notes=foreign["notes"]).json() == foreign
        assert browser.get(f"/api/appointments/{foreign['id']}").json() == foreign
        assert foreign in listed(browser, date=foreign["date"][:10])


def test_appointments_become_visible_and_invisible_with_the_link_of_their_chart(world: World) -> None:
    """Linked, the patient sees them; unlinked, they see and change nothing."""
    some = world.appointment()
    link = f"/api/patients/{some['patientId']}/account"
    assert listed(world.other_patient) == []
    assert world.staff.put(link, {"userId": world.other_patient.me()["id"]}).status_code == 200
    assert listed(world.other_patient) == [some]
    assert world.staff.delete(link).status_code == 200
    assert listed(world.other_patient) == []
    assert change(world.other_patient, some, status="cancelled").status_code == 404


# Requirement, section 5, GET: filters and order


def test_appointments_are_ordered_by_date_then_id(world: World, doctors: list[str]) -> None:
    """Stable where many begin at once, from page to page."""
    day, made = "2180-06-01", []
    for hour in (9, 8, 9, 10, 9, 8, 9, 9, 9, 9, 8):
        made.append(world.appointment(date=f"{day}T{hour:02}:00:00Z"))
        assert change(world.staff, made[-1], status="cancelled").status_code == 200
    made.append(world.appointment(date=f"{day}T09:00:00Z", doctorId=doctors[1]))
    expected = [a["id"] for a in sorted(made, key=lambda a: (a["date"], a["id"]))]
    assert [a["id"] for a in listed(world.staff, date=day)] == expected
    pages = [
        world.staff.get("/api/appointments", params={"date": day, "limit": 5, "page": page}).json()
        for page in range(1, 5)
    ]
    assert [a["id"] for page in pages for a in page["appointments"]] == expected
    assert [page["total"] for page in pages] == [12] * 4
    assert [a["id"] for a in listed(world.doctor, date=day)] == [
        id for id in expected if id != made[-1]["id"]
    ]


def test_appointments_are_filtered_by_status(world: World) -> None:
    day = "1980-07-01"
    made = [world.appointment(date=f"{day}T{hour:02}:00:00Z") for hour in (8, 9, 10, 11)]
    assert change(world.staff, made[1], status="completed").status_code == 200
    assert change(world.staff, made[2], status="cancelled").status_code == 200
    for status, expected in [
        ("scheduled", [made[0], made[3]]),
        ("completed", [{**made[1], "status": "completed"}]),
        ("cancelled", [{**made[2], "status": "cancelled"}]),
    ]:
        assert listed(world.staff, date=day, status=status) == expected
        assert listed(world.doctor, date=day, status=status) == expected
        every = world.staff.get("/api/appointments", params={"status": status, "limit": 100}).json()
        assert {seen["status"] for seen in every["appointments"]} == {status}
    totals = [
        world.staff.get("/api/appointments", params=params).json()["total"]
        for params in ({}, {"status": "scheduled"}, {"status": "completed"}, {"status": "cancelled"})
    ]
    assert totals[0] == sum(totals[1:])


@pytest.mark.parametrize(
    "query",
    [
        "status=done", "status=%20", "status=Scheduled", "status=null", "status=Null", "status=%00",
        "status=scheduled,completed", "date=%20", "date=today", "date=null", "date=2180-02-30",
        "date=2180-6-1", "date=21800601", "date=0", "date=2180-06-01T00:00:00Z", "date=10000-01-01",
        "date=-001-01-01", "date=2180-06-01%00",
    ],
)  # fmt: skip
def test_invalid_appointment_filters_are_400(world: World, query: str) -> None:
    """400 and the rule, never a list that was not asked for."""
    refused = world.staff.get(f"/api/appointments?{query}")
    assert refused.status_code == 400
    rule = {"status": "must be one of scheduled, completed, cancelled", "date": "must be a date, YYYY-MM-DD"}
    name = query.split("=")[0]
    assert refused.json() == {"detail": f"{name}: {rule[name]}"}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_appointment_lists_of_extreme_dates_are_empty(world: World, backend: Backend, zone: str) -> None:
    """Contract, "Values": extreme dates are no error of ours, in whatever zone."""
    with Service(backend, backend.settings(clinic_timezone=zone)) as clinic:
        staff = clinic.browser(world.staff.cookies)
        for day in ("0001-01-01", "0001-01-02", "1582-10-10", "9999-12-30", "9999-12-31"):
            assert listed(staff, date=day) == []


@pytest.mark.parametrize(
    ("day", "begins", "ends", "hours"),
    [
        ("2027-03-14", "2027-03-14T05:00:00Z", "2027-03-15T04:00:00Z", 23),
        ("2027-03-17", "2027-03-17T04:00:00Z", "2027-03-18T04:00:00Z", 24),
        ("2027-11-07", "2027-11-07T04:00:00Z", "2027-11-08T05:00:00Z", 25),
    ],
)
def test_the_date_filter_of_appointments_means_a_day_at_the_clinic(
    world: World, backend: Backend, doctors: list[str], day: str, begins: str, ends: str, hours: int
) -> None:
    """CLINIC_TIMEZONE decides when a day begins and ends, when the clocks change too."""
    assert later(begins, hours=hours) == ends
    before, first, last, after = (
        world.appointment(doctorId=doctors[4], date=date)
        for date in (later(begins, minutes=-30), begins, later(ends, minutes=-30), ends)
    )
    with Service(backend, backend.settings(clinic_timezone="America/New_York")) as new_york:
        assert listed(new_york.browser(world.staff.cookies), date=day) == [first, last]
    at_a_clinic_in_utc = listed(world.staff, date=day)
    assert at_a_clinic_in_utc == [a for a in (before, first, last, after) if a["date"].startswith(day)]
    assert last not in at_a_clinic_in_utc


def test_a_clinic_day_that_repeats_an_hour_is_one_day_in_the_date_filter(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    """At 00:01 on 7 November 2010 the clocks of St. John's went back to 23:01 of the day before."""
    first, second, next_day = (
        world.appointment(doctorId=doctors[4], date=date)
        for date in ("2010-11-06T23:15:00-02:30", "2010-11-06T23:15:00-03:30", "2010-11-07T00:00:00-03:30")
    )
    with Service(backend, backend.settings(clinic_timezone="America/St_Johns")) as clinic:
        staff = clinic.browser(world.staff.cookies)
        assert listed(staff, date="2010-11-06") == [first, second]
        assert listed(staff, date="2010-11-07") == [next_day]


# Contract, "Dashboard": a booking keeps the fee of its day


def test_an_appointment_keeps_the_fee_it_was_booked_with(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    """Booked for 90, moved and completed while the fee is 150: 90 in the revenue."""
    with Service(backend, backend.settings(consultation_fee=90)) as cheaper:
        booked = book(
            cheaper.browser(world.staff.cookies), world.chart()["id"], doctors[0], world.past_slot()
        ).json()
    before = world.admin.get("/api/dashboard/stats").json()["revenue"]
    assert change(world.staff, booked, date=world.past_slot()).status_code == 200
    assert change(world.staff, booked, status="completed").status_code == 200
    assert world.admin.get("/api/dashboard/stats").json()["revenue"] == before + 90
    dear = world.appointment(date=world.past_slot())
    assert change(world.staff, dear, status="completed").status_code == 200
    assert world.admin.get("/api/dashboard/stats").json()["revenue"] == before + 90 + 150
