"""Booking and moving against hours and absences."""

from typing import Any

import httpx
import pytest

from api.schedule.naming import NONE
from tests.support.appointments import book, change, later
from tests.support.factories import World
from tests.support.schedule import (
    PROBLEM,
    WHY,
    Doctor,
    at,
    be_away,
    doctor_with,
    history,
    noted,
    put_hours,
    week,
)
from tests.support.service import Backend, Service

OUTSIDE = {"detail": "date: is outside the hours of the doctor"}
ABSENT = {"detail": "date: the doctor is away or the clinic is closed at that time"}
MORNING = week("08:00-12:00", "12:00-12:30", "14:00-24:00")


@pytest.fixture(scope="module")
def doctor(world: World) -> Doctor:
    return doctor_with(world, MORNING)


@pytest.mark.parametrize(
    ("clock", "days", "is_inside"),
    [("07:59", 0, False), ("08:00", 0, True), ("08:07", 7, True), ("11:45", 14, True), ("12:01", 21, False),
     ("13:50", 28, False), ("23:30", 35, True), ("23:31", 42, False), ("08:00", 43, False)],
)  # fmt: skip
def test_staff_book_off_the_grid_inside_hours_only(
    world: World, doctor: Doctor, clock: str, days: int, is_inside: bool
) -> None:
    """Contract: "Staff and doctors book any time within the hours"; the whole visit, also where one interval
    begins as another ends."""
    for browser in (world.staff, doctor[0]):
        answer = book(browser, world.chart()["id"], doctor[1], at(clock, days))
        assert answer.status_code == (201 if is_inside else 400), answer.text
        if not is_inside:
            assert answer.json() == OUTSIDE
        days += 364


def test_an_override_books_outside_hours_and_is_noted(world: World, backend: Backend, doctor: Doctor) -> None:
    """Contract: "it is 400 without `override`", of which the trail has an event of its own, and the history
    the reason."""
    chart = world.chart()["id"]
    for browser, days in ((world.staff, 70), (doctor[0], 77)):
        booked = book(browser, chart, doctor[1], at("03:07", days), override=WHY)
        assert booked.status_code == 201, booked.text
        assert noted(backend, booked.json()) == ["create", "override"]
        assert history(world.admin, booked.json()) == [("override", None, WHY["reason"])]
    problem = world.staff.post(
        "/api/appointments",
        {"patientId": chart, "doctorId": doctor[1], "date": at("03:07", 84), "reason": "x"},
        headers=PROBLEM,
    ).json()
    assert (problem["code"], problem["detail"]) == ("outside_hours", OUTSIDE["detail"])


def test_a_permission_that_is_not_needed_does_nothing(world: World, backend: Backend, doctor: Doctor) -> None:
    booked = book(
        world.staff,
        world.chart()["id"],
        doctor[1],
        at("09:00", 91),
        override=WHY,
        overbook={"reason": "Full"},
    )
    assert booked.status_code == 201
    assert noted(backend, booked.json()) == ["create"]
    moved = change(world.staff, booked.json(), date=at("10:00", 91), override=WHY, overbook=WHY)
    assert moved.status_code == 200
    assert noted(backend, booked.json()) == ["create", "update"]
    assert change(world.staff, booked.json(), override=WHY, overbook=WHY).json() == moved.json()
    assert [field for field, *_ in history(world.admin, booked.json())] == ["date"]
    assert (
        backend.sql("SELECT overbooked FROM appointments WHERE id = $1", booked.json()["id"])[0][0] is False
    )


