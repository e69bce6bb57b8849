"""Free times (contract, "Free times"), by the front door: what is offered, and to whom, and that it can be
booked."""

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from security.roles import Role
from tests.support.appointments import book, change, later, now
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend, Service

UNKNOWN_ID = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"
MORNING = [{"from": "09:00", "to": "11:00"}]
days = count()


def new_day() -> date:
    """One in the future that no other call was given."""
    return date(2120, 1, 1) + timedelta(days=next(days))


def set_hours(world: World, doctor: str, day: date, times: list[dict[str, Any]] = MORNING) -> None:
    """That the doctor works at `times` on that weekday, and never else."""
    nothing = {"validFrom": None, "validUntil": None, "minutes": None}
    hours = [{"weekday": day.isoweekday(), **nothing, **each} for each in times]
    answer = world.staff.put(f"/api/doctors/{doctor}/hours", {"hours": hours})
    assert answer.status_code == 200, answer.text


def slots_of(browser: Browser, doctor: str, day: date) -> list[str]:
    answer = browser.get(f"/api/doctors/{doctor}/slots?date={day}")
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["slots"]
    return list(answer.json()["slots"])


def slots(browser: Browser, **params: Any) -> list[tuple[str, str, str]]:
    answer = browser.get("/api/slots", params=params)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["slots"]
    return [(slot["date"], slot["doctorName"], slot["doctorId"]) for slot in answer.json()["slots"]]


def at(day: date, *times: str) -> list[str]:
    return [f"{day}T{time}:00Z" for time in times]


@pytest.fixture(scope="module")
def doctor(world: World) -> str:
    """One of a name and a specialization of their own, who works from 09:00 to 11:00 when a test says so."""
    _, me = world.account(Role.DOCTOR, name="Slota Slotsky", specialization="Slotology")
    return str(me["id"])


# One doctor, one day


def test_without_hours_anywhere_a_day_is_free_from_midnight_to_midnight(world: World) -> None:
    day = new_day()
    found = slots_of(world.patient, world.doctor.me()["id"], day)
    assert len(found) == 48
    assert found[:3] + found[-1:] == at(day, "00:00", "00:30", "01:00", "23:30")


@pytest.mark.parametrize("role", Role)
def test_every_signed_in_role_reads_the_free_times_of_a_doctor(world: World, doctor: str, role: Role) -> None:
    day = new_day()
    set_hours(world, doctor, day)
    assert slots_of(world.people[role], doctor, day) == at(day, "09:00", "09:30", "10:00", "10:30")
    assert slots_of(world.people[role], doctor, day + timedelta(days=1)) == []


def test_anonymous_callers_read_no_free_times(anonymous: Browser, doctor: str) -> None:
    assert anonymous.get(f"/api/doctors/{doctor}/slots?date={new_day()}").status_code == 401
    assert anonymous.get("/api/slots").status_code == 401


def test_a_visit_lies_in_its_interval_as_a_whole(world: World, doctor: str) -> None:
    """contract: "a visit lies in its interval as a whole"."""
    day = new_day()
    times: list[dict[str, Any]] = [
        {"from": "08:10", "to": "09:00"},
        {"from": "12:00", "to": "13:00", "minutes": 25},
        {"from": "23:45", "to": "24:00", "minutes": 15},
    ]
    set_hours(world, doctor, day, times)
    assert slots_of(world.staff, doctor, day) == at(day, "08:10", "12:00", "12:25", "23:45")


def test_a_booked_time_is_free_again_once_it_is_cancelled_or_moved(world: World, doctor: str) -> None:
    day = new_day()
    set_hours(world, doctor, day)
    free = at(day, "09:00", "09:30", "10:00", "10:30")
    first = world.appointment(doctorId=doctor, date=free[1])
    second = world.appointment(doctorId=doctor, date=later(free[2], minutes=15))  # in two of them
    assert slots_of(world.staff, doctor, day) == [free[0]]
    assert change(world.staff, first, status="cancelled").status_code == 200
    assert change(world.staff, second, date=free[3]).status_code == 200
    assert slots_of(world.staff, doctor, day) == free[:3]
    third = world.appointment(doctorId=doctor, date=later(free[1], minutes=10))
    before = {"from": free[1], "to": later(free[1], minutes=10), "doctorId": doctor}
    assert slots(world.staff, **before) == []  # it would end after the third has begun
    assert change(world.staff, third, status="cancelled").status_code == 200
    assert [slot[0] for slot in slots(world.staff, **before)] == [free[1]]
    assert slots_of(world.staff, world.other_doctor.me()["id"], day)[18:22] == free


