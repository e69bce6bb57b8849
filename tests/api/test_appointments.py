"""Appointments (requirement, section 5; contract, "Appointments"): booking, moving, and the two ends."""

from typing import Any
from uuid import uuid4

import pytest

from security.roles import Role
from tests.support.appointments import DEPARTED, book, change, listed, now, read
from tests.support.client import Browser
from tests.support.factories import World, registration
from tests.support.service import Backend, Service

KEYS = ["id", "patientId", "patientName", "doctorId", "doctorName", "date", "status", "reason", "notes"]


NO_DATE = {"detail": "date: must be an RFC 3339 date and time with an offset, such as 2026-01-31T09:30:00Z"}


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


@pytest.mark.slow
def test_staff_book_any_patient_with_any_doctor(world: World, doctors: list[str]) -> None:
    for doctor in doctors:
        assert book(world.staff, world.chart()["id"], doctor, world.slot()).status_code == 201


@pytest.mark.slow
def test_doctors_book_any_patient_with_themselves_only(world: World, doctors: list[str]) -> None:
    some = world.chart()["id"]
    assert book(world.doctor, some, doctors[0], world.slot()).status_code == 201
    for doctor in (doctors[1], str(uuid4()), world.staff.me()["id"]):
        assert book(world.doctor, some, doctor, world.slot()).status_code == 403
    assert book(world.doctor, str(uuid4()), doctors[0], world.slot()).json() == {
        "detail": "Patient not found"
    }


def test_patients_book_for_their_own_chart_only(
    world: World, own_chart: dict[str, Any], doctors: list[str]
) -> None:
    assert book(world.patient, own_chart["id"], doctors[1], world.slot()).status_code == 201
    for foreign in (world.chart()["id"], str(uuid4())):
        refused = book(world.patient, foreign, doctors[0], world.slot())
        assert (refused.status_code, refused.json()) == (404, {"detail": "Patient not found"})
    assert book(world.other_patient, own_chart["id"], doctors[0], world.slot()).status_code == 404


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
    world: World, own_chart: dict[str, Any], doctors: list[str]
) -> None:
    """Staff and doctors may enter what has happened."""
    for past in (now(hours=-1), now(minutes=-2), "1999-12-31T23:59:59Z"):
        refused = book(world.patient, own_chart["id"], doctors[0], past)
        assert (refused.status_code, refused.json()) == (400, {"detail": "date: must not be in the past"})
    assert book(world.staff, own_chart["id"], doctors[0], now(days=-400)).status_code == 201
    assert book(world.doctor, own_chart["id"], doctors[0], now(days=-401)).status_code == 201
    assert book(world.patient, own_chart["id"], doctors[0], now(days=1)).status_code == 201


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