def test_a_move_is_judged_by_hours_as_a_booking_is(world: World, backend: Backend, doctor: Doctor) -> None:
    """Contract: "A move is judged as a booking is"."""
    booked = world.appointment(doctorId=doctor[1], date=at("09:00", 98))
    for browser in (world.staff, world.admin, doctor[0]):
        refused = change(browser, booked, date=at("03:00", 98))
        assert (refused.status_code, refused.json()) == (400, OUTSIDE)
    moved = change(world.admin, booked, date=at("03:00", 98), override=WHY)
    assert moved.json() == {**booked, "date": at("03:00", 98)}
    assert noted(backend, booked) == ["create", "update", "override"]
    assert sorted(history(world.admin, booked)) == [
        ("date", at("09:00", 98), at("03:00", 98)),
        ("override", None, WHY["reason"]),
    ]
    # It may stay where it is, and end there, without being asked again.
    assert change(world.staff, booked, date=at("03:00", 98), notes="Came alone").status_code == 200
    assert change(world.staff, booked, date=at("04:00", 98), status="cancelled").status_code == 200


def test_nobody_is_booked_into_an_absence_without_an_override(world: World, backend: Backend) -> None:
    """Contract: "while the doctor is away or the clinic closed, it is 400 without `override`"; also where
    there are no hours at all."""
    browser, doctor = doctor_with(world, None)
    chart = world.chart()["id"]
    be_away(backend, doctor, at("10:00", 105), at("11:00", 105))
    be_away(backend, None, at("12:00", 105), at("13:00", 105))
    booked = world.appointment(doctorId=doctor, date=at("14:00", 105))
    for clock, is_free in (("09:31", False), ("09:30", True), ("10:59", False), ("12:29", False)):
        answer = book(world.staff, world.chart()["id"], doctor, at(clock, 105))
        assert answer.status_code == (201 if is_free else 400), answer.text
        if not is_free:
            assert answer.json() == ABSENT
            assert change(browser, booked, date=at(clock, 105)).json() == ABSENT
    away = book(browser, chart, doctor, at("10:15", 105), override=WHY)
    assert (away.status_code, noted(backend, away.json())) == (201, ["create", "override"])
    closed = book(world.staff, chart, doctor, at("12:15", 105), override=WHY)
    assert (closed.status_code, noted(backend, closed.json())) == (201, ["create", "override"])
    moved = change(world.staff, booked, date=at("12:45", 105), override=WHY)
    assert (moved.status_code, noted(backend, booked)) == (200, ["create", "update", "override"])