def test_leave_and_closing_of_the_clinic_are_no_free_times(
    world: World, backend: Backend, doctor: str
) -> None:
    day = new_day()
    set_hours(world, doctor, day)
    free = at(day, "09:00", "09:30", "10:00", "10:30")
    for whose, begins, ends in [(doctor, free[0], free[1]), (None, free[2], later(free[2], minutes=10))]:
        backend.sql(
            "INSERT INTO absences (id, doctor_id, begins, ends) VALUES (gen_random_uuid(), $1, $2, $3)",
            whose,
            *map(datetime.fromisoformat, (begins, ends)),
        )
    assert slots_of(world.patient, doctor, day) == [free[1], free[3]]
    other = slots_of(world.patient, world.other_doctor.me()["id"], day)
    assert (free[0] in other, free[2] in other) == (True, False)
    backend.sql("DELETE FROM absences WHERE doctor_id IS NULL")
    assert slots_of(world.patient, doctor, day) == free[1:]


def test_own_visits_with_others_are_left_out_for_that_patient_alone(world: World, doctor: str) -> None:
    """contract: "for a patient, so is the time of their own visits with other doctors"."""
    day = new_day()
    set_hours(world, doctor, day)
    free = at(day, "09:00", "09:30", "10:00", "10:30")
    patient, chart = world.linked_patient()
    elsewhere = world.appointment(patientId=chart["id"], date=free[0])
    assert slots_of(patient, doctor, day) == free[1:]
    assert slots(patient, doctorId=doctor, **{"from": free[0]})[0][0] == free[1]
    assert slots_of(world.patient, doctor, day) == slots_of(world.staff, doctor, day) == free
    assert change(patient, elsewhere, status="cancelled").status_code == 200
    assert slots_of(patient, doctor, day) == free


def test_none_is_offered_that_has_begun(world: World) -> None:
    doctor, today = world.other_doctor.me()["id"], datetime.now(UTC).date()
    found = slots_of(world.staff, doctor, today) + slots_of(world.staff, doctor, today + timedelta(days=1))
    assert now() <= found[0] <= now(minutes=31)
    assert slots_of(world.staff, doctor, today - timedelta(days=1)) == []
    assert now() <= slots(world.staff)[0][0] <= now(minutes=31)
    assert slots(world.staff, **{"from": "1950-01-01T00:00:00Z"}) == []
    assert slots(world.staff, **{"from": now(hours=-5), "to": now(hours=-4)}) == []


@pytest.mark.parametrize("id", [UNKNOWN_ID, "1", "not-a-uuid"])
def test_free_times_of_nobody_are_404(world: World, id: str) -> None:
    answer = world.patient.get(f"/api/doctors/{id}/slots?date=2120-01-01")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Doctor not found"})


def test_only_active_doctors_have_free_times(world: World) -> None:
    _, me = world.account(Role.DOCTOR)
    path = f"/api/doctors/{me['id']}/slots?date={new_day()}"
    assert world.admin.patch(f"/api/users/{me['id']}", {"status": "disabled"}).status_code == 200
    assert world.patient.get(path).status_code == 404
    assert slots(world.patient, doctorId=me["id"]) == []
    assert (
        world.patient.get(f"/api/doctors/{world.staff.me()['id']}/slots?date=2120-01-01").status_code == 404
    )


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("", "date: is required"),
        ("?date=", "date: is required"),
        ("?date=2120-01-01&date=2120-01-01", "A query parameter may be given only once"),
        ("?date=2120-02-30", "date: must be a date, YYYY-MM-DD"),
    ],
)
def test_free_times_of_no_day_are_400(world: World, doctor: str, query: str, detail: str) -> None:
    answer = world.patient.get(f"/api/doctors/{doctor}/slots{query}")
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})


@pytest.mark.parametrize("day", ["0001-01-01", "1899-12-31", "2200-01-01", "2300-06-01", "9999-12-31"])
def test_days_beyond_the_calendar_have_no_free_times(world: World, day: str) -> None:
    assert slots_of(world.patient, world.doctor.me()["id"], date.fromisoformat(day)) == []


# Many doctors


def test_first_free_times_are_ordered_by_date_then_name_then_id(world: World) -> None:
    day = new_day()
    names = ["Ángela Slot", "angela slot", "Zoe Slot", "Zoe Slot"]
    people = [world.account(Role.DOCTOR, name=name, specialization="Ordering")[1] for name in names]
    for person in people:
        set_hours(world, person["id"], day, [{"from": "09:00", "to": "10:00"}])
    world.appointment(doctorId=people[2]["id"], date=at(day, "09:00")[0])
    expected = [
        (date, person["name"], person["id"])
        for date in at(day, "09:00", "09:30")
        for person in [
            *sorted(people[:2], key=lambda each: each["id"]),
            *sorted(people[2:], key=lambda each: each["id"]),
        ]
        if (date, person) != (at(day, "09:00")[0], people[2])
    ]
    asked = {"from": at(day, "00:00")[0], "to": at(day, "23:00")[0], "specialization": "oRdering"}
    assert slots(world.patient, **asked) == expected
    assert slots(world.patient, limit=3, **asked) == expected[:3]
    until = {**asked, "from": at(day, "09:00")[0], "to": at(day, "09:30")[0]}
    assert slots(world.patient, **until) == expected[:3]
    assert len(slots(world.patient, **{"from": asked["from"], "specialization": "Ordering"})) == 10
    one = slots(world.patient, doctorId=people[3]["id"], **asked)
    assert [slot[2] for slot in one] == [people[3]["id"]] * 2
    assert slots(world.patient, doctorId=people[3]["id"], specialization="Other") == []
    assert slots(world.patient, doctorId=UNKNOWN_ID) == []