def lasts(backend: Backend, appointment: dict[str, Any]) -> int:
    """Minutes."""
    [row] = backend.sql("SELECT ends_at - date FROM appointments WHERE id = $1", appointment["id"])
    return int(row[0].total_seconds() // 60)


def test_a_visit_is_as_long_as_the_interval_says_that_it_begins_in(world: World, backend: Backend) -> None:
    """Contract: "Where there are hours, the visit is as long as they say at the new time"; it keeps its
    length while it does not move."""
    hours = week("08:00-10:00", minutes=60) + week("10:00-12:00", minutes=15)
    _, doctor = doctor_with(world, hours)
    booked = world.appointment(doctorId=doctor, date=at("08:30"))
    assert lasts(backend, booked) == 60
    assert change(world.staff, booked, date=at("10:00")).status_code == 200
    assert lasts(backend, booked) == 15
    assert change(world.staff, booked, date=at("14:00"), override=WHY).status_code == 200
    assert lasts(backend, booked) == 30  # outside of them, as long as at the clinic
    put_hours(world.staff, doctor, week("08:00-24:00", minutes=45))
    assert change(world.staff, booked, notes="Came alone").status_code == 200
    assert lasts(backend, booked) == 30
    assert change(world.staff, booked, date=at("15:00")).status_code == 200
    assert lasts(backend, booked) == 45


def test_a_booking_is_judged_by_hours_that_another_instance_has_changed(
    world: World, backend: Backend, second_instance: Service
) -> None:
    """Each process remembers hours, and asks whether they are still so."""
    _, doctor = doctor_with(world, week("08:00-12:00"))
    there = second_instance.browser(world.staff.cookies)
    first = world.appointment(doctorId=doctor, date=at("08:00"))
    put_hours(there, doctor, week("12:00-18:00", minutes=60))
    assert book(world.staff, world.chart()["id"], doctor, at("09:00")).json() == OUTSIDE
    assert lasts(backend, world.appointment(doctorId=doctor, date=at("12:00"))) == 60
    put_hours(there, doctor, week("08:00-12:00", minutes=20))
    assert change(world.staff, first, date=at("11:40")).status_code == 200
    assert lasts(backend, first) == 20
    put_hours(there, doctor, None)
    assert lasts(backend, world.appointment(doctorId=doctor, date=at("03:00"))) == 30
    put_hours(there, doctor, [])
    assert book(world.staff, world.chart()["id"], doctor, at("04:00")).json() == OUTSIDE


def test_the_hours_of_the_clinic_are_those_of_a_doctor_without_their_own(
    world: World, backend: Backend
) -> None:
    """CLINIC_HOURS, in CLINIC_TIMEZONE."""
    _, doctor = doctor_with(world, None)
    settings = backend.settings(clinic_hours="Tue 08:00-12:00", clinic_timezone="Asia/Kathmandu")
    with Service(backend, settings) as elsewhere:
        staff = elsewhere.browser(world.staff.cookies)
        chart = world.chart()["id"]
        assert book(staff, chart, doctor, at("02:14")).json() == OUTSIDE
        assert book(staff, chart, doctor, at("02:15")).status_code == 201  # 08:00 there
        assert book(staff, chart, doctor, at("05:46")).json() == OUTSIDE
        put_hours(staff, doctor, week("14:00-15:00"))
        assert book(staff, chart, doctor, at("03:15")).json() == OUTSIDE
        assert book(staff, chart, doctor, at("08:15")).status_code == 201


def test_only_the_clinic_permits_anything(world: World, own_chart: dict[str, Any]) -> None:
    """Contract: "From patients both are 403"; a reason that is blank is 400."""
    booked = world.appointment(patientId=own_chart["id"])
    for name in ("override", "overbook"):
        expected = {"detail": f"Your role may not use {name}; admin, doctor and staff may"}
        doctor = booked["doctorId"]
        asked = book(world.patient, own_chart["id"], doctor, world.slot(), **{name: WHY})
        assert (asked.status_code, asked.json()) == (403, expected)
        moved = change(world.patient, booked, date=world.slot(), **{name: WHY})
        assert (moved.status_code, moved.json()) == (403, expected)
        for blank in ({"reason": " "}, {}, {"reason": None}, "why"):
            assert (
                book(world.staff, own_chart["id"], doctor, world.slot(), **{name: blank}).status_code == 400
            )
            assert change(world.staff, booked, date=world.slot(), **{name: blank}).status_code == 400
        nothing: dict[str, Any] = {name: None}
        assert book(world.patient, own_chart["id"], doctor, world.slot(), **nothing).status_code == 201


def named(refusal: str, time: str | None) -> tuple[int, dict[str, str]]:
    said = f"the first free time from then on is {time}" if time else NONE
    return 400, {"detail": f"date: {refusal}; {said}"}


def outcome(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


NOT_FREE = "is not one of the free times"


def test_a_patient_books_and_moves_to_the_free_times_only(
    world: World, backend: Backend, own_chart: dict[str, Any]
) -> None:
    """Contract: "a patient books one of the free times: any other is 400, whose detail names the first free
    one at or after it"."""
    _, doctor = doctor_with(world, week("08:00-10:10", minutes=20))
    be_away(backend, doctor, at("09:00"), at("09:01"))
    booked = book(world.patient, own_chart["id"], doctor, at("08:00"))
    assert booked.status_code == 201, booked.text
    for clock, first in (
        ("07:20", at("08:20")),
        ("08:30", at("08:40")),
        ("09:00", at("09:20")),
        ("10:00", at("08:00", 7)),
        ("12:00", at("08:00", 7)),
    ):
        refused = book(world.patient, own_chart["id"], doctor, at(clock))
        assert outcome(refused) == named(NOT_FREE, first)
        refused = change(world.patient, booked.json(), date=at(clock))
        assert outcome(refused) == named(NOT_FREE, at("08:00") if clock == "07:20" else first)  # itself
    world.appointment(doctorId=doctor, date=at("08:21"))
    taken = book(world.patient, own_chart["id"], doctor, at("08:40"))
    assert outcome(taken) == named("the doctor has another appointment at that time", at("09:20"))
    assert change(world.patient, booked.json(), date=at("09:20")).status_code == 200
    assert lasts(backend, booked.json()) == 20
    again = book(world.patient, own_chart["id"], doctor, at("09:20"))
    assert outcome(again) == named("the doctor has another appointment at that time", at("09:40"))


def test_a_patient_is_told_the_first_free_time_wherever_it_is(
    world: World, backend: Backend, own_chart: dict[str, Any]
) -> None:
    """Where there are no hours, only absences are in the way; where nobody works for a year, there is
    none."""
    _, doctor = doctor_with(world, None)
    be_away(backend, doctor, at("10:00"), at("10:10", 40))
    refused = book(world.patient, own_chart["id"], doctor, at("12:07"))
    assert outcome(refused) == named(NOT_FREE, at("10:30", 40))
    assert book(world.patient, own_chart["id"], doctor, at("10:11", 40)).status_code == 201
    world.appointment(doctorId=doctor, date=at("14:00", 41))
    taken = book(world.patient, own_chart["id"], doctor, at("14:00", 41))
    assert outcome(taken) == (400, {"detail": "date: the doctor has another appointment at that time"})
    put_hours(world.staff, doctor, [{**one, "validFrom": "2102-06-01"} for one in week("08:00-09:00")])
    for asked in (at("08:00"), later("2102-06-01T00:00:00Z", days=-365)):
        first = book(world.patient, own_chart["id"], doctor, asked).json()["detail"]
        assert first.startswith(f"date: {NOT_FREE}; the first free time from then on is 2102-06-0")
    for never in (
        {"validUntil": "2020-01-01"},
        {"validFrom": "9999-01-01"},
        {"validFrom": "2102-06-01", "validUntil": "2102-06-01", "weekday": 1},  # which is a Thursday
    ):
        put_hours(world.staff, doctor, [{**week("08:00-09:00")[0], **never}])
        assert outcome(book(world.patient, own_chart["id"], doctor, at("08:00"))) == named(NOT_FREE, None)


def test_hours_hold_from_the_first_day_to_the_last(world: World, own_chart: dict[str, Any]) -> None:
    ever = {"validFrom": "0001-01-01", "validUntil": "9999-12-31"}
    _, doctor = doctor_with(world, [{**one, **ever} for one in week("08:00-09:00")])
    refused = book(world.patient, own_chart["id"], doctor, at("07:00"))
    assert outcome(refused) == named(NOT_FREE, at("08:00"))


def test_who_is_completed_at_another_time_was_there_in_hours(world: World, doctor: Doctor) -> None:
    """Contract: "A move is judged as a booking is", also together with what ends the visit; but nobody else's
    visit is in its way."""
    last_night = "2024-05-07T03:07:00Z"
    booked = book(world.staff, world.chart()["id"], doctor[1], at("08:00", 399)).json()
    refused = change(world.staff, booked, date=last_night, status="completed")
    assert (refused.status_code, refused.json()) == (400, OUTSIDE)
    moved = change(world.staff, booked, date=last_night, status="completed", override=WHY)
    assert (moved.status_code, moved.json()["date"]) == (200, last_night)
    assert ("override", None, WHY["reason"]) in history(world.admin, booked)
    other = book(world.staff, world.chart()["id"], doctor[1], at("08:30", 399)).json()
    assert book(world.staff, world.chart()["id"], doctor[1], "2024-05-07T08:00:00Z").status_code == 201
    at_once = change(world.staff, other, date="2024-05-07T08:00:00Z", status="completed")
    assert at_once.status_code == 200, at_once.text