def test_limits_of_the_first_free_times(world: World) -> None:
    """contract: "over at most 31 days"."""
    begins = at(new_day(), "12:00")[0]

    def refused(**params: Any) -> httpx.Response:
        answer = world.patient.get("/api/slots", params=params)
        assert answer.status_code == 400
        return answer

    assert len(slots(world.patient, **{"from": begins})) == 10
    assert len(slots(world.patient, **{"from": begins, "to": later(begins, days=31), "limit": 100})) == 100
    assert slots(world.patient, **{"from": begins, "to": begins}) == []
    backwards = "to: must not be before from, which is now if it is not given"
    assert refused(**{"from": begins, "to": later(begins, seconds=-1)}).json() == {"detail": backwards}
    assert refused(to=now(minutes=-1)).json() == {"detail": backwards}
    too_long = "to: must be at most 31 days after from, which is now if it is not given"
    assert refused(**{"from": begins, "to": later(begins, days=31, seconds=1)}).json() == {"detail": too_long}
    assert refused(to=now(days=31, minutes=1)).json() == {"detail": too_long}
    assert slots(world.patient, to=now(days=30))
    for limit in (0, 101):
        assert refused(limit=limit).json() == {"detail": "limit: must be an integer from 1 to 100"}


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns", "Pacific/Apia"])
def test_times_beyond_the_calendar_are_not_free(world: World, backend: Backend, zone: str) -> None:
    with Service(backend, backend.settings(clinic_timezone=zone)) as service:
        patient = service.browser(world.patient.cookies)
        for begins in ("0001-01-01T00:00:00Z", "2199-12-31T23:59:00Z", "9999-12-31T23:59:59Z"):
            for until in ({}, {"to": begins}, {"to": begins.replace("Z", ".5Z")}):
                assert slots(patient, **{"from": begins}, **until) == []


# What is offered can be booked


def test_what_is_offered_to_a_patient_can_be_booked_and_is_not_offered_again(
    world: World, doctor: str
) -> None:
    day = new_day()
    set_hours(world, doctor, day)
    patient, chart = world.linked_patient()
    asked = {"from": at(day, "00:00")[0], "doctorId": doctor}
    for left in (4, 3, 2, 1):
        found = slots(patient, **asked, to=at(day, "23:00")[0])
        assert len(found) == left
        assert book(patient, chart["id"], found[0][2], found[0][0]).status_code == 201
    assert slots_of(patient, doctor, day) == []


def test_limits_narrow_what_a_patient_is_offered_and_nobody_else(
    world: World, backend: Backend, doctor: str
) -> None:
    """contract: "what the clinic's limits do not let patients book"."""
    limits = {"booking_lead_minutes": 90, "booking_horizon_days": 1, "booking_max_open": 2}
    set_hours(world, doctor, new_day(), [])
    world.staff.put(f"/api/doctors/{doctor}/hours", {"hours": None})
    someone, chart = world.linked_patient()
    with Service(backend, backend.settings(**limits)) as limited:
        patient, staff = (limited.browser(one.cookies) for one in (someone, world.staff))
        asked = {"doctorId": doctor, "limit": 100, "to": now(days=4)}
        mine, all_times = ([date for date, _, _ in slots(one, **asked)] for one in (patient, staff))
        last = datetime.now(UTC).date() + timedelta(days=1)
        assert now(minutes=89) <= mine[0] <= now(minutes=121)
        assert mine[-1] == at(last, "23:30")[0]
        assert all_times[0] < mine[0]
        assert len(all_times) == 100
        assert slots_of(patient, doctor, last)[-1] == mine[-1]
        assert slots_of(patient, doctor, last + timedelta(days=1)) == []
        for date in (mine[0], mine[-1]):
            assert slots(patient, **asked)
            assert book(patient, chart["id"], doctor, date).status_code == 201
        assert slots(patient, **asked) == []
        assert slots_of(patient, doctor, last) == []
        assert slots(staff, **asked)
